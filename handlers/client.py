"""The operations of `specs/client.yaml`."""

import logging
import uuid
from datetime import timedelta

from connexion.lifecycle import ConnexionResponse
from starlette.concurrency import run_in_threadpool

import specs
from handlers.access.callers import Caller
from handlers.access.open_request_quota import OpenRequests
from handlers.health import Health
from handlers.in_flight import InFlight
from handlers.long_polling import LongPolls
from handlers.problems import Problem
from handlers.provider_names import KnownProviders
from handlers.request_checks import deadline_of, unknown_provider
from handlers.responses import answer, no_content
from outbound.http_client import HttpError
from outbound.openapi_caller import Operations
from persistence.errors import BadCursor, Conflict
from persistence.records.request import RequestStatus
from persistence.records.retrieval import Retrieval, SubmissionStatus
from persistence.records.timestamps import Clock, utc_now
from persistence.retrievals import Retrievals
from specs.operations import target
from workers.documents import Document, retrieval_document, retrieval_summary
from workers.queue import Queue, submit_step

log = logging.getLogger(__name__)


class Client:
    """One method per operationId.

    `client` builds the callback URLs, `aggregator` returns the progress of jobs. `default_deadline` is in seconds.
    """

    def __init__(
        self,
        retrievals: Retrievals,
        open_requests: OpenRequests,
        queue: Queue,
        client: Operations,
        aggregator: Operations,
        long_polls: LongPolls,
        health: Health,
        *,
        default_deadline: float,
        clock: Clock = utc_now,
    ) -> None:
        self._retrievals = retrievals
        self._open_requests = open_requests
        self._queue = queue
        self._client = client
        self._aggregator = aggregator
        self._long_polls = long_polls
        self._default_deadline = timedelta(seconds=default_deadline)
        self._clock = clock
        self._health = health
        self._known = KnownProviders(aggregator)
        self._in_flight = InFlight()

    async def get_health(self) -> ConnexionResponse:
        """Responds with 200 while this process serves."""
        return self._health.alive()

    async def get_readiness(self) -> ConnexionResponse:
        """Responds with 200 when all that requests need is there. Raises Problem (503) with the failed checks."""
        return await self._health.ready()

    def create_request(self, caller: Caller, body: Document) -> ConnexionResponse:
        """Stores a request; a worker submits it."""
        unknown, known = self._known.unknown(body["providers"])
        if unknown:
            raise unknown_provider(unknown, known)
        deadline = deadline_of(body, self._clock(), self._default_deadline)
        request_id = uuid.uuid4().hex
        self._open_requests.count(caller, request_id)
        retrieval = self._retrievals.create(request_id, body["providers"], deadline=deadline, tenant=caller.tenant)
        self._queue.put(submit_step(retrieval))
        location = target(specs.CLIENT, "getRequest", {"requestId": retrieval.request_id})
        return answer(self._document(retrieval), 202, {"Location": location, "Retry-After": "1"})

    def list_requests(self, caller: Caller, limit: int, cursor: str | None = None) -> ConnexionResponse:
        """Lists the requests of the caller's tenant, newest first."""
        try:
            retrievals, next_cursor = self._retrievals.newest(limit=limit, cursor=cursor, tenant=caller.tenant)
        except BadCursor as error:
            raise Problem("bad-request", f"cursor: {error}; start the list without one") from None
        document: Document = {"requests": [retrieval_summary(retrieval) for retrieval in retrievals]}
        return answer(document | ({"nextCursor": next_cursor} if next_cursor else {}))

    async def get_request(self, caller: Caller, request_id: str, wait: int) -> ConnexionResponse:
        """Returns the request when it has ended, or after `wait` seconds."""
        retrieval = await self._long_polls.wait_until(
            lambda: self._retrievals.get(request_id, caller.tenant), lambda r: r.ended, wait
        )
        document = await run_in_threadpool(self._document_with_results, retrieval)
        return answer(document, headers={} if retrieval.ended_at else {"Retry-After": "1"})

    def cancel_request(self, caller: Caller, request_id: str) -> ConnexionResponse:
        """Stores the cancellation; a worker sends it to the aggregator. Raises Conflict when the request has ended."""
        self._retrievals.get(request_id, caller.tenant)
        try:
            retrieval = self._retrievals.request_cancel(request_id)
        except Conflict:
            retrieval = self._retrievals.get(request_id)
            if retrieval.status is not RequestStatus.CANCELLED:
                raise
            return answer(self._document_with_results(retrieval))
        self._queue.put(submit_step(retrieval))
        return answer(self._document(retrieval), 202, {"Retry-After": "1"})

    async def receive_callback(self, request_id: str, body: Document) -> ConnexionResponse:
        """Stores the result that the aggregator delivers. The same result again changes nothing."""
        if body["requestId"] != request_id:
            log.error("%s: signed callback refused: its result belongs to request %s", request_id, body["requestId"])
            raise Problem("unprocessable", f"the result belongs to request {body['requestId']}, not {request_id}")
        results = {job["provider"]: job["result"] for job in body["jobs"] if "result" in job}
        size = sum(memoryview(text).nbytes for text in results.values())
        async with self._in_flight.alone(request_id, size):
            new = await run_in_threadpool(self._receive, request_id, body, results)
        if new:
            log.info("%s: %s, callback accepted", request_id, body["status"])
        else:
            log.info("%s: callback repeated, nothing changed", request_id)
        return no_content()

    def _receive(self, request_id: str, body: Document, results: dict[str, bytes]) -> bool:
        return self._retrievals.receive(self._retrievals.get(request_id), body, results)

    def _document_with_results(self, retrieval: Retrieval) -> Document:
        live_jobs = None
        if not retrieval.ended_at and retrieval.submission.status is SubmissionStatus.ACCEPTED:
            live_jobs = self._ask_how_far(retrieval.request_id)
        return self._document(retrieval, self._retrievals.load_results(retrieval), live_jobs)

    def _document(
        self, retrieval: Retrieval, results: dict[str, bytes] | None = None, live_jobs: list[Document] | None = None
    ) -> Document:
        callback_url = self._client.url("receiveCallback", {"requestId": retrieval.request_id})
        return retrieval_document(retrieval, callback_url, results or {}, live_jobs)

    def _ask_how_far(self, request_id: str) -> list[Document] | None:
        """Returns the aggregator's view of the jobs, or None when it does not respond: the read still succeeds."""
        try:
            reply = self._aggregator.call("getRequest", {"requestId": request_id, "results": False})
        except HttpError as error:
            log.info("%s: %s", request_id, error)
            return None
        jobs: list[Document] | None = reply.document["jobs"] if reply.ok else None
        return jobs
