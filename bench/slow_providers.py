"""Bench 3, many slow providers: one worker process calls a thousand providers of ten seconds each at once."""

import functools
import time
from collections.abc import Callable, Mapping

from bench.load import all_accepted
from bench.rounds import Goal, Table, alternate
from bench.stand import stand
from bench.systems import Place, System, systems

# Bytes.
_MEGABYTE = 1e6
# Providers.
_PER_REQUEST = 50


async def run(*, quick: bool, rounds: int) -> Table:
    """Measure all systems."""
    count, latency = (100, 2.0) if quick else (1000, 10.0)
    measures = {name: functools.partial(_measure, make, count, latency) for name, make in systems().items()}
    samples = await alternate(measures, 1 if quick else min(rounds, 3))
    table = Table(
        "Many slow providers",
        f"{count} providers that take {latency:g} s each, in requests of {_PER_REQUEST}, by one worker process: from "
        "the first post to the last callback, and the worker's peak memory.",
        {"makespan / latency": ".2f", "worker peak MB": ".0f", "worker CPU s": ".1f"},
        samples,
    )
    goals = (
        Goal("makespan against a provider's own time", table.median("Datahog", "makespan / latency"), 1.15, False),
        Goal("worker's peak MB", table.median("Datahog", "worker peak MB"), 200, at_least=False),
    )
    return Table(table.title, table.text, table.columns, table.samples, goals)


async def _measure(make: Callable[[Place], System], count: int, latency: float) -> Mapping[str, float]:
    providers = [f"provider{number}" for number in range(count)]
    requests = [providers[start : start + _PER_REQUEST] for start in range(0, count, _PER_REQUEST)]
    async with stand(make, providers=providers, concurrency=count) as running:
        worker = running.system.worker
        before = running.processes.usage(worker).cpu
        running.world.latency = latency
        started = time.monotonic()
        all_accepted(await running.poster.flood([running.request(names)[1] for names in requests]))
        await running.world.until_received(len(requests), seconds=latency * 10 + 60)
        seconds = max(running.world.received.values()) - started
        usage = running.processes.usage(worker)
        return {
            "makespan / latency": seconds / latency,
            "worker peak MB": usage.memory / _MEGABYTE,
            "worker CPU s": usage.cpu - before,
        }
