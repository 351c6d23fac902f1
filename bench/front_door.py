"""Bench 4, front door: accepted requests a second, against FastAPI and Flask with the same two writes."""

import functools
import time
from collections.abc import Callable, Mapping
from statistics import quantiles

from bench.load import all_accepted
from bench.rounds import Goal, Table, alternate
from bench.stand import stand
from bench.systems import Place, System, datahog, front_peer


async def run(*, quick: bool, rounds: int) -> Table:
    """Measure all front doors."""
    count = 200 if quick else 4000
    makes: Mapping[str, Callable[[Place], System]] = {
        "Datahog": datahog,
        "FastAPI": functools.partial(front_peer, "fastapi"),
        "Flask": functools.partial(front_peer, "flask"),
    }
    samples = await alternate({name: functools.partial(_measure, make, count) for name, make in makes.items()}, rounds)
    table = Table(
        "Front door",
        f"{count} requests of 3 providers posted over 32 connections to one process, which checks each, puts one item "
        "in DynamoDB and, in one round trip, three jobs on RQ's queue; no worker runs.",
        {"accepted/s": ".0f", "p50 ms": ".1f", "p99 ms": ".1f", "CPU ms per request": ".2f"},
        samples,
    )
    ratio = table.median("Datahog", "accepted/s") / table.median("FastAPI", "accepted/s")
    goals = (Goal("accepted/s against FastAPI", ratio, 0.8, at_least=True),)
    return Table(table.title, table.text, table.columns, table.samples, goals)


async def _measure(make: Callable[[Place], System], count: int) -> Mapping[str, float]:
    async with stand(make, work=False) as running:
        front = running.system.front
        before = running.processes.usage(front).cpu
        started = time.monotonic()
        taken = all_accepted(await running.poster.flood(running.requests(count)))
        seconds = time.monotonic() - started
        cuts = quantiles(taken, n=100, method="inclusive")
        cpu = running.processes.usage(front).cpu - before
        return {
            "accepted/s": count / seconds,
            "p50 ms": cuts[49] * 1000,
            "p99 ms": cuts[98] * 1000,
            "CPU ms per request": cpu / count * 1000,
        }
