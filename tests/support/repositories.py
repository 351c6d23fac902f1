"""The repositories over tables of a test's own, with a clock that the test moves, and the steps that tests share."""

import base64
import json
import random
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

from persistence.deliveries import Deliveries
from persistence.dynamodb.schema import aggregator_table, client_table, create_tables
from persistence.dynamodb.table import Item, Table
from persistence.dynamodb.transport import Transport
from persistence.errors import Conflict
from persistence.idempotency_keys import IdempotencyKeys
from persistence.index.due import DueIndex
from persistence.index.shards import Shards
from persistence.items import Items
from persistence.records.request import Request
from persistence.records.retrieval import KIND, Retrieval, retrieval_from_item
from persistence.records.timestamps import utc_now
from persistence.requests import Requests
from persistence.results.expired import ExpiredResults, needed_by_request, needed_by_retrieval
from persistence.results.expiry_items import PREFIX, ExpiryItems
from persistence.results.store import Results
from persistence.retrievals import Retrievals

RETENTION = 7 * 86_400
# After the deadline, seconds.
LAST_DELIVERY = 7 * 86_400
CALLBACK_URL = "http://client.test/callbacks"


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = utc_now().replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> datetime:
        """Move the clock by the members of a timedelta; returns the time it shows then."""
        self.now += timedelta(**duration)
        return self.now


@dataclass
class Repositories:
    """All repositories over one pair of tables, which are created."""

    dynamodb: Any
    prefix: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    clock: HandClock = field(default_factory=HandClock)
    retention: float = RETENTION
    shards: int = 4

    def __post_init__(self) -> None:
        create_tables(self.dynamodb, self.prefix)
        self.aggregator_table = Table(Transport(self.dynamodb), aggregator_table(self.prefix))
        self.client_table = Table(Transport(self.dynamodb), client_table(self.prefix))
        shards = Shards(self.aggregator_table, self.shards)
        client_shards = Shards(self.client_table, self.shards)
        request_items = Items(self.aggregator_table, "request", Request.from_item, shards=shards, clock=self.clock)
        retrieval_items = Items(self.client_table, KIND, retrieval_from_item, shards=client_shards, clock=self.clock)
        self.results = Results(self.aggregator_table, shards, clock=self.clock)
        self.requests = Requests(request_items, self.results)
        self.deliveries = Deliveries(request_items, retention=self.retention)
        self.keys = IdempotencyKeys(self.aggregator_table, clock=self.clock)
        self.due = DueIndex(self.aggregator_table, shards)
        self.expiries = ExpiryItems(self.aggregator_table, shards, clock=self.clock)
        self.expired = ExpiredResults(
            self.aggregator_table, shards, "request", Request.from_item, needed_by_request, clock=self.clock
        )
        self.retrievals = Retrievals(
            retrieval_items,
            self.client_table,
            Results(self.client_table, client_shards, clock=self.clock),
            retention=self.retention,
            awaited=LAST_DELIVERY,
        )
        self.retrievals_due = DueIndex(self.client_table, client_shards)
        self.retrievals_expired = ExpiredResults(
            self.client_table, client_shards, KIND, retrieval_from_item, needed_by_retrieval, clock=self.clock
        )

    def open_request(self, jobs: int = 1, *, request_id: str | None = None) -> Request:
        """A new request with so many jobs, for the providers p0, p1 ..., due to end in an hour."""
        return self.requests.create(
            request_id or uuid.uuid4().hex,
            [(f"p{number}", f"http://providers.test/p{number}") for number in range(jobs)],
            CALLBACK_URL,
            deadline=self.clock() + timedelta(hours=1),
            content={"jobs": jobs},
        )[0]

    def ended_request(self, done: int = 1, failed: int = 0, *, result: bytes | None = b"1") -> Request:
        """A request that has ended, with so many jobs DONE, and so many FAILED after them."""
        request = self.open_request(done + failed)
        for job in request.jobs[:done]:
            self.requests.finish_job(request.attempt(job), result)
        for job in request.jobs[done:]:
            self.requests.fail_job(request.attempt(job), "HTTP 500")
        return self.requests.get(request.request_id)

    def retrieval(self, *providers: str, request_id: str | None = None) -> Retrieval:
        """A new retrieval, from gas if no provider is named, due to end in an hour."""
        deadline = self.clock() + timedelta(hours=1)
        return self.retrievals.create(request_id or uuid.uuid4().hex, providers or ("gas",), deadline=deadline)

    def parts(self, request_id: str) -> list[Item]:
        """The items that hold parts of results of a request."""
        items = []
        for table in (self.aggregator_table, self.client_table):
            for page in self.dynamodb.get_paginator("scan").paginate(TableName=table.name, ConsistentRead=True):
                items += [
                    {name: value for name, typed in item.items() for value in typed.values()} for item in page["Items"]
                ]
        mine = [item for item in items if item["pk"].startswith(f"{request_id}#result#")]
        return sorted(mine, key=lambda item: str(item["pk"]))

    def due_ids(self, now: datetime, *, limit: int) -> list[str]:
        """The ids of at most so many requests that are due, the longest due first."""
        return [entry.record_id for entry in self.due.due(now, limit=limit)]

    def retrievals_due_ids(self, now: datetime, *, limit: int) -> list[str]:
        """The ids of at most so many retrievals that are due, the longest due first."""
        return [entry.record_id for entry in self.retrievals_due.due(now, limit=limit)]

    def indexed(self, name: str, index: str = "due") -> set[str]:
        """The ids of all records in an index of the table with that last name; expiry items are none."""
        items = self.dynamodb.scan(TableName=f"{self.prefix}-{name}", IndexName=index)["Items"]
        return {item["pk"]["S"] for item in items if not item["sk"]["S"].startswith(PREFIX)}


def incompressible_json(size: int) -> bytes:
    """JSON text of exactly so many bytes, which compression makes hardly smaller."""
    return b'"' + base64.b64encode(random.Random(size).randbytes(size))[: size - 2] + b'"'


def at_once(calls: Iterable[Callable[[], object]]) -> list[object]:
    """What the calls return or raise, each made in a thread of its own, all at the same moment."""
    made = list(calls)
    start = Barrier(len(made))

    def make(call: Callable[[], object]) -> object:
        start.wait(30)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(made)) as pool:
        return list(pool.map(make, made))


def conflicts(answers: Iterable[object]) -> int:
    """How many of the answers are a Conflict; any other exception is raised."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    for error in errors:
        if not isinstance(error, Conflict):
            raise error
    return len(errors)


def lose_one_answer(dynamodb: Any, operation: str) -> None:
    """Let boto3 send its next call of the operation twice, as it does when the first answer is lost on the way."""
    lost: list[str] = []

    def send_again(**_: object) -> float | None:
        if lost:
            return None
        lost.append(operation)
        return 0.0

    dynamodb.meta.events.register(f"needs-retry.dynamodb.{operation}", send_again)


def answer_in_small_pages(dynamodb: Any, size: int) -> None:
    """Let each answer to a query hold at most so many items, as if they were as large as DynamoDB's limit."""

    def limit(request: Any, **_: object) -> None:
        arguments = json.loads(request.data)
        arguments["Limit"] = min(size, arguments.get("Limit", size))
        request.data = json.dumps(arguments).encode()

    # Before it is signed.
    dynamodb.meta.events.register_first("request-created.dynamodb.Query", limit)
