"""Fetch: makes one attempt at one provider. A result completes the job; a failure schedules the next attempt."""

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from outbound.http_client import BodyTooLarge, Http, HttpError, HttpResponse, Timeouts
from persistence.errors import Conflict, NotFound
from persistence.records.job import Attempt
from persistence.records.request import CloseReason, DeliveryStatus, Request, clock_set_back_since, seconds_until
from persistence.records.timestamps import Clock, from_text, utc_now
from persistence.requests import Requests
from persistence.results import json_text
from providers.model import Provider, Providers
from providers.retry_policy import RetryPolicy, retry_after
from workers.deliver import Deliver
from workers.queue import Queue, deliver_step, fetch_step, fetch_steps, needless_job_ids
from workers.rq_worker.running_job import begun_before, give_back_place
from workers.write_repetition import RepeatedConflict, WriteRepetition

log = logging.getLogger(__name__)

# A job's copy of the record is trusted for this long, so that the attempt reads nothing. The end of a request removes
# its attempts from the queue. Those that stay there, because Redis was away, call a provider once in vain; they change
# no record, as each write is conditional.
_TRUSTED = timedelta(minutes=10)

Written = TypeVar("Written")


class Fetch:
    """Fetches from the providers. `result_limit` is the largest result in bytes."""

    def __init__(
        self,
        requests: Requests,
        queue: Queue,
        providers: Providers,
        http: Http,
        deliver: Deliver,
        *,
        result_limit: int,
        rng: random.Random,
        clock: Clock = utc_now,
        writes: WriteRepetition | None = None,
    ) -> None:
        self._requests = requests
        self._queue = queue
        self._providers = providers
        self._http = http
        self._deliver = deliver
        self._result_limit = result_limit
        self._rng = rng
        self._clock = clock
        self._writes = writes or WriteRepetition(rng)

    def __call__(self, attempt: Attempt, known_at: datetime) -> bool | None:
        """Make the attempt if it is due; `known_at` is the time at which the record agreed with it.

        Returns whether the provider gave a success response (2xx); None if it was not called.
        Raises `persistence.errors.Unavailable`.
        """
        now = self._clock()
        try:
            known = now - known_at < _TRUSTED and not begun_before()
            current = attempt if known else self._look(attempt, now)
            if current is None:
                return None
            if not seconds_until(current.deadline, now):
                self._hand_over(self._close(current.request_id), answered=None)
                return None
            return self._attempt(current)
        except (Conflict, NotFound) as gone:
            log.info("%s %s: %s", attempt.request_id, attempt.provider, gone)
            if isinstance(gone, Conflict):
                self._put_next(attempt, repeated=isinstance(gone, RepeatedConflict))
            return None

    def _put_next(self, attempt: Attempt, *, repeated: bool) -> None:
        """Enqueue the next attempt of this job, as the record says.

        Another worker may have recorded this attempt and died then. Or this worker recorded it and lost the response to
        its write, so that boto3 or this job (`repeated`) repeated the write in vain.
        """
        try:
            request = self._requests.get(attempt.request_id)
        except NotFound:
            return
        if repeated:
            self._put_lost_delivery(request)
        steps = fetch_steps(request, self._clock())
        self._queue.put_missing([step for step in steps if step.provider == attempt.provider])

    def _look(self, attempt: Attempt, now: datetime) -> Attempt | None:
        """The attempt that is due now, as the record says, or None. Raises NotFound."""
        request = self._requests.get(attempt.request_id)
        self._put_lost_delivery(request)
        job = request.job(attempt.provider)
        if job is None or job.ended_at is not None:
            return None
        current = request.attempt(job)
        if seconds_until(job.next_attempt_at, now) and not clock_set_back_since(request.updated_at, now):
            self._queue.put(fetch_step(current, now, from_text(job.next_attempt_at or "")))
            return None
        return current

    def _put_lost_delivery(self, request: Request) -> None:
        if request.ended and request.delivery.status is DeliveryStatus.PENDING:
            # The worker that ended the request may have died before it enqueued the delivery.
            self._queue.put_missing([deliver_step(request)])

    def _attempt(self, attempt: Attempt) -> bool | None:
        provider = self._providers.get(attempt.provider)
        if provider is None:
            # A worker with an old file must not fail a job that another worker can still fetch.
            self._try_again(attempt, RetryPolicy(), "the provider is not in the providers' file", answered=False)
            return None
        try:
            answer = self._send(provider)
        except BodyTooLarge as error:
            return self._fail(attempt, str(error), answered=True)
        except HttpError as error:
            said = provider.without_secrets(str(error).encode()).decode()
            return self._try_again(attempt, provider.retry, said, answered=False)
        if not answer.ok:
            floor = retry_after(answer.headers, self._clock())
            said = str(replace(answer, body=provider.without_secrets(answer.body)))
            return self._try_again(attempt, provider.retry, said, answered=False, floor=floor)
        result = b"null" if answer.status == 204 else answer.body
        try:
            json_text.parse(result)
        except ValueError as error:
            error_text = f"HTTP {answer.status} with a body that is {error}"
            return self._try_again(attempt, provider.retry, error_text, answered=True)
        log.info("%s %s: DONE after %d attempts", attempt.request_id, attempt.provider, attempt.made + 1)
        pending = self._requests.pending_result(attempt, result)
        kept = len(pending.packed)
        request = self._write(attempt, lambda: self._requests.finish_job(attempt, pending), kept, answered=True)
        if request:
            self._hand_over(request, answered=True)
        return True

    def _write(self, attempt: Attempt, write: Callable[[], Written], kept: int, *, answered: bool) -> Written:
        """Write the outcome of an attempt, until the write succeeds; the provider is not called again."""
        about = f"{attempt.request_id} {attempt.provider}"
        return self._writes.until_done(about, write, kept=kept, answered=answered)

    def _send(self, provider: Provider) -> HttpResponse:
        return self._http.send(
            "GET",
            provider.url,
            headers={"Accept": "application/json", **provider.headers},
            timeouts=Timeouts(provider.connect_timeout, provider.read_timeout, provider.total_timeout),
            limit=self._result_limit,
            redirects=True,
        )

    def _try_again(
        self, attempt: Attempt, policy: RetryPolicy, error: str, *, answered: bool, floor: float = 0
    ) -> bool:
        now = self._clock()
        failures = attempt.made + 1
        remaining = (from_text(attempt.deadline) - now).total_seconds()
        delay = policy.delay(failures, floor=floor, remaining=remaining, rng=self._rng)
        if delay is None:
            # The error explains why the job ended before its deadline.
            error += "; its Retry-After is past the deadline" if floor >= remaining else ""
            return self._fail(attempt, error, answered=answered)
        next_attempt_at = _whole_milliseconds(now + timedelta(seconds=delay))
        self._write(
            attempt,
            lambda: self._requests.record_failure(attempt, error, next_attempt_at),
            len(error),
            answered=answered,
        )
        log.info(
            "%s %s: attempt %d failed, next in %.1f s: %s", attempt.request_id, attempt.provider, failures, delay, error
        )
        self._queue.put(fetch_step(replace(attempt, made=failures), now, next_attempt_at))
        return answered

    def _fail(self, attempt: Attempt, error: str, *, answered: bool) -> bool:
        log.warning(
            "%s %s: FAILED after %d attempts: %s", attempt.request_id, attempt.provider, attempt.made + 1, error
        )
        request = self._write(attempt, lambda: self._requests.fail_job(attempt, error), len(error), answered=answered)
        if request:
            self._hand_over(request, answered=answered)
        return answered

    def _close(self, request_id: str) -> Request:
        request = self._requests.close(request_id, CloseReason.DEADLINE)
        self._queue.drop(*needless_job_ids(request))
        return request

    def _hand_over(self, request: Request, answered: bool | None) -> None:
        """Release the provider's permit, and deliver the request that has just ended."""
        give_back_place(answered)
        self._deliver.first(request)


def _whole_milliseconds(moment: datetime) -> datetime:
    """Round up to the precision of a record, so that a job that runs on time is never too early."""
    return moment + timedelta(microseconds=-moment.microsecond % 1000)
