"""Bench 5, growth: the cost of a job with a long queue, and of a reconciler's scan with a large table."""

import functools
import math
import time
from collections.abc import Mapping
from contextlib import suppress

from bench.product import Product
from bench.rounds import Goal, Samples, Table, alternate
from bench.stand import ENGINES, PROVIDERS, place
from bench.systems import datahog
from bench.world import World
from tests.support.engines.dynamodb_local import Unobtainable, dynamodb_local

# Requests that each scan finds.
_OPEN = 100
_WARM_UP = 15
"""Scans before the first that counts: DynamoDB Local compiles its Java as it runs."""


async def backlog(*, quick: bool, rounds: int) -> Table:
    """Measure jobs with ever more jobs on the queue."""
    sizes = (300, 1200) if quick else (1000, 10_000, 100_000)
    requests = 50 if quick else 200
    measures = {_short(size): functools.partial(_jobs, size, requests) for size in sizes}
    samples = await alternate(measures, rounds)
    first, last = (_short(sizes[0]), _short(sizes[-1]))
    table = Table(
        "Growth: jobs on the queue",
        f"{requests} requests of 3 providers that respond at once, with so many jobs on the queue; CPU of the worker "
        "and of both engines.",
        {"CPU ms per job": ".2f", "of which engines": ".2f", "ms per job": ".2f"},
        samples,
    )
    ratio = table.median(last, "CPU ms per job") / table.median(first, "CPU ms per job")
    return _with_goal(table, f"CPU of a job with {last} on the queue against {first}", ratio)


async def reconciler(*, quick: bool, rounds: int) -> Table:
    """Measure scans, on the embedded DynamoDB and, where it can be obtained, on Amazon's DynamoDB Local."""
    embedded, local = ((1000, 2000), (1000, 5000)) if quick else ((1000, 10_000), (1000, 100_000, 1_000_000))
    samples = dict(await _looks("embedded", embedded, None, rounds))
    with suppress(Unobtainable), dynamodb_local() as url:
        samples |= await _looks("DynamoDB Local", local, url, rounds)
    table = Table(
        "Growth: records in the table",
        f"A scan of the reconciler with {_OPEN} requests open and due, among so many records: its time, with that of "
        "DynamoDB, the reconciler's own CPU, and its reads: entries of the index, the read units that DynamoDB counts "
        "for those queries, and for all reads. The embedded DynamoDB counts none.",
        {
            "ms per scan": ".0f",
            "own CPU ms": ".0f",
            "entries": ".0f",
            "units of queries": ".1f",
            "units of all": ".1f",
        },
        samples,
    )
    *_, first, last = [f"DynamoDB Local, {size:,}" for size in (local[0], local[-1])]
    if last not in samples:
        return table
    table = _with_goal(
        table,
        f"time of a scan among {local[-1]:,} records against {local[0]:,}",
        table.median(last, "ms per scan") / table.median(first, "ms per scan"),
    )
    return _with_goal(
        table,
        f"read units of its queries among {local[-1]:,} records against {local[0]:,}",
        table.median(last, "units of queries") / table.median(first, "units of queries"),
    )


def _with_goal(table: Table, text: str, ratio: float) -> Table:
    goal = Goal(text, ratio, 1.1, at_least=False)
    return Table(table.title, table.text, table.columns, table.samples, (*table.goals, goal))


async def _jobs(size: int, requests: int) -> Mapping[str, float]:
    async with World(latency=0) as world:
        with place(world.providers_url, concurrency=64) as (here, processes):
            await Product(here).fill(world, size // len(PROVIDERS))
            (worker,) = [program for program in datahog(here).programs if program.name == "worker"]
            processes.start(worker)
            await world.until_received(requests // 4, seconds=60)
            done, started = len(world.received), time.monotonic()
            own, of_engines = processes.usage(worker.name).cpu, processes.usage(*ENGINES).cpu
            await world.until_received(done + requests, seconds=120)
            jobs, seconds = (len(world.received) - done) * len(PROVIDERS), time.monotonic() - started
            own = processes.usage(worker.name).cpu - own
            of_engines = processes.usage(*ENGINES).cpu - of_engines
    return {
        "CPU ms per job": (own + of_engines) / jobs * 1000,
        "of which engines": of_engines / jobs * 1000,
        "ms per job": seconds / jobs * 1000,
    }


async def _looks(engine: str, sizes: tuple[int, ...], dynamodb_url: str | None, rounds: int) -> Samples:
    with place("http://unused") as (here, _):
        product = Product(here, dynamodb_url=dynamodb_url)
        request = product.new_request("http://unused/callback")
        await product.records.copy(request.request_id, _OPEN - 1)
        ended = product.end(product.new_request("http://unused/callback"))
        for _ in range(_WARM_UP):
            product.look()
        samples: dict[str, Mapping[str, list[float]]] = {}
        written = _OPEN
        for size in sizes:
            await product.records.copy(ended.request_id, size - written)
            written = size
            product.look()
            samples |= await alternate({f"{engine}, {size:,}": functools.partial(_look, product)}, max(5, rounds))
        return samples


async def _look(product: Product) -> Mapping[str, float]:
    product.reads.reset()
    started, own = time.monotonic(), time.process_time()
    product.look()
    own, seconds = time.process_time() - own, time.monotonic() - started
    reads = product.reads
    return {
        "ms per scan": seconds * 1000,
        "own CPU ms": own * 1000,
        "entries": reads.items["Query"],
        "units of queries": reads.units.get("Query", math.nan),
        "units of all": sum(reads.units.values()) if "Query" in reads.units else math.nan,
    }


def _short(number: int) -> str:
    return f"{number:,}"
