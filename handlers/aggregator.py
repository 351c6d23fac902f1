"""The operations of `specs/aggregator.yaml`."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from connexion import request as http_request
from connexion.lifecycle import ConnexionResponse
from starlette.concurrency import run_in_threadpool

import specs
from handlers.access.callers import Caller
from handlers.access.open_request_quota import OpenRequests
from handlers.health import Health
from handlers.job_updates import JobUpdates
from handlers.long_polling import LongPolls
from handlers.problems import Problem
from handlers.request_checks import check_callback_url, deadline_of, moment, unknown_provider
from handlers.responses import answer
from outbound.egress_policy import EgressPolicy
from persistence.deliveries import Deliveries
from persistence.errors import Conflict, KeyReused, KeyUnderWay, NotFound
from persistence.idempotency_keys import IdempotencyKeys
from persistence.index.due import DueIndex
from persistence.records.request import CloseReason, Request, RequestStatus
from persistence.records.timestamps import Clock, utc_now
from persistence.requests import Requests
from providers.model import Providers
from specs.operations import target
from workers.documents import Document, record_document, request_document
from workers.queue import Queue, deliver_step, fetch_job_id, fetch_steps, needless_job_ids

# Deliveries that one call starts again at most.
_MOST_REDELIVERED = 1000
# Clocks that a deadline may depend on before it arrives here: that of the caller and that of the client.
_CLOCKS = 2


class Aggregator:
    """One method per operationId. `default_deadline` is in seconds, `result_limit` in bytes."""

    def __init__(
        self,
        requests: Requests,
        deliveries: Deliveries,
        idempotency_keys: IdempotencyKeys,
        index: DueIndex,
        open_requests: OpenRequests,
        queue: Queue,
        providers: Providers,
        outbound: EgressPolicy,
        long_polls: LongPolls,
        health: Health,
        *,
        default_deadline: float,
        result_limit: int,
        clock: Clock = utc_now,
    ) -> None:
        self._requests = requests
        self._deliveries = deliveries
        self._idempotency_keys = idempotency_keys
        self._index = index
        self._open_requests = open_requests
        self._queue = queue
        self._providers = providers
        self._outbound = outbound
        self._long_polls = long_polls
        self._default_deadline = timedelta(seconds=default_deadline)
        self._job_updates = JobUpdates(requests, result_limit=result_limit)
        self._clock = clock
        self._health = health

    async def get_health(self) -> ConnexionResponse:
        """Responds with 200 while this process serves."""
        return self._health.alive()

    async def get_readiness(self) -> ConnexionResponse:
        """Responds with 200 when all that requests need is there. Raises Problem (503) with the failed checks."""
        return await self._health.ready()

    def list_providers(self) -> ConnexionResponse:
        """Lists every provider that a request may name."""
        providers = [{"name": name, "url": self._providers[name].shown_url} for name in sorted(self._providers)]
        return answer({"providers": providers})

    def create_request(self, caller: Caller, body: Document) -> ConnexionResponse:
        """Creates a request and enqueues its jobs, once per Idempotency-Key."""
        own_id = body.get("requestId")
        request_id = own_id or uuid.uuid4().hex
        key = http_request.headers.get("Idempotency-Key")
        if key is None:
            return _accepted(self._bare(self._create(caller, request_id, body, may_be_there=own_id is not None)[0]))
        try:
            claim = self._idempotency_keys.claim(key, body, request_id, tenant=caller.tenant)
        except KeyReused as error:
            raise Problem("idempotency-key-reused", str(error)) from None
        except KeyUnderWay as error:
            raise Problem("request-under-way", str(error), headers={"Retry-After": "1"}) from None
        if claim.answer is not None:
            return _accepted(claim.answer)
        try:
            # An earlier call with this key may have created the request under the id that it claimed.
            may_be_there = own_id is not None or claim.request_id != request_id
            request, _ = self._create(caller, claim.request_id, body, may_be_there=may_be_there)
        except (Conflict, Problem):
            self._idempotency_keys.release(claim)
            raise
        document = self._bare(request)
        self._idempotency_keys.answered(claim, document)
        return _accepted(document)

    async def get_request(self, caller: Caller, request_id: str, wait: int, results: bool) -> ConnexionResponse:
        """Returns the request when it has ended, or after `wait` seconds."""
        request = await self._long_polls.wait_until(
            lambda: self._requests.get(request_id, caller.tenant), lambda r: r.ended, wait
        )
        document = await run_in_threadpool(self._document, request, request_document, results)
        return answer(document, headers={} if request.ended else {"Retry-After": "1"})

    def cancel_request(self, caller: Caller, request_id: str) -> ConnexionResponse:
        """Cancels an open request. Raises Conflict when it has ended otherwise."""
        self._requests.get(request_id, caller.tenant)
        try:
            request = self._requests.close(request_id, CloseReason.CANCELLED)
        except Conflict:
            request = self._requests.get(request_id)
            if request.status is not RequestStatus.CANCELLED:
                raise
        else:
            self._queue.drop(*needless_job_ids(request))
            self._queue.put(deliver_step(request))
        return answer(self._document(request, request_document))

    def redeliver_request(self, caller: Caller, request_id: str) -> ConnexionResponse:
        """Delivers the result of an ended request again."""
        request = self._deliveries.start_anew(request_id, caller.tenant)
        self._queue.put(deliver_step(request))
        return _accepted(self._bare(request))

    def retry_request(self, caller: Caller, request_id: str) -> ConnexionResponse:
        """Runs the failed jobs of a PARTIAL or FAILED request again."""
        self._requests.get(request_id, caller.tenant)
        self._open_requests.count(caller, request_id)
        request = self._requests.retry(request_id, deadline=self._clock() + self._default_deadline)
        self._queue.put(*fetch_steps(request, self._clock()))
        return _accepted(self._bare(request))

    def redeliver_failed(self, caller: Caller, body: Document) -> ConnexionResponse:
        """Delivers again the results whose delivery failed since the given time."""
        since = moment(body["since"], "since")
        found = self._index.undelivered(since, limit=_MOST_REDELIVERED, tenant=caller.tenant)
        started = [request for request_id in found if (request := self._start_anew(request_id))]
        self._queue.put(*(deliver_step(request) for request in started))
        document = {
            "requestIds": [request.request_id for request in started],
            "truncated": len(found) == _MOST_REDELIVERED,
        }
        return answer(document, 202)

    def create_record(self, caller: Caller, id_: str, body: Document) -> ConnexionResponse:
        """Does the same as `create_request`, under the persistence layer's path."""
        request, new = self._create(caller, id_, body, may_be_there=True)
        return answer(self._document(request, record_document), 201 if new else 200)

    def get_record(self, caller: Caller, id_: str) -> ConnexionResponse:
        """Returns the record, and whether all of its jobs have ended."""
        return answer(self._document(self._requests.get(id_, caller.tenant), record_document))

    def update_job(self, caller: Caller, id_: str, body: Document) -> ConnexionResponse:
        """Sets the outcome of one provider's job, as a worker does."""
        request, ended = self._job_updates.apply(id_, caller.tenant, body)
        if job := request.job(body["provider"]):
            self._queue.drop(fetch_job_id(request.attempt(job)))
        if ended:
            self._queue.put(deliver_step(request))
        return answer(self._document(request, record_document))

    def _start_anew(self, request_id: str) -> Request | None:
        try:
            return self._deliveries.start_anew(request_id)
        except (Conflict, NotFound):
            # Since the index was read, the request was retried or has expired; or no result is left to deliver.
            return None

    def _create(self, caller: Caller, request_id: str, body: Document, *, may_be_there: bool) -> tuple[Request, bool]:
        """Returns the request with that id, and whether it is new.

        Returns an existing request with the same content even if a new one would be refused now. Raises Problem for a
        request that cannot be accepted, and Conflict when the id belongs to another request.
        """
        content = {name: body[name] for name in ("providers", "callbackUrl", "deadline") if name in body}
        try:
            deadline = self._check(body)
            self._open_requests.count(caller, request_id)
        except Problem:
            found = self._requests.find(request_id, content=content, tenant=caller.tenant) if may_be_there else None
            if found is None:
                raise
            return found, False
        providers = [(name, self._providers[name].shown_url) for name in body["providers"]]
        request, new = self._requests.create(
            request_id, providers, body["callbackUrl"], deadline=deadline, content=content, tenant=caller.tenant
        )
        if new:
            self._queue.put(*fetch_steps(request, self._clock()))
        return request, new

    def _check(self, body: Document) -> datetime:
        """Returns the request's deadline. Raises Problem when the request cannot be accepted."""
        unknown = [name for name in body["providers"] if name not in self._providers]
        if unknown:
            raise unknown_provider(unknown, sorted(self._providers))
        check_callback_url(body["callbackUrl"], self._outbound)
        return deadline_of(body, self._clock(), self._default_deadline, clocks=_CLOCKS)

    def _document(
        self, request: Request, make: Callable[[Request, dict[str, bytes]], Document], results: bool = True
    ) -> Document:
        return make(request, self._requests.load_results(request) if results else {})

    def _bare(self, request: Request) -> Document:
        return self._document(request, request_document, results=False)


def _accepted(document: Document) -> ConnexionResponse:
    location = target(specs.AGGREGATOR, "getRequest", {"requestId": document["requestId"]})
    return answer(document, 202, {"Location": location, "Retry-After": "1"})
