"""A real worker calls all hostile servers at once: it records reasons, its memory is flat, no other job waits."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import orjson
import pytest

from tests.hostile.behaviours import READ, TOTAL, behaviours, server
from tests.support import proc
from tests.support.servers.receiver import Answer, Receiver
from tests.support.servers.stub import RawServer
from tests.support.system import System, eventually, system_settings

# Megabytes by which the worker may grow: at its peak, while all hostile providers send up to 5 MB at once and it parses
# some of that, which takes a dozen times its size; and for good, after many hostile responses.
PEAK, GROWTH = 120, 40
# Seconds that a good provider's request may take, at the median and at most: each hostile attempt takes up to two, and
# a busy machine delays some.
USUAL, LONGEST = 1.0, 5.0
# Requests of the good provider.
ROUNDS = 30

ALL = dict(behaviours())


@dataclass
class Run:
    """The outcome: the jobs, the worker's memory in megabytes, and the seconds of the good provider's requests."""

    jobs: dict[str, dict[str, Any]]
    before: int
    peak: int
    after: int
    seconds: list[float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Call every hostile provider, repeatedly, and a good one meanwhile."""
    directory = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        receiver.answers("/good", Answer(200, {"Content-Type": "application/json"}, b"[1]"))
        servers = {name: stack.enter_context(server(behaviour)) for name, behaviour in ALL.items()}
        (directory / "providers.yaml").write_bytes(_providers(servers, receiver))
        system = stack.enter_context(System(system_settings(directory, worker_concurrency=100)))
        system.start("dynamodb", "redis", "tables", "aggregator", "worker")
        yield _run(system, receiver)


def _providers(servers: dict[str, RawServer], receiver: Receiver) -> bytes:
    hostile = {
        "connectTimeout": 1,
        "readTimeout": READ,
        "totalTimeout": TOTAL,
        "retry": {"initialDelay": 0.2, "maximumDelay": 1, "jitter": 0.5},
    }
    urls = {name: hostile | {"url": server.url} for name, server in servers.items()}
    return orjson.dumps({"providers": {"good": {"url": receiver.url("/good")}, **urls}})


def _run(system: System, receiver: Receiver) -> Run:
    _good(system, receiver)
    before = _memory(system, "VmRSS")
    names = sorted(ALL)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    asked = [system.hand_over(*half, callback_url=receiver.url("/hostile")) for half in halves]
    seconds = [_good(system, receiver) for _ in range(ROUNDS)]

    def tried() -> dict[str, dict[str, Any]] | None:
        jobs = {job["provider"]: job for request in asked for job in system.look(request)["jobs"]}
        return jobs if all(job["attempts"] >= 1 for job in jobs.values()) else None

    jobs = eventually(tried)
    peak = _memory(system, "VmHWM")
    for request in asked:
        system.order(request, "cancel")
    time.sleep(TOTAL)  # attempts under way still end
    after = _memory(system, "VmRSS")
    assert "Traceback" not in system.log("worker"), system.log("worker")
    return Run(jobs, before, peak, after, seconds)


def _good(system: System, receiver: Receiver) -> float:
    """The seconds from a request of the good provider to the delivery of its result."""
    calls = len(receiver.calls("/result"))
    began = time.monotonic()
    system.hand_over("good", callback_url=receiver.url("/result"))
    call = eventually(lambda: receiver.calls("/result")[calls:], pause=0.005)[0]
    return call.at - began


def _memory(system: System, what: Literal["VmRSS", "VmHWM"]) -> int:
    """The worker's memory, in megabytes."""
    return proc.memory(system.process_id("worker"), what) // 1024 // 1024


@pytest.mark.parametrize("name", ALL)
def test_the_record_has_the_reason_of_a_hostile_provider(run: Run, name: str) -> None:
    job, behaviour = run.jobs[name], ALL[name]

    assert job["lastError"].startswith(behaviour.reason)
    assert len(job["lastError"]) <= 260
    assert job["status"] == ("FAILED" if behaviour.fails else "INIT")


def test_hostile_providers_leave_the_workers_memory_flat(run: Run) -> None:
    assert run.peak < run.before + PEAK
    assert run.after < run.before + GROWTH


def test_hostile_providers_delay_no_other_job(run: Run) -> None:
    assert median(run.seconds) < USUAL
    assert max(run.seconds) < LONGEST
