"""Measures how long reconcilers take to heal after Redis was emptied, over a stand-in for DynamoDB.

`python -m bench.heal` starts four reconciler processes on a real Valkey and a stand-in for DynamoDB whose every call
takes 5 ms, empties Redis, and makes all open requests of three jobs due. It exits with 1 when two reconcilers read the
same record, or a million records would take longer than 15 minutes by the reconcilers' CPU time, with a core for each.
"""

import argparse
import asyncio
import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta

import redis
import uvloop

from bench.stand import PROVIDERS, place
from bench.stand_in import StandIn
from bench.systems import datahog_settings
from datahog.local import stack
from datahog.local.supervisor import Program
from persistence.dynamodb.attribute_values import encode_members
from persistence.dynamodb.schema import aggregator_table
from persistence.records.timestamps import to_text, utc_now

# Records, and the seconds that healing them may take.
_MILLION, _GOAL = 1_000_000, 15 * 60
# Seconds in which the reconcilers divide the shards.
_SETTLE = 15


def _template() -> Mapping[str, object]:
    """The item of an open request of three jobs, made two minutes ago, and due."""
    made = utc_now() - timedelta(minutes=2)
    jobs = [{"provider": name, "url": f"http://{name}", "status": "INIT", "attempts": 0} for name in PROVIDERS]
    return encode_members(
        {
            "pk": "",
            "sk": "request",
            "version": 1,
            "createdAt": to_text(made),
            "updatedAt": to_text(made),
            "tenant": "default",
            "jobs": jobs,
            "callbackUrl": "http://client/callback",
            "openJobs": len(jobs),
            "doneJobs": 0,
            "deadline": to_text(made + timedelta(days=1)),
            "delivery": {"status": "PENDING", "attempts": 0, "round": 1},
            "revision": 1,
            "fingerprint": "0" * 64,
            "dueAt": to_text(made),
        }
    )


async def measure(requests: int, reconcilers: int, shards: int, latency: float) -> bool:
    """Measure, print, and return whether the goals are met."""
    with place("http://unused") as (here, processes):
        settings = datahog_settings(here)
        table = aggregator_table(settings.table_prefix)
        ids = [uuid.uuid4().hex for _ in range(requests)]
        made = StandIn(table, _template(), ids, shards=shards, callers=reconcilers, latency=latency)
        async with made as stand_in:
            for number, url in enumerate(stand_in.urls):
                update = {"dynamodb_endpoint_url": url, "index_shards": shards, "log_level": "INFO"}
                programs = [p for stage in stack.stages(settings.model_copy(update=update)) for p in stage]
                (program,) = [program for program in programs if program.name == "reconciler"]
                processes.start(Program(f"reconciler-{number}", program.command, environment=program.environment))
            await asyncio.sleep(_SETTLE)
            with redis.Redis.from_url(here.redis_url) as connection:
                connection.flushall()
                names = [f"reconciler-{number}" for number in range(reconcilers)]
                before, engine = processes.usage(*names).cpu, processes.usage("redis").cpu
                own, started = time.process_time(), time.monotonic()
                stand_in.is_due = True
                while len(stand_in.moved) < requests:
                    await asyncio.sleep(0.05)
                    if time.monotonic() - started > 600:
                        raise TimeoutError(processes.log(names[0])[-2000:])
                seconds = time.monotonic() - started
                # Taken here, so that later scans do not count.
                cpu = processes.usage(*names).cpu - before
                put = sum(connection.llen(f"rq:queue:datahog-{kind}") for kind in ("fetch",))
                held = sum(connection.zcard(f"rq:rl:{name}:rate_limited") for name in PROVIDERS)
            engine = processes.usage("redis").cpu - engine
            own = time.process_time() - own
    rate = requests / seconds
    million = _MILLION / rate
    # In production each reconciler has a core; here they share the cores with everything else.
    alone = _MILLION * (cpu / requests) / reconcilers
    shares = [len(reads) for reads in made.reads]
    print(f"{requests:,} open requests of {len(PROVIDERS)} jobs, {reconcilers} reconcilers, {shards} shards, ", end="")
    print(f"{latency * 1000:g} ms a call; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"  healed in {seconds:.1f} s: {rate:,.0f} records/s; a million in {million / 60:.1f} minutes")
    print(f"  by their CPU time, a million in {alone / 60:.1f} minutes with a core for each")
    print(
        f"  CPU: reconcilers {cpu / requests * 1000:.2f} ms a record, Valkey {engine / requests * 1000:.2f}, ", end=""
    )
    print(f"this process {own / requests * 1000:.2f}")
    print(f"  jobs on the queue: {put + held:,} of {requests * len(PROVIDERS):,}")
    print(f"  records read by two: {made.read_by_two}, twice by one: {made.read_again}; by each reconciler: {shares}")
    calls = ", ".join(f"{operation} {count / requests:.3f}" for operation, count in sorted(made.calls.items()))
    print(f"  calls a record: {calls}")
    return made.read_by_two == 0 and min(million, alone) <= _GOAL


def main() -> int:
    """Measure; returns the exit code: 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.heal", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="open requests [20000]")
    parser.add_argument("--reconcilers", type=int, default=4, help="reconciler processes [4]")
    parser.add_argument("--shards", type=int, default=128, help="DATAHOG_INDEX_SHARDS [128]")
    parser.add_argument("--latency", type=float, default=0.005, help="seconds of a call of DynamoDB [0.005]")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_met = runner.run(measure(chosen.requests, chosen.reconcilers, chosen.shards, chosen.latency))
    print("goals met" if is_met else "goals MISSED")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
