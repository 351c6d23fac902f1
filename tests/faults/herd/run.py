"""One run: calm, then a provider is down with many jobs waiting, then it is back until all of them are complete."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from datahog.bootstrap.wiring import Wiring
from persistence.errors import Unavailable
from persistence.records.request import RequestStatus
from persistence.records.timestamps import utc_now
from tests.faults.herd.others import Others
from tests.faults.herd.usage import cpu_seconds
from tests.faults.herd.world import DOWN, OTHER, Span, World
from tests.support.system import System, eventually, system_settings
from workers.queue import fetch_steps

# Threads.
_WRITERS = 16


@dataclass(frozen=True)
class Plan:
    """`jobs` wait for a provider that is down for `outage` seconds; another provider is asked `rate` times a second.

    `calm` and `after` are the seconds measured before and after the outage; `latency` is the seconds a provider takes.
    """

    jobs: int
    outage: float
    calm: float
    after: float
    rate: float
    concurrency: int = 10
    failures: int = 20
    open_seconds: float = 1
    latency: float = 0.1
    workers: int = 2


@dataclass(frozen=True)
class Phase:
    """A part of the run: the provider's calls in it, and the seconds of the other's requests (None: no callback).

    `cpu` is the share of one CPU that each program used.
    """

    name: str
    begun: float
    ended: float
    calls: Sequence[Span]
    others: Sequence[float | None]
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Moment:
    """A moment of the run: its `time.monotonic`, and the CPU seconds that each program had used by then."""

    at: float
    used: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run. `drained` is the seconds from the provider's return to the last callback."""

    phases: Sequence[Phase]
    drained: float
    statuses: Counter[str]
    delivered: Counter[int]
    """The number of requests by their number of callbacks."""
    attempts: int
    calls: Sequence[Span]
    back_at: float


def conduct(plan: Plan, directory: Path, *, dynamodb_url: str | None = None) -> Outcome:
    """Run the plan, on the embedded DynamoDB unless `dynamodb_url` names another."""
    with World(latency=plan.latency) as world:
        (directory / "providers.yaml").write_text(_providers(plan, world))
        settings = system_settings(directory, worker_processes=plan.workers, reconciler_period=5, log_level="WARNING")
        engines = ["redis"] if dynamodb_url else ["dynamodb", "redis"]
        if dynamodb_url:
            settings = settings.model_copy(update={"dynamodb_endpoint_url": dynamodb_url})
        with System(settings) as system:
            system.start(*engines, "tables", "aggregator", "worker", "reconciler")
            wiring = Wiring(settings, {"DATAHOG_SIMULATOR_URL": "http://unused"})
            with Others(system, world, rate=plan.rate) as others:
                # The first requests take longer.
                time.sleep(min(5, plan.calm))
                calm = _moment(system)
                time.sleep(plan.calm)
                down = _moment(system)
                world.is_down = True
                ids = _fill(wiring, world, plan.jobs)
                filled = _moment(system)
                time.sleep(max(0.0, plan.outage - (filled.at - down.at)))
                world.is_down, back = False, _moment(system)
                ends = back.at + plan.after
                eventually(lambda: _all_back(world, ids) or time.monotonic() > ends, plan.after + 60, 0.2)
                measured = _moment(system)
                eventually(lambda: _all_back(world, ids), 900, 0.2)
                drained = max(world.received[i][0] for i in ids) - back.at
                after = _moment(system)
                time.sleep(min(plan.calm, plan.after))
                end = _moment(system)
            # By now the workers have recorded the last deliveries.
            records = [wiring.requests.get(request_id) for request_id in ids]
        phases = [
            _phase(world, others, "before", calm, down),
            _phase(world, others, "down, jobs being enqueued", down, filled),
            _phase(world, others, "down, all jobs waiting", filled, back),
            _phase(world, others, f"back, at most {plan.after:g} s", back, measured),
            _phase(world, others, "all complete", after, end),
        ]
        return Outcome(
            phases,
            drained,
            Counter(record.status for record in records),
            Counter(len(world.received[request_id]) for request_id in ids),
            sum(record.jobs[0].attempts for record in records),
            world.calls[DOWN],
            back.at,
        )


def all_came_back_once(plan: Plan, outcome: Outcome) -> bool:
    """Whether each request is COMPLETE and was delivered once."""
    return outcome.statuses == {RequestStatus.COMPLETE: plan.jobs} and outcome.delivered == {1: plan.jobs}


def _moment(system: System) -> Moment:
    return Moment(time.monotonic(), cpu_seconds(system))


def _all_back(world: World, ids: Sequence[str]) -> bool:
    return all(request_id in world.received for request_id in ids)


def _phase(world: World, others: Others, name: str, begun: Moment, ended: Moment) -> Phase:
    calls = [span for span in world.calls[DOWN] if begun.at <= span.begun < ended.at]
    seconds = max(0.001, ended.at - begun.at)
    cpu = {program: (used - begun.used[program]) / seconds for program, used in ended.used.items()}
    return Phase(name, begun.at, ended.at, calls, others.took(begun.at, ended.at), cpu)


def _providers(plan: Plan, world: World) -> str:
    breaker = {"failures": plan.failures, "openSeconds": plan.open_seconds}
    retry = {"initialDelay": 0.5, "maximumDelay": 5}
    options = {"concurrency": plan.concurrency, "breaker": breaker, "retry": retry}
    return json.dumps({"providers": {name: {"url": world.provider_url(name)} | options for name in (DOWN, OTHER)}})


def _fill(wiring: Wiring, world: World, jobs: int) -> list[str]:
    """Write `jobs` requests of the provider that is down, and enqueue their jobs; returns the ids."""
    deadline = utc_now() + timedelta(days=1)

    def put(number: int) -> str:
        request_id = f"waiting-{number}"
        where = [(DOWN, world.provider_url(DOWN))], world.hook_url(request_id)
        while True:
            try:
                request, _ = wiring.requests.create(request_id, *where, deadline=deadline, content={})
                break
            except Unavailable:
                # The machine is busy; a caller would repeat the call.
                continue
        wiring.queue.put(*fetch_steps(request, utc_now()))
        return request_id

    with ThreadPoolExecutor(_WRITERS) as writers:
        return list(writers.map(put, range(jobs)))
