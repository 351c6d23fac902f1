"""Bench 1, whole requests: from the post to the callback, with three providers of 200 ms."""

import functools
import time
from collections.abc import Callable, Mapping

from bench.load import all_accepted
from bench.rounds import Goal, Table, alternate
from bench.stand import ENGINES, stand
from bench.systems import Place, System, systems

# Bytes.
_MEGABYTE = 1e6


async def run(*, quick: bool, rounds: int) -> Table:
    """Measure all systems."""
    count = 60 if quick else 600
    made = systems()
    samples = await alternate({name: functools.partial(measure, make, count) for name, make in made.items()}, rounds)
    table = Table(
        "Whole requests",
        f"{count} requests of 3 providers that take 200 ms, posted over 32 connections; from the first post to the "
        "last callback. One API process and one worker process each.",
        {"requests/s": ".1f", "CPU ms per request": ".1f", "of which engines": ".1f", "peak MB": ".0f"},
        samples,
    )
    return table_with_goals(table)


def table_with_goals(table: Table) -> Table:
    """The table with Datahog's goals against the peers that ran."""
    limits = {"Celery chord": 3.0, "Node, Bee-queue": 1.0}
    goals = tuple(
        Goal(
            f"requests/s against {peer}",
            table.median("Datahog", "requests/s") / table.median(peer, "requests/s"),
            limit,
            at_least=True,
        )
        for peer, limit in limits.items()
        if peer in table.samples
    )
    return Table(table.title, table.text, table.columns, table.samples, goals)


async def measure(make: Callable[[Place], System], count: int) -> Mapping[str, float]:
    """Measure one system once."""
    async with stand(make) as running:
        own, engines = running.system.measured, ENGINES
        before, engines_before = running.processes.usage(*own).cpu, running.processes.usage(*engines).cpu
        started = time.monotonic()
        all_accepted(await running.poster.flood(running.requests(count)))
        await running.world.until_received(count, seconds=300)
        seconds = max(running.world.received.values()) - started
        after, engines_after = running.processes.usage(*own), running.processes.usage(*engines).cpu
        of_engines = engines_after - engines_before
        return {
            "requests/s": count / seconds,
            "CPU ms per request": (after.cpu - before + of_engines) / count * 1000,
            "of which engines": of_engines / count * 1000,
            "peak MB": after.memory / _MEGABYTE,
        }
