"""Deliver: makes one attempt to post the signed result of a request to its callback URL (Standard Webhooks)."""

import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import orjson

from outbound.http_client import HttpError, printable
from outbound.openapi_caller import CheckedResponse, Operations
from outbound.webhook_signer import SIGNATURE, Signer
from persistence.deliveries import Deliveries
from persistence.errors import Conflict, NotFound, ResultLost, Unavailable
from persistence.records.request import DeliveryStatus, Request, clock_set_back_since, seconds_until
from persistence.records.timestamps import Clock, from_text, to_text, utc_now
from persistence.requests import Requests
from persistence.results.store import in_parts
from providers.retry_policy import SCHEDULE_JITTER, retry_after, scheduled_delay
from workers.delivery_outcome import Outcome
from workers.documents import result_document
from workers.queue import QUEUES, Queue, deliver_step
from workers.rq_worker.running_job import count_in_share
from workers.write_repetition import RepeatedConflict, WriteRepetition

log = logging.getLogger(__name__)

_GONE = 410
# Statuses by which a receiver rejects the result as invalid or too large. It accepts none until it is updated.
_REFUSED = frozenset({400, 413, 415, 422})
# Bytes a second. A receiver gets extra time for the body at this rate. Even for the largest body, the whole time is
# less than the five minutes for which a signature is valid.
_BYTES_A_SECOND = 1_000_000
# Seconds: the longest Retry-After that counts. Results expire, so that nothing could be delivered after a longer one.
_LONGEST_FLOOR = 86_400


def longest_delivery(schedule: Sequence[float]) -> float:
    """Seconds from the end of a request to its last attempt, if the receiver defers each for as long as it may."""
    first, *others = schedule
    return first + sum(max(wait, _LONGEST_FLOOR) * (1 + SCHEDULE_JITTER) for wait in others)


