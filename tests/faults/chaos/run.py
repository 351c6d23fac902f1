"""The run: a system and the world around it under load, while faults begin and end; then the count."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from datahog.local import stack
from datahog.settings import Settings
from persistence.records.timestamps import from_text
from tests.faults.chaos.count import Count, count
from tests.faults.chaos.evidence import Evidence, gather
from tests.faults.chaos.faults import Disturbed, Injected, Injector
from tests.faults.chaos.healing import times_to_heal
from tests.faults.chaos.link import Link
from tests.faults.chaos.load import PROVIDERS, Asked, Load
from tests.faults.chaos.memory import Memory, Resident
from tests.faults.chaos.mutations import Mutation
from tests.faults.chaos.schedule import LINKS, Fault
from tests.faults.chaos.world import DELIVERY_TIMEOUT, READ_TIMEOUT, World
from tests.support.leftovers import broken_invariants, open_records, queued
from tests.support.load import accepted_callbacks
from tests.support.system import System, system_settings

_ENGINES = ("dynamodb", "redis")
_PROGRAMS = (*_ENGINES, "aggregator", "client", "worker", "reconciler")
# Seconds before each attempt: enough attempts to outlast every fault. Giving a delivery up would be correct.
_DELIVERY_SCHEDULE = (0, 0.5, 1, 2, *[4] * 100)
# Seconds for which the load goes on after the last fault has begun.
_AFTERWARDS = 3.0


@dataclass(frozen=True)
class Plan:
    """`rate` is requests a second; all requests must end within `settle` seconds after the last fault."""

    seed: int
    seconds: float
    rate: float
    faults: Sequence[Fault]
    settle: float = 120
    mutation: Mutation | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run. `died` are programs that ended unexpectedly, `left` the work that remains at the end.

    `broken` are the invariants of the queue (`docs/queue.md`) that do not hold then.
    """

    plan: Plan
    faults: Sequence[Injected]
    count: Count
    healed: Mapping[str, Sequence[float]]
    memory: Mapping[str, Resident]
    died: Sequence[str]
    left: Sequence[str]
    broken: Sequence[str]

    @property
    def swollen(self) -> Sequence[str]:
        """Programs of Datahog whose memory grows. Empty for a run with faults, where no process lives long enough."""
        if self.plan.faults:
            return []
        return [name for name, resident in self.memory.items() if name not in _ENGINES and not resident.flat]

    @property
    def clean(self) -> bool:
        """Whether the run found no error."""
        return self.count.clean and not (self.died or self.left or self.broken or self.swollen)


def conduct(plan: Plan, directory: Path) -> Outcome:
    """Carry the plan out; the system's data and logs stay in the directory."""
    with ExitStack() as held:
        world = held.enter_context(World(plan.seed))
        (directory / "providers.yaml").write_text(_providers_file(world))
        settings = system_settings(
            directory,
            delivery_schedule=_DELIVERY_SCHEDULE,
            delivery_timeout=DELIVERY_TIMEOUT,
            worker_grace=3,
            reconciler_period=1,
        )
        links = {name: held.enter_context(Link(_port(settings, name), f"{plan.seed} {name}")) for name in LINKS}
        system = held.enter_context(System(_behind(settings, links), _modules(plan.mutation)))
        running = _start(system, plan.mutation)
        memory = held.enter_context(Memory(system, running))
        around: dict[str, Disturbed] = {f"{name} link": link for name, link in links.items()}
        around |= {"providers": world.providers, "receivers": world.receivers}
        stop = threading.Event()
        injector, load = Injector(system, around, stop), Load(system, world, plan.rate, stop)
        with ThreadPoolExecutor() as side_by_side:
            # Without `stop`, threads would run on for long after Ctrl-C, or after a fault that cannot be mended.
            try:
                asking = side_by_side.submit(load.run, plan.seconds + _AFTERWARDS)
                following = side_by_side.submit(injector.follow, plan.faults)
                injected, asked = following.result(), asking.result()
            except BaseException:
                stop.set()
                raise
        return _judge(plan, system, world, memory, running, injected, asked)


def _judge(
    plan: Plan,
    system: System,
    world: World,
    memory: Memory,
    running: Sequence[str],
    injected: Sequence[Injected],
    asked: Sequence[Asked],
) -> Outcome:
    settle_ends = time.monotonic() + plan.settle
    evidence = gather(system, [one for one in asked if one.request_id], within=plan.settle)
    taken = list(world.taken)
    return Outcome(
        plan,
        injected,
        count(asked, evidence, list(world.sent), taken, accepted_callbacks(system)),
        times_to_heal(injected, _lives(evidence, {callback.hook: callback.at for callback in reversed(taken)})),
        memory.summary(),
        [name for name in running if system.exit_code(name) is not None],
        _left(system, settle_ends),
        broken_invariants(system),
    )


def _start(system: System, mutation: Mutation | None) -> tuple[str, ...]:
    names = [name for name in (*_PROGRAMS, "tables") if mutation is None or name not in mutation.without]
    system.start(*names)
    # The faults of "worker" do not affect this one, which takes over the jobs of the other.
    another = system.start_another("worker")
    return (*(name for name in names if name != "tables"), another)


def _modules(mutation: Mutation | None) -> dict[str, str]:
    return dict.fromkeys(mutation.mutated, "tests.faults.chaos.mutated") if mutation else {}


def _left(system: System, until: float) -> list[str]:
    """The work that both engines still list, once there is none or the time is up."""
    while (left := [*queued(system), *open_records(system)]) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def _lives(evidence: Sequence[Evidence], first_taken: Mapping[str, float]) -> list[tuple[float, float]]:
    """For each settled request, when it was asked and when its result was where it belongs (`time.time`)."""
    lives = []
    for one in evidence:
        if one.settled and one.retrieval:
            lives.append((one.asked.at, from_text(one.retrieval["updatedAt"]).timestamp()))
        elif one.settled and one.asked.hook in first_taken:
            lives.append((one.asked.at, first_taken[one.asked.hook]))
    return lives


def _port(settings: Settings, name: str) -> int:
    port: int = getattr(settings, f"{name}_port")
    return port


def _behind(settings: Settings, links: Mapping[str, Link]) -> Settings:
    """The settings that reach every service and engine through its link."""
    urls = {name: stack.url("127.0.0.1", link.port) for name, link in links.items()}
    return settings.model_copy(
        update={
            "dynamodb_endpoint_url": urls["dynamodb"],
            "redis_url": f"redis://127.0.0.1:{links['redis'].port}/0",
            "aggregator_url": urls["aggregator"],
            "client_url": urls["client"],
        }
    )


def _providers_file(world: World) -> str:
    # A long connect timeout: the provider's log could not show an attempt that never reached it.
    options = f"connectTimeout: 30, readTimeout: {READ_TIMEOUT}, totalTimeout: 30"
    quick = "&quick {initialDelay: 0.1, maximumDelay: 1, jitter: 0.2}"
    lines = ["providers:"]
    for number, name in enumerate(PROVIDERS):
        retry = "*quick" if number else quick
        lines.append(f"  {name}: {{url: '{world.provider_url(name)}', {options}, retry: {retry}}}")
    return "\n".join(lines) + "\n"
