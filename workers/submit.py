"""Submit: makes one attempt to submit a request to the aggregator, to cancel it there, or to check it there."""

import logging
import math
import random
from collections.abc import Callable
from datetime import timedelta

from outbound.http_client import HttpError
from outbound.openapi_caller import CheckedResponse, Operations
from persistence.errors import Conflict, NotFound
from persistence.records.request import clock_set_back_since, seconds_until
from persistence.records.retrieval import NextStep, Retrieval
from persistence.records.timestamps import Clock, from_text, utc_now
from persistence.results.cut_out import cut_out
from persistence.retrievals import Retrievals
from providers.retry_policy import RetryPolicy
from workers.check import Check
from workers.queue import Queue, submit_step
from workers.write_repetition import WriteRepetition, Written

log = logging.getLogger(__name__)

# The aggregator is our own service, one hop away: attempts are frequent and spread out.
_POLICY = RetryPolicy(initial_delay=0.5, maximum_delay=30, jitter=0.5)
# Seconds. The reconciler enqueues a check that is due later than this.
_SOON = 60
# Statuses of refusals that no repetition changes; others (408, 429, 5xx) may pass.
_FINAL = frozenset({400, 409, 413, 415, 422})


class Submit:
    """Submits requests. `client` is the API that receives callbacks, `aggregator` the API that is called."""

    def __init__(
        self,
        retrievals: Retrievals,
        queue: Queue,
        client: Operations,
        aggregator: Operations,
        *,
        rng: random.Random,
        clock: Clock = utc_now,
        writes: WriteRepetition | None = None,
    ) -> None:
        self._retrievals = retrievals
        self._queue = queue
        self._client = client
        self._aggregator = aggregator
        self._check = Check(retrievals, aggregator, rng=rng, clock=clock)
        self._rng = rng
        self._clock = clock
        self._writes = writes or WriteRepetition(rng)

    def __call__(self, request_id: str) -> float | None:
        """Make the attempt that is due, if one is; returns the seconds to wait when it is too early.

        Reads the result from the aggregator when the callback is overdue.
        Raises `persistence.errors.Unavailable`.
        """
        try:
            retrieval = self._retrievals.get(request_id)
        except NotFound:
            return None
        if retrieval.ended_at:
            return None
        now = self._clock()
        wait = seconds_until(retrieval.next_step_at, now)
        if wait and not clock_set_back_since(retrieval.updated_at, now):
            # The index remembers a check that is days away; the queue need not.
            return None if retrieval.next_step is NextStep.CHECK and wait > _SOON else wait
        try:
            return self._attempt(retrieval)
        except NotFound:
            return None
        except Conflict:
            # Another process changed the record meanwhile; the record says which step is next.
            changed = self._retrievals.get(request_id)
            if not changed.ended and changed.next_step is not NextStep.CHECK:
                self._queue.put(submit_step(changed))
        return None

    def _attempt(self, retrieval: Retrieval) -> float | None:
        try:
            match retrieval.next_step:
                case NextStep.CHECK:
                    return self._check(retrieval)
                case NextStep.CANCEL:
                    self._cancel(retrieval)
                case NextStep.SUBMIT:
                    self._submit(retrieval)
        except HttpError as error:
            self._try_again(retrieval, str(error))
        return None

    def _submit(self, retrieval: Retrieval) -> None:
        body = {
            "requestId": retrieval.request_id,
            "providers": list(retrieval.providers),
            "callbackUrl": self._client.url("receiveCallback", {"requestId": retrieval.request_id}),
            "deadline": retrieval.deadline,
        }
        if not seconds_until(retrieval.deadline, self._clock()):
            self._refuse(retrieval, f"deadline reached; {retrieval.submission.last_error or 'never submitted'}")
            return
        reply = self._aggregator.call("createRequest", body=body)
        if reply.ok:
            self._accepted(retrieval)
        elif reply.status in _FINAL:
            self._refuse(retrieval, str(reply))
        else:
            self._try_again(retrieval, str(reply))

    def _accepted(self, retrieval: Retrieval) -> None:
        try:
            self._write(retrieval, self._retrievals.accepted)
            log.info("%s: accepted by the aggregator", retrieval.request_id)
        except Conflict:
            if self._retrievals.get(retrieval.request_id).cancelled_at:
                # The cancellation came first, when the aggregator had nothing to cancel yet.
                self._call_cancel(retrieval)
            raise

    def _cancel(self, retrieval: Retrieval) -> None:
        reply = self._call_cancel(retrieval)
        if reply.ok or reply.status == 404:
            log.info("%s: cancelled", retrieval.request_id)
            self._write(retrieval, self._retrievals.cancelled)
        elif reply.status == 409:
            log.info("%s: ended before it could be cancelled", retrieval.request_id)
            self._queue.put(submit_step(self._write(retrieval, self._retrievals.cancel_came_late)))
        else:
            self._try_again(retrieval, str(reply))

    def _call_cancel(self, retrieval: Retrieval) -> CheckedResponse:
        # The response contains the results so far, whose values are not needed here.
        return self._aggregator.call("cancelRequest", {"requestId": retrieval.request_id}, read=lambda b: cut_out(b)[0])

    def _refuse(self, retrieval: Retrieval, error: str) -> None:
        """End the request, unless an attempt whose response was lost has arrived: then the aggregator ends it."""
        if self._is_there(retrieval.request_id):
            self._accepted(retrieval)
            return
        log.warning("%s: refused by the aggregator: %s", retrieval.request_id, error)
        self._write(retrieval, lambda record: self._retrievals.refused(record, error))

    def _is_there(self, request_id: str) -> bool:
        try:
            return self._aggregator.call("getRequest", {"requestId": request_id, "results": False}).ok
        except HttpError:
            # The deadline does not wait for an aggregator that is away.
            return False

    def _try_again(self, retrieval: Retrieval, error: str) -> None:
        now = self._clock()
        failures = retrieval.submission.attempts + 1
        remaining = (from_text(retrieval.deadline) - now).total_seconds()
        delay = _POLICY.delay(failures, remaining=math.inf, rng=self._rng) or _POLICY.maximum_delay
        if not retrieval.cancel_requested_at:
            # The attempt after the deadline ends the request.
            delay = min(delay, max(0.0, remaining) + 0.5)
        due = now + timedelta(seconds=delay)
        self._write(retrieval, lambda record: self._retrievals.submission_failed(record, error, due))
        log.info("%s: submission %d failed, next in %.1f s: %s", retrieval.request_id, failures, delay, error)
        self._queue.put(submit_step(self._retrievals.get(retrieval.request_id)))

    def _write(self, retrieval: Retrieval, write: Callable[[Retrieval], Written]) -> Written:
        """Write the aggregator's response, until the write succeeds; the aggregator is not called again."""
        return self._writes.until_done(retrieval.request_id, lambda: write(retrieval))
