"""Bench 2, fan-in delay: from the last provider's response to the callback."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles

from bench import whole_requests
from bench.load import all_accepted
from bench.rounds import Goal, Table, alternate
from bench.stand import Stand, stand
from bench.systems import Place, System, systems

# Each request under way has its own three providers, so that a response identifies its request.
_GROUPS = [tuple(f"{name}{number}" for name in ("gas", "internet", "water")) for number in range(400)]
# Requests a second.
_LIGHT = 10.0


async def run(*, quick: bool, rounds: int) -> Table:
    """Measure all systems."""
    count = 20 if quick else 150
    measures = {}
    for name, make in systems().items():
        throughput = (await whole_requests.measure(make, 60 if quick else 300))["requests/s"]
        measures[name] = functools.partial(_measure, make, count, throughput / 2)
    samples = await alternate(measures, rounds)
    table = Table(
        "Fan-in delay",
        f"{count} requests of 3 providers at {_LIGHT:g} a second, and at half of the system's own throughput: from the "
        "last provider's response to the callback.",
        {
            "light p50 ms": ".1f",
            "light p99 ms": ".1f",
            "half p50 ms": ".1f",
            "half p99 ms": ".1f",
            "half load/s": ".0f",
        },
        samples,
    )
    if "Celery chord" not in samples:
        return table
    goals = tuple(
        Goal(
            f"{column} against Celery chord",
            table.median("Datahog", column) / table.median("Celery chord", column),
            1 / 3,
            at_least=False,
        )
        for column in ("light p50 ms", "half p50 ms")
    )
    return Table(table.title, table.text, table.columns, table.samples, goals)


async def _measure(make: Callable[[Place], System], count: int, half: float) -> Mapping[str, float]:
    providers = list(itertools.chain.from_iterable(_GROUPS))
    async with stand(make, providers=providers) as running:
        light = await _delays(running, count, _LIGHT)
        loaded = await _delays(running, max(count, int(half * 8)), half)
        return {**_percentiles("light", light), **_percentiles("half", loaded), "half load/s": half}


async def _delays(running: Stand, count: int, rate: float) -> list[float]:
    running.world.forget()
    asked = [(group, *running.request(group)) for group in itertools.islice(itertools.cycle(_GROUPS), count)]
    all_accepted(await running.poster.pace([body for _, _, body in asked], rate=rate))
    await running.world.until_received(count, seconds=120)
    # The world keeps only each provider's last response: only the last request of each group counts.
    last = {group: callback_id for group, callback_id, _ in asked}
    return [_delay(running, group, callback_id) for group, callback_id in last.items()]


def _delay(running: Stand, group: Sequence[str], callback_id: str) -> float:
    return running.world.received[callback_id] - max(running.world.answered[provider] for provider in group)


def _percentiles(load: str, delays: list[float]) -> Mapping[str, float]:
    cuts = quantiles(delays, n=100, method="inclusive")
    return {f"{load} p50 ms": cuts[49] * 1000, f"{load} p99 ms": cuts[98] * 1000}
