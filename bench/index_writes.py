"""Counts the index writes of a request, and the requests a second that AWS takes before a partition throttles.

`python -m bench.index_writes` runs the repositories and the reconciler on the embedded DynamoDB, behind a transport
that counts the write units that AWS would charge each partition of the tables and their indexes. It exits with 1 when
the ceiling is under 5,000 requests of three jobs a second.
"""

import argparse
import math
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from bench.stand import PROVIDERS, place
from bench.systems import datahog_settings
from datahog.bootstrap.wiring import Wiring
from persistence.dynamodb.schema import create_tables
from persistence.dynamodb.transport import Transport
from persistence.index.shards import OPEN, listed, shard_of
from persistence.records.request import Request
from persistence.records.retrieval import Retrieval
from persistence.records.timestamps import utc_now
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew

# Requests a second.
_GOAL = 5000
# Write units a second that a partition of AWS takes, and the bytes of a unit.
_UNITS, _BYTES = 1000, 1024
_INDEXES = {"due": ("dueShard", "dueAt"), "newest": ("newestShard", "newestKey")}
_HASHED = 100_000
"""The number of ids by which the bench estimates how evenly ids fill the shards."""


class Counting(Transport):
    """Counts the write units of each partition: (table, index or "table") -> partition -> units."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.units: dict[tuple[str, str], Counter[str]] = {}

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Call as `Transport.call` does, and count the units of a write."""
        if operation not in ("PutItem", "UpdateItem", "DeleteItem"):
            return self._inner.call(operation, arguments)
        table = arguments["TableName"]
        key = arguments["Key"] if "Key" in arguments else {name: arguments["Item"][name] for name in ("pk", "sk")}
        before = self._read(table, key)
        after = before
        try:
            answer = self._inner.call(operation, arguments)
            after = self._read(table, key)
            return answer
        finally:
            # A refused write costs as much, but changes no index.
            size = max(len(orjson.dumps(item)) for item in (before, after))
            self._add(table, "table", key["pk"]["S"], math.ceil(size / _BYTES))
            for index, names in _INDEXES.items():
                self._count_index(table, index, *(_entry(item, names) for item in (before, after)))

    def _count_index(self, table: str, index: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        if old != new:
            for entry in (old, new):
                if entry:
                    self._add(table, index, entry[0], 1)

    def _read(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any]:
        item: Mapping[str, Any] = self._inner.call(
            "GetItem", {"TableName": table, "Key": key, "ConsistentRead": True}
        ).get("Item", {})
        return item

    def _add(self, table: str, index: str, partition: str, units: int) -> None:
        self.units.setdefault((table, index), Counter())[partition] += units


def _entry(item: Mapping[str, Any], names: tuple[str, str]) -> tuple[str, ...]:
    return tuple(item[name]["S"] for name in names) if names[0] in item else ()


class Stage:
    """The parts of a process, with a clock that the bench sets."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.now = utc_now()
        for items in (wiring._request_items, wiring._retrieval_items):
            setattr(items, "clock", lambda: self.now)  # noqa: B010
        self._reconciler = Reconciler(
            wiring.requests,
            wiring.retrievals,
            wiring.due_index(wiring._aggregator_table),
            wiring.due_index(wiring._client_table),
            wiring.queue,
            wiring.heartbeats,
            AllShards(),
            Crew(1),
            period=5,
            delivery_timeout=15,
            clock=lambda: self.now,
        )

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass, with a scan of the reconciler every five seconds."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.now = min(self.now + timedelta(seconds=5), until)
            self._reconciler.look()

    def ask(self) -> tuple[Request, Retrieval]:
        """Make a request that both services accept."""
        request_id, deadline = uuid.uuid4().hex, self.now + timedelta(days=1)
        retrieval = self.wiring.retrievals.create(request_id, PROVIDERS, deadline=deadline)
        named = [(name, f"http://{name}") for name in PROVIDERS]
        request, _ = self.wiring.requests.create(
            request_id, named, "http://client/callback", deadline=deadline, content=None
        )
        self.wiring.retrievals.accepted(retrieval)
        return request, self.wiring.retrievals.get(request_id)

    def deliver(self, request: Request, retrieval: Retrieval) -> None:
        """Deliver the result to the client."""
        outcome = {"revision": 1, "status": "COMPLETE", "endedAt": request.ended_at, "jobs": []}
        self.wiring.retrievals.receive(retrieval, outcome, {})
        self.wiring.deliveries.succeeded(self.wiring.requests.get(request.request_id))


def quick(stage: Stage) -> None:
    """All providers respond within seconds."""
    request, retrieval = stage.ask()
    for job in request.jobs:
        stage.now += timedelta(seconds=2)
        stage.wiring.requests.finish_job(request.attempt(job), b'{"amount": 22.27}')
    stage.deliver(stage.wiring.requests.get(request.request_id), retrieval)


def with_retries(stage: Stage) -> None:
    """Each provider fails twice, the jobs complete after one, two and three minutes, and the first delivery fails."""
    request, retrieval = stage.ask()
    for made in range(2):
        stage.wait(10)
        now = stage.wiring.requests.get(request.request_id)
        for job in now.jobs:
            at = stage.now + timedelta(seconds=20)
            stage.wiring.requests.record_failure(now.attempt(job), f"HTTP 500 ({made})", at)
    for job in request.jobs:
        stage.wait(60)
        now = stage.wiring.requests.get(request.request_id)
        stage.wiring.requests.finish_job(now.attempt(now.jobs[job.index]), b'{"amount": 22.27}')
    ended = stage.wiring.requests.get(request.request_id)
    stage.wiring.deliveries.attempt_failed(ended, "HTTP 503", stage.now + timedelta(seconds=5))
    stage.now += timedelta(seconds=5)
    stage.deliver(ended, retrieval)


def undeliverable(stage: Stage) -> None:
    """All providers respond, and the receiver refuses the result for good."""
    request, _ = stage.ask()
    for job in request.jobs:
        stage.wiring.requests.finish_job(request.attempt(job), b'{"amount": 22.27}')
    stage.wiring.deliveries.attempt_failed(stage.wiring.requests.get(request.request_id), "HTTP 410", None)


def _unevenness(shards: int) -> float:
    """The load of the fullest shard, as a multiple of the mean."""
    counts = Counter(shard_of(OPEN, uuid.uuid4().hex, shards) for _ in range(_HASHED))
    return max(counts.values()) * shards / _HASHED


def measure(shards: int, play: Callable[[Stage], None], requests: int) -> list[tuple[str, float, float]]:
    """(name, units of a request, requests a second until a partition throttles) of each index and table."""
    with place("http://unused") as (here, _):
        settings = datahog_settings(here).model_copy(update={"index_shards": 1})
        wiring = Wiring(settings, {})
        create_tables(wiring.dynamodb, settings.table_prefix, shards=1)
        counting = Counting(Transport(wiring.dynamodb))
        wiring.__dict__["_transport"] = counting
        stage = Stage(wiring)
        for _ in range(requests):
            play(stage)
    found = []
    for (table, index), units in sorted(counting.units.items()):
        each = units.total() / requests
        if index == "table":
            # Each record has its own partition key, and DynamoDB adds partitions to the table as it needs them.
            found.append((f"{table}, the record itself", each, math.inf))
            continue
        by_kind: Counter[str] = Counter()
        for partition, count in units.items():
            by_kind[partition.rpartition("#")[0]] += count
        for kind, count in sorted(by_kind.items()):
            partitions = shards if kind == OPEN else listed(shards)
            ceiling = _UNITS * partitions / (count / requests * _unevenness(partitions))
            found.append((f"{table}, index {index}, {kind}", count / requests, ceiling))
    return found


def main() -> int:
    """Count and print; returns the exit code: 1 when the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.index_writes", description=__doc__)
    parser.add_argument("--shards", type=int, default=128, help="DATAHOG_INDEX_SHARDS [128]")
    parser.add_argument("--requests", type=int, default=5, help="requests of each kind [5]")
    chosen = parser.parse_args()
    lowest = math.inf
    started: datetime = utc_now()
    for play in (quick, with_retries, undeliverable):
        print(f"\n{play.__name__}: {play.__doc__}")
        for name, units, ceiling in measure(chosen.shards, play, chosen.requests):
            shown = "no limit of its own" if ceiling == math.inf else f"{ceiling:8,.0f} requests/s"
            print(f"  {name:44} {units:6.2f} units a request  {shown}")
            lowest = min(lowest, ceiling)
    is_met = lowest >= _GOAL
    print(
        f"\nceiling: {lowest:,.0f} requests of three jobs a second with {chosen.shards} shards; "
        f"goal: {_GOAL:,}, {'met' if is_met else 'MISSED'} ({(utc_now() - started).seconds} s)"
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
