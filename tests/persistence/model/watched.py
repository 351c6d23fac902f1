"""Datahog's own parts, with each call of an engine a step of a process, and each write compared with the model's."""

import json
import random
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import orjson
import redis
from botocore.exceptions import ClientError, ConnectTimeoutError

import specs
from handlers.access.open_request_quota import OpenRequests
from handlers.aggregator import Aggregator
from handlers.health import Health
from handlers.long_polling import LongPolls
from outbound.egress_policy import EgressPolicy
from outbound.http_client import Http, HttpError, HttpResponse, Timeouts
from outbound.openapi_caller import Operations
from outbound.webhook_signer import Signer
from persistence.deliveries import Deliveries
from persistence.dynamodb.attribute_values import decode_members
from persistence.dynamodb.schema import aggregator_table, client_table
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.idempotency_keys import IdempotencyKeys
from persistence.index.due import DueIndex
from persistence.index.shards import Shards
from persistence.items import Items
from persistence.records.job import Attempt, JobStatus
from persistence.records.request import CloseReason, Request
from persistence.records.retrieval import KIND, retrieval_from_item
from persistence.records.tenants import DEFAULT_TENANT
from persistence.records.timestamps import to_text
from persistence.requests import Requests
from persistence.results.store import PendingResult, Results
from persistence.retrievals import Retrievals
from providers.model import BreakerPolicy, Provider
from providers.retry_policy import RetryPolicy
from tests.persistence.model.plain_model import Model
from tests.persistence.model.processes import current
from tests.support.repositories import RETENTION, HandClock
from tests.support.system import SECRET
from workers.deliver import Deliver
from workers.fetch import Fetch
from workers.heartbeats import Heartbeats
from workers.queue import QUEUES, Queue, Step
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew
from workers.redis_breaker import RedisBreaker

LEASE = 20.0
SHARDS = 4
SCHEDULE = (0, 5, 60)
_URL = "http://providers.test/"
PROVIDERS = {
    # Few places, and a breaker that opens soon, so that jobs wait for both.
    "gas": Provider(url=_URL + "gas", concurrency=2, breaker=BreakerPolicy(failures=3, open_seconds=30)),
    "water": Provider(url=_URL + "water", retry=RetryPolicy(initial_delay=5, maximum_attempts=2)),
    "power": Provider(url=_URL + "power", retry=RetryPolicy(initial_delay=1, maximum_delay=60)),
    "phone": Provider(url=_URL + "phone", concurrency=1, retry=RetryPolicy(initial_delay=20, maximum_delay=60)),
}
_UNAVAILABLE = ConnectTimeoutError(endpoint_url="http://dynamodb.test")
QUEUE_AWAY = redis.ConnectionError("no Redis")
_NONE = EgressPolicy()
_SHARDS_KEY = {"pk": {"S": "shards"}, "sk": {"S": "shards"}}


class Reply(StrEnum):
    """How somebody outside answers."""

    OK = "ok"
    LARGE = "large"
    ERROR = "error"
    BUSY = "busy"
    GONE = "gone"
    CUT = "cut"
    NO_JSON = "no JSON"


class _Transport(Transport):
    def __init__(self, transport: Transport, model: Model) -> None:
        self._inner = transport
        self._model = model

    def call(self, operation: str, arguments: Any) -> Any:
        if operation == "BatchGetItem":
            return current().step(partial(self._read_many, arguments), _UNAVAILABLE)
        if operation == "Query" or arguments.get("Key") == _SHARDS_KEY:
            return self._inner.call(operation, arguments)
        if operation.startswith("Batch"):
            return current().step(partial(self._inner.call, operation, arguments), _UNAVAILABLE)
        key = arguments["Item" if operation == "PutItem" else "Key"]
        make = self._call if key["sk"]["S"] == "request" else self._inner.call
        return current().step(partial(make, operation, arguments), _UNAVAILABLE)

    def _call(self, operation: str, arguments: Any) -> Any:
        process = current()
        must: bool | None = None
        if operation != "GetItem" and process.write:
            with process.checking():
                values = decode_members(arguments["ExpressionAttributeValues"])
                if ":soon" in values:
                    values["dueAt"] = self._due_at(arguments)
                must = process.write(values)
        try:
            answer = self._inner.call(operation, arguments)
        except ClientError:
            with process.checking():
                self._check_refusal(must)
            raise
        with process.checking():
            assert must is not False, f"{process} wrote what had to be refused"
            if item := answer.get("Item") or answer.get("Attributes"):
                request = Request.from_item(decode_members(item))
                self._model.check(request)
                process.known[request.request_id] = request
        return answer

    def _due_at(self, arguments: Any) -> str:
        there = {name: arguments[name] for name in ("TableName", "Key")}
        item = self._inner.call("GetItem", there | {"ConsistentRead": True})["Item"]
        return str(item["dueAt"]["S"]) if "dueAt" in item else "~"

    def _read_many(self, arguments: Any) -> Any:
        answer = self._inner.call("BatchGetItem", arguments)
        process = current()
        with process.checking():
            for items in answer["Responses"].values():
                for item in items:
                    if item["sk"]["S"] == "request":
                        request = Request.from_item(decode_members(item))
                        self._model.check(request)
                        process.known[request.request_id] = request
        return answer

    def _check_refusal(self, must: bool | None) -> None:
        assert not must, f"{current()} was refused a write that had to be done"


