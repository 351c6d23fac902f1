"""Stores, loads, retries, receives and deletes large results over simulated partitions, and counts the units."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import patch

import boto3

import persistence.dynamodb.table
from bench.partitions import Buckets, PartitionedTransport, VirtualTime
from persistence.deliveries import Deliveries
from persistence.dynamodb.schema import aggregator_table, client_table, create_tables
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import Unavailable
from persistence.index.shards import Shards
from persistence.items import Items
from persistence.records.request import Request
from persistence.records.retrieval import KIND, retrieval_from_item
from persistence.requests import Requests
from persistence.results.expired import ExpiredResults, needed_by_request
from persistence.results.expiry_items import ExpiryItems
from persistence.results.store import Results
from persistence.retrievals import Retrievals

# Threads.
_READERS = 10
# Seconds before a refused write is repeated, and until the bench gives up.
_PAUSE, _PATIENCE = 2, 3600
# Seconds.
_RETENTION = 3600
_SHARDS = 16
# Write units: enough for the record of 51 jobs, of a few KB, but for no part of a result.
_FEW = 30


@dataclass
class Row:
    """The cost of one scenario: seconds of the simulated time, and units."""

    results: int
    burst: bool
    store_seconds: float = 0
    store_units: int = 0
    refused: int = 0
    """The number of steps that ended as if DynamoDB were away, and were repeated."""
    anew: int = 0
    twice: int = 0
    lost: int = 0
    load_seconds: float = 0
    load_units: int = 0
    retry_units: int = 0
    redeliver_units: int = 0
    receive_seconds: float = 0
    delete_seconds: float = 0
    delete_units: int = 0

    def failures(self) -> list[str]:
        """A line for each failed check."""
        wrong = {
            f"{self.anew} times a step began anew": self.anew,
            f"{self.twice} parts were written twice": self.twice,
            f"{self.lost} results are missing, or not deleted at the end": self.lost,
            f"a retry wrote {self.retry_units} units": self.retry_units > _FEW,
            f"a redelivery wrote {self.redeliver_units} units": self.redeliver_units > _FEW,
        }
        name = f"{self.results} results, {'with' if self.burst else 'no'} burst"
        return [f"{name}: {text}" for text, is_so in wrong.items() if is_so]


class Scenario:
    """One request at the aggregator, with its results at the client."""

    def __init__(self, count: int, size: int, *, partitions: int, burst: bool) -> None:
        self.row = Row(count, burst)
        self._time = VirtualTime()
        self._started = datetime(2026, 1, 1, tzinfo=UTC)
        self._text = random.Random(1).randbytes(size)  # noqa: S311 -- data
        client = boto3.client("dynamodb", "us-east-1", aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106
        create_tables(client, "bench")
        buckets = Buckets(self._time, partitions=partitions, burst=burst)
        self._transport = PartitionedTransport(Transport(client), self._time, buckets)
        self._table = Table(self._transport, aggregator_table("bench"))
        self._shards = Shards(self._table, _SHARDS)
        self._items = Items(self._table, "request", Request.from_item, shards=self._shards, clock=self._clock)

    def run(self) -> Row:
        """Store, load, deliver, retry, receive, and delete."""
        with patch.object(persistence.dynamodb.table, "time", self._time):
            self._time.run([self._create])
            self._measure(self._store, "store")
            if not self.row.lost:
                self._measure(self._load, "load")
                self._time.run([self._deliver_and_retry])
                self._measure(self._receive, "receive")
                self._measure(self._delete, "delete")
        writes = self._transport.writes
        first = [times for (pk, sk), times in writes.items() if f"{pk} {sk}".find("#0000") > 0]
        self.row.anew = sum(times - 1 for times in first)
        self.row.twice = sum(times > 1 for times in writes.values())
        return self.row

    def _clock(self) -> datetime:
        return self._started + timedelta(seconds=self._time.now)

    def _measure(self, works: Callable[[], Sequence[Callable[[], None]]], name: str) -> None:
        units = "read" if name == "load" else "write"
        made, started, before = works(), self._time.now, self._transport.units[units]
        self._time.run(made)
        measured = {"seconds": self._time.now - started, "units": self._transport.units[units] - before}
        for what, value in measured.items():
            if hasattr(self.row, f"{name}_{what}"):
                setattr(self.row, f"{name}_{what}", value)

    def _requests(self) -> Requests:
        """The repository of one worker."""
        return Requests(self._items, Results(self._table, self._shards, clock=self._clock))

    def _create(self) -> None:
        providers = [(f"p{number}", "http://p") for number in range(self.row.results + 1)]
        deadline = self._clock() + timedelta(days=1)
        self._request = self._requests().create("r", providers, "http://c", deadline=deadline, content=0)[0]
        self._requests().fail_job(self._request.attempt(self._request.jobs[-1]), "HTTP 500")

    def _repeat(self, step: Callable[[], object]) -> None:
        """Repeat a step until it succeeds or the bench gives up."""
        give_up = self._time.now + _PATIENCE
        while self._time.now < give_up:
            try:
                step()
            except Unavailable:
                self.row.refused += 1
                self._time.sleep(_PAUSE)
            else:
                return
        self.row.lost += 1

    def _store(self) -> list[Callable[[], None]]:
        steps: list[Callable[[], object]] = []
        packed = None
        for job in self._request.jobs[:-1]:
            requests, attempt = self._requests(), self._request.attempt(job)
            pending = requests.pending_result(attempt, self._text)
            # All results are the same, and in memory once.
            packed = pending.packed = packed or pending.packed
            steps.append(partial(requests.finish_job, attempt, pending))
        return [partial(self._repeat, step) for step in steps]

    def _load(self) -> list[Callable[[], None]]:
        request = self._request = self._items.parse(self._raw_record())
        places = [job.result for job in request.jobs if job.result]
        self.row.lost += self.row.results - len(places)

        def load(place: dict[str, object]) -> None:
            assert Results(self._table, self._shards).load("r", place) == self._text  # noqa: S101

        def read(number: int) -> None:
            for place in places[number::_READERS]:
                self._repeat(partial(load, place))

        return [partial(read, number) for number in range(min(_READERS, len(places)))]

    def _raw_record(self) -> dict[str, object]:
        found: list[dict[str, object]] = []
        self._time.run([lambda: found.append(self._table.get({"pk": "r", "sk": "request"}) or {})])
        return found[0]

    def _deliver_and_retry(self) -> None:
        deliveries, units = Deliveries(self._items, retention=_RETENTION), self._transport.units
        self._repeat(partial(deliveries.succeeded, self._request))
        before = units["write"]
        self._repeat(partial(deliveries.start_anew, "r"))
        self.row.redeliver_units = units["write"] - before
        before = units["write"]
        self._repeat(lambda: self._requests().retry("r", deadline=self._clock() + timedelta(days=1)))
        self.row.retry_units = units["write"] - before
        request = self._requests().get("r")
        self._repeat(lambda: self._requests().fail_job(request.attempt(request.jobs[-1]), "HTTP 500"))
        self._repeat(lambda: deliveries.succeeded(self._requests().get("r")))

    def _receive(self) -> list[Callable[[], None]]:
        table = Table(self._transport, client_table("bench"))
        shards = Shards(table, _SHARDS)
        items = Items(table, KIND, retrieval_from_item, shards=shards, clock=self._clock)
        results_table = Results(table, shards, clock=self._clock)
        retrievals = Retrievals(items, table, results_table, retention=_RETENTION, awaited=0)
        results = {f"p{number}": self._text for number in range(min(self.row.results, _READERS))}
        jobs = [{"provider": name, "status": "DONE", "attempts": 1} for name in results]
        outcome = {"status": "COMPLETE", "revision": 1, "jobs": jobs, "endedAt": "2026-01-01T00:00:00.000Z"}

        def receive() -> None:
            retrieval = retrievals.create("c", list(results), deadline=self._clock())
            self._repeat(lambda: retrievals.receive(retrieval, outcome, results))

        return [receive]

    def _delete(self) -> list[Callable[[], None]]:
        expired = ExpiredResults(
            self._table, self._shards, "request", Request.from_item, needed_by_request, clock=self._clock
        )
        self._started += timedelta(days=2)

        def look() -> None:
            self._repeat(expired.look)
            self._started += timedelta(days=2)
            self._repeat(expired.look)
            self.row.lost += len(
                ExpiryItems(self._table, self._shards).due(self._clock() + timedelta(days=99), limit=100)
            )

        return [look]