class Deliver:
    """Delivers results. `receivers` calls the callbacks; `schedule` is the seconds before each attempt."""

    def __init__(
        self,
        requests: Requests,
        deliveries: Deliveries,
        queue: Queue,
        signer: Signer,
        receivers: Operations,
        *,
        schedule: Sequence[float],
        rng: random.Random,
        clock: Clock = utc_now,
        writes: WriteRepetition | None = None,
    ) -> None:
        self._requests = requests
        self._deliveries = deliveries
        self._queue = queue
        self._signer = signer
        self._receivers = receivers
        self._schedule = schedule
        self._rng = rng
        self._clock = clock
        self._writes = writes or WriteRepetition(rng)

    def __call__(self, request_id: str, outcome: str | None = None) -> float | None:
        """Make the attempt that is due, if one is; returns the seconds to wait when it is too early.

        With the `outcome` of an attempt made before, only writes that outcome, unless it is written already.
        Raises `persistence.errors.Unavailable`.
        """
        try:
            request = self._requests.get(request_id)
            if outcome:
                self._record_made(request, Outcome.from_text(outcome))
            elif request.ended and request.delivery.status is DeliveryStatus.PENDING:
                if wait := self._wait(request):
                    return wait
                self._record(request, self._attempt(request))
        except (Conflict, NotFound) as gone:
            log.info("%s: %s", request_id, gone)
        return None

    def first(self, request: Request) -> None:
        """Make the first attempt to deliver a request that has just ended, at once if the schedule allows it.

        The queue gets the attempt in three cases. A result that may be large takes longer to deliver than the
        reconciler waits for an attempt without a job, so that two workers would deliver it. The fairness group of
        deliveries may have no worker thread left, as receivers may hang. The write of the outcome may fail.
        """
        step = deliver_step(request)
        try:
            if wait := self._wait(request):
                step = deliver_step(request, at=self._clock() + timedelta(seconds=wait))
            elif not any(job.result and in_parts(job.result) for job in request.jobs) and count_in_share(QUEUES[0]):
                outcome = self._attempt(request)
                step = deliver_step(request, outcome=outcome.to_text())
                self._mark(request, outcome)
                self._follow(request, outcome)
                return
        except (Conflict, NotFound) as gone:
            log.info("%s: %s", request.request_id, gone)
            return
        except Unavailable as error:
            log.warning("%s: %s", request.request_id, error)
        self._queue.put(step)

    def _wait(self, request: Request) -> float:
        """Seconds until the next attempt; the schedule begins when the request has ended."""
        now = self._clock()
        if clock_set_back_since(request.updated_at, now):
            return 0.0
        if request.delivery.attempts == 0 and request.ended_at:
            # A job may have ended before the clock was set back, so that `ended_at` is still to come.
            ended_at = min(request.ended_at, request.updated_at)
            first = from_text(ended_at) + timedelta(seconds=self._schedule[0])
            return max(0.0, (first - now).total_seconds())
        return seconds_until(request.delivery.next_attempt_at, now)

    def _attempt(self, request: Request) -> Outcome:
        """Post the result, and judge the response."""
        try:
            body = orjson.dumps(result_document(request, self._requests.load_results(request)))
        except ResultLost as error:
            return Outcome.of(request, error=str(error))
        headers = self._signer.headers(request.delivery.webhook_id, self._clock(), body)
        credentials = {"webhookSignature": headers.pop(SIGNATURE)}
        try:
            reply = self._receivers.call(
                "deliverResult",
                headers,
                to=request.callback_url,
                body=body,
                credentials=credentials,
                more_seconds=len(body) // _BYTES_A_SECOND,
            )
        except HttpError as error:
            return self._failed(request, str(error), floor=0)
        if reply.ok:
            return Outcome.of(request)
        said = _said(reply)
        if reply.status == _GONE:
            return Outcome.of(request, error=said)
        if reply.status in _REFUSED:
            log.error(
                "%s: the receiver refuses the result as it is: %s; look at the schema that it accepts (Result in "
                "aggregator.yaml), or update it: the result is posted again until the schedule ends",
                request.request_id,
                said,
            )
        return self._failed(request, said, floor=self._floor(reply))

    def _floor(self, reply: CheckedResponse) -> float:
        return min(retry_after(reply.headers, self._clock()), _LONGEST_FLOOR)

    def _failed(self, request: Request, error: str, *, floor: float) -> Outcome:
        failures = request.delivery.attempts + 1
        if failures >= len(self._schedule):
            return Outcome.of(request, error=error)
        delay = scheduled_delay(self._schedule[failures], floor=floor, rng=self._rng)
        return Outcome.of(request, error=error, next_attempt_at=to_text(self._clock() + timedelta(seconds=delay)))

    def _record(self, request: Request, outcome: Outcome) -> None:
        """Write the outcome, until the write succeeds; the receiver is not called again."""
        kept = len(outcome.error or "")
        with suppress(RepeatedConflict):
            # The first write may have succeeded. In any case, an attempt on the queue that is not due does nothing.
            self._writes.until_done(request.request_id, lambda: self._mark(request, outcome), kept=kept)
        self._follow(request, outcome)

    def _record_made(self, request: Request, outcome: Outcome) -> None:
        """Write the outcome of an attempt that `first` made, unless its write succeeded although it seemed to fail."""
        if outcome.is_next_of(request):
            self._record(request, outcome)
        elif request.ended and request.delivery.status is DeliveryStatus.PENDING:
            self._queue.put_missing([deliver_step(request)])

    def _mark(self, request: Request, outcome: Outcome) -> None:
        if outcome.error is None:
            self._deliveries.succeeded(request)
        else:
            at = from_text(outcome.next_attempt_at) if outcome.next_attempt_at else None
            self._deliveries.attempt_failed(request, outcome.error, at)

    def _follow(self, request: Request, outcome: Outcome) -> None:
        """Log the written outcome, and enqueue the next attempt if there is one."""
        made = outcome.attempts + 1
        if outcome.error is None:
            log.info("%s: %s, delivered", request.request_id, request.status)
        elif outcome.next_attempt_at:
            log.info(
                "%s: delivery %d failed, next at %s: %s",
                request.request_id,
                made,
                outcome.next_attempt_at,
                outcome.error,
            )
            self._queue.put(deliver_step(request, attempts=made, at=from_text(outcome.next_attempt_at)))
        else:
            log.warning("%s: delivery FAILED after %d attempts: %s", request.request_id, made, outcome.error)


def _said(reply: CheckedResponse) -> str:
    """The response as a short text; of a problem document (RFC 9457) only the detail."""
    try:
        detail = orjson.loads(reply.answer.body)["detail"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        detail = None
    return f"HTTP {reply.status} {printable(detail.encode())}".rstrip() if isinstance(detail, str) else str(reply)