def _is_late(values: Mapping[str, Any]) -> bool:
    """Whether a write is to be done only if it does not end the request, as that is due later than soon."""
    return ":soon" in values and values["dueAt"] > values[":soon"]


class _Requests(Requests):
    def __init__(self, model: Model, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._model = model

    def create(
        self,
        request_id: str,
        providers: Sequence[tuple[str, str]],
        callback_url: str,
        *,
        deadline: datetime,
        content: Any,
        tenant: str = DEFAULT_TENANT,
    ) -> tuple[Request, bool]:
        names = tuple(name for name, _ in providers)
        with current().writing(lambda _: self._model.create(request_id, names, content, to_text(deadline))):
            created = super().create(
                request_id, providers, callback_url, deadline=deadline, content=content, tenant=tenant
            )
        with current().checking():
            assert self._model.requests[request_id].content == content, "took another content for the same"
        return created

    def finish_job(
        self, attempt: Attempt, result: bytes | PendingResult | None, *, attempts: int = 1
    ) -> Request | None:
        process = current()
        text = zlib.decompress(result.packed) if isinstance(result, PendingResult) else result

        def write(values: Mapping[str, Any]) -> bool:
            if attempts:
                assert text is not None
                assert self._model.sent[text] == (attempt.request_id, attempt.provider, attempt.revision)
                assert text == process.sent
            return self._model.end_job(attempt, JobStatus.DONE, attempts, text, others=_is_late(values))

        with process.writing(write):
            return self._told(super().finish_job(attempt, result, attempts=attempts))

    def fail_job(self, attempt: Attempt, error: str, *, attempts: int = 1) -> Request | None:
        def write(values: Mapping[str, Any]) -> bool:
            return self._model.end_job(attempt, JobStatus.FAILED, attempts, others=_is_late(values))

        with current().writing(write):
            return self._told(super().fail_job(attempt, error, attempts=attempts))

    def record_failure(self, attempt: Attempt, error: str, next_attempt_at: datetime) -> None:
        with current().writing(lambda _: self._model.record_failure(attempt)):
            super().record_failure(attempt, error, next_attempt_at)

    def close(self, request_id: str, reason: CloseReason) -> Request:
        with current().writing(lambda values: self._model.close(request_id, reason, values[":now"])):
            closed = super().close(request_id, reason)
        self._told(closed)
        return closed

    def retry(self, request_id: str, *, deadline: datetime) -> Request:
        text = to_text(deadline)
        with current().writing(lambda values: self._model.retry(request_id, text, values[":seen"])):
            return super().retry(request_id, deadline=deadline)

    def _told(self, request: Request | None) -> Request | None:
        if request:
            with current().checking():
                soon = self._items.due_soon(self._items.clock())
                assert (request.due_at or "~") <= soon, "nobody would look soon after who ended it has died"
                self._model.ended_by(request)
        return request


class _Deliveries(Deliveries):
    def __init__(self, model: Model, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._model = model

    def succeeded(self, request: Request) -> None:
        with current().writing(lambda _: self._model.delivered(request.request_id, request.delivery.round)):
            super().succeeded(request)

    def attempt_failed(self, request: Request, error: str, next_attempt_at: datetime | None) -> None:
        delivery, last = request.delivery, next_attempt_at is None

        def write(_: object) -> bool:
            return self._model.delivery_failed(request.request_id, delivery.round, delivery.attempts, last=last)

        with current().writing(write):
            super().attempt_failed(request, error, next_attempt_at)

    def start_anew(self, request_id: str, tenant: str | None = None) -> Request:
        with current().writing(lambda _: self._model.start_anew(request_id)):
            return super().start_anew(request_id, tenant)


class _Queue(Queue):
    def _put(self, steps: Sequence[Step], *, only_missing: bool) -> int:
        if not steps:
            return 0
        put = 0

        def script() -> None:
            nonlocal put
            put = super(_Queue, self)._put(steps, only_missing=only_missing)

        current().step(script, QUEUE_AWAY)
        return put

    def drop(self, *job_ids: str) -> None:
        with suppress(redis.RedisError):
            current().step(lambda: super(_Queue, self).drop(*job_ids), QUEUE_AWAY)


class _Http(Http):
    """Everybody outside."""

    def __init__(self, model: Model, attempt: Attempt | None) -> None:
        self._model = model
        self._attempt = attempt

    def send(self, method: str, url: str, **options: Any) -> HttpResponse:
        return self._provider(url) if method == "GET" else self._receiver(options["headers"], options["body"])

    def _provider(self, url: str) -> HttpResponse:
        process, attempt = current(), self._attempt
        assert attempt
        known = process.known.get(attempt.request_id)
        asked = attempt.request_id, url.removeprefix(_URL), known.revision if known else attempt.revision
        self._model.calls[asked] += 1
        reply = process.ask(url)
        number = len(self._model.sent)
        if reply is Reply.NO_JSON:
            return HttpResponse(200, {}, b"<html>")
        if reply in (Reply.OK, Reply.LARGE):
            size = 3000 if reply is Reply.LARGE else 0
            process.sent = json.dumps({"number": number, "noise": random.Random(number).randbytes(size).hex()}).encode()
            self._model.sent[process.sent] = asked
            return HttpResponse(200, {}, process.sent)
        return _failure(reply)

    def _receiver(self, headers: Any, body: bytes) -> HttpResponse:
        process, document = current(), orjson.loads(body)
        request_id = document["requestId"]
        with process.checking():
            # What is posted was due when the process last looked: nothing is once it was acknowledged, or refused.
            known = process.known[request_id]
            assert (known.ended, known.delivery.status) == (True, "PENDING"), "posted what is not due"
            assert headers["webhook-id"] == f"msg_{request_id}_{document['revision']}"
            assert document["revision"] == known.revision
            self._check(document)
        reply = process.ask(f"the receiver of {request_id}")
        acknowledged = reply in (Reply.OK, Reply.LARGE, Reply.NO_JSON)
        self._model.posts[request_id, known.delivery.round, "ok" if acknowledged else str(reply)] += 1
        return HttpResponse(204, {}, b"") if acknowledged else _failure(reply)

    def _check(self, document: Any) -> None:
        """What is posted is how the jobs of that revision have ended."""
        expected = self._model.requests[document["requestId"]]
        if document["revision"] == expected.revision:
            assert document["status"] == expected.status
            for job, must in zip(document["jobs"], expected.jobs, strict=True):
                assert job["status"] == must.status
                assert job.get("result") == (orjson.loads(must.result) if must.result else None)


def _failure(reply: Reply) -> HttpResponse:
    match reply:
        case Reply.BUSY:
            return HttpResponse(429, {"Retry-After": "200"}, b"")
        case Reply.GONE:
            return HttpResponse(410, {}, b"")
        case Reply.CUT:
            raise HttpError("the connection broke")
        case _:
            return HttpResponse(500, {}, b"")


class Parts:
    """What one process has of Datahog, for an attempt at a provider if it makes one."""

    def __init__(
        self,
        transport: Transport,
        connection: "redis.Redis",
        prefix: str,
        model: Model,
        clock: HandClock,
        rng: random.Random,
        attempt: Attempt | None = None,
    ) -> None:
        watched = _Transport(transport, model)
        table, client = Table(watched, aggregator_table(prefix)), Table(watched, client_table(prefix))
        shards, client_shards = Shards(table, SHARDS), Shards(client, SHARDS)
        items = Items(table, "request", Request.from_item, shards=shards, clock=clock)
        self.due = DueIndex(table, shards)
        self.requests = _Requests(model, items, Results(table, shards, clock=clock))
        deliveries = _Deliveries(model, items, retention=RETENTION)
        queue = _Queue(connection, "tests", PROVIDERS.get, clock=lambda: clock().timestamp())
        http, timeouts = _Http(model, attempt), Timeouts(1, 1, 1)
        receivers = Operations(specs.AGGREGATOR, "http://nobody", http, timeouts=timeouts)
        self.deliver = Deliver(
            self.requests,
            deliveries,
            queue,
            Signer([SECRET]),
            receivers,
            schedule=SCHEDULE,
            rng=rng,
            clock=clock,
        )
        self.fetch = Fetch(
            self.requests, queue, PROVIDERS, http, self.deliver, result_limit=100_000, rng=rng, clock=clock
        )
        retrievals = Retrievals(
            Items(client, KIND, retrieval_from_item, shards=client_shards, clock=clock),
            client,
            Results(client, client_shards, clock=clock),
            retention=RETENTION,
            awaited=RETENTION,
        )
        heartbeats = Heartbeats(connection, QUEUES, reconciler_silence=1, worker_silence=1)
        self.reconciler = Reconciler(
            self.requests,
            retrievals,
            self.due,
            DueIndex(client, client_shards),
            queue,
            heartbeats,
            AllShards(),
            Crew(1),
            period=1,
            delivery_timeout=15,
            clock=clock,
        )
        self.api = Aggregator(
            self.requests,
            deliveries,
            IdempotencyKeys(table, clock=clock),
            self.due,
            OpenRequests(connection, items.still_open, "tests", quota=1, breaker=RedisBreaker()),
            queue,
            PROVIDERS,
            _NONE,
            LongPolls(),
            Health({"redis": lambda: None}),
            default_deadline=7200,
            result_limit=100_000,
            clock=clock,
        )
