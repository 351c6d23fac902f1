"""Fetch: one attempt at one provider. A result ends the job; anything else is written down and tried again."""

import logging
import random
from datetime import datetime, timedelta

from persistence import json_text
from persistence.errors import Conflict, NotFound
from persistence.records import CloseReason, Job, Request, seconds_until
from persistence.requests import Requests
from persistence.times import Clock, from_text, utc_now
from workers.backoff import retry_after
from workers.gate import Closed, Gate
from workers.http import Answer, BodyTooLarge, Http, HttpError, Timeouts
from workers.providers import Provider, Providers
from workers.queue import Queue, deliver_step, fetch_step

log = logging.getLogger(__name__)


class Fetch:
    """Fetches from the providers. `result_limit` is the largest result in bytes."""

    def __init__(
        self,
        requests: Requests,
        queue: Queue,
        providers: Providers,
        gate: Gate,
        http: Http,
        *,
        result_limit: int,
        rng: random.Random,
        clock: Clock = utc_now,
    ) -> None:
        self._requests = requests
        self._queue = queue
        self._providers = providers
        self._gate = gate
        self._http = http
        self._result_limit = result_limit
        self._rng = rng
        self._clock = clock

    def __call__(self, request_id: str, provider_name: str) -> float | None:
        """Make the attempt that is due, if one is.

        Returns the seconds to wait when it is too early or the provider must not be asked yet: that is no attempt.
        Raises `persistence.dynamodb.Unavailable`.
        """
        now = self._clock()
        try:
            request = self._requests.get(request_id)
        except NotFound:
            return None
        job = request.job(provider_name)
        if job is None or job.ended_at is not None:
            return None
        try:
            if not seconds_until(request.deadline, now):
                self._requests.close(request_id, CloseReason.DEADLINE)
                self._deliver(request_id)
                return None
            if wait := seconds_until(job.next_attempt_at, now):
                return wait
            self._attempt(request, job)
        except Closed as closed:
            return closed.wait
        except (Conflict, NotFound) as gone:
            log.info("%s %s: %s", request_id, provider_name, gone)
        return None

    def _attempt(self, request: Request, job: Job) -> None:
        provider = self._providers.get(job.provider)
        if provider is None:
            # A worker with an old file must not end what another could still fetch.
            self._try_again(request, job, Provider(url=job.url), "the provider is not in the providers' file")
            return
        answer: Answer | None = None
        try:
            with self._gate.visit(job.provider, provider) as visit:
                try:
                    answer = self._send(provider)
                    visit.answered = answer.ok
                except BodyTooLarge:
                    visit.answered = True
                    raise
        except BodyTooLarge as error:
            self._fail(request, job, str(error))
            return
        except HttpError as error:
            self._try_again(request, job, provider, str(error))
            return
        if not answer.ok:
            floor = retry_after(answer.headers, self._clock())
            self._try_again(request, job, provider, str(answer), floor=floor)
            return
        result = b"null" if answer.status == 204 else answer.body
        try:
            json_text.parse(result)
        except ValueError as error:
            self._try_again(request, job, provider, f"HTTP {answer.status} with a body that is {error}")
            return
        log.info("%s %s: DONE after %d attempts", request.request_id, job.provider, job.attempts + 1)
        if self._requests.finish_job(request, job, result):
            self._deliver(request.request_id)

    def _send(self, provider: Provider) -> Answer:
        return self._http.send(
            "GET",
            provider.url,
            headers={"Accept": "application/json", **provider.headers},
            timeouts=Timeouts(provider.connect_timeout, provider.read_timeout, provider.total_timeout),
            limit=self._result_limit,
            redirects=True,
        )

    def _try_again(self, request: Request, job: Job, provider: Provider, error: str, *, floor: float = 0) -> None:
        now = self._clock()
        failures = job.attempts + 1
        remaining = (from_text(request.deadline) - now).total_seconds()
        delay = provider.retry.delay(failures, floor=floor, remaining=remaining, rng=self._rng)
        if delay is None:
            self._fail(request, job, error)
            return
        next_attempt_at = _whole_milliseconds(now + timedelta(seconds=delay))
        self._requests.record_failure(request, job, error, next_attempt_at)
        log.info(
            "%s %s: attempt %d failed, next in %.1f s: %s", request.request_id, job.provider, failures, delay, error
        )
        self._queue.put(fetch_step(request, job, attempts=failures, at=next_attempt_at))

    def _fail(self, request: Request, job: Job, error: str) -> None:
        log.warning("%s %s: FAILED after %d attempts: %s", request.request_id, job.provider, job.attempts + 1, error)
        if self._requests.fail_job(request, job, error):
            self._deliver(request.request_id)

    def _deliver(self, request_id: str) -> None:
        self._queue.put(deliver_step(self._requests.get(request_id)))


def _whole_milliseconds(moment: datetime) -> datetime:
    """Rounded up to what a record can say, so that a job on time never finds itself early."""
    return moment + timedelta(microseconds=-moment.microsecond % 1000)
