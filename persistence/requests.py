"""Requests and their jobs: created, ended, tried again, cancelled, each by one conditional write."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from persistence.dynamodb.table import Item
from persistence.errors import ConditionFailed, Conflict, NotFound
from persistence.index.shards import OPEN
from persistence.items import Items
from persistence.job_completion import JobCompletion, JobCompletions
from persistence.records.job import Attempt, JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, Request, RequestStatus
from persistence.records.tenants import DEFAULT_TENANT
from persistence.records.timestamps import to_text
from persistence.results.store import PendingResult, Results

_STILL_OPEN = "#openJobs > :zero AND #revision = :revision AND #jobs[{index}].#status = :init"


class Requests:
    """The repository of requests.

    Every method raises `persistence.errors.Unavailable` when DynamoDB cannot answer.
    """

    def __init__(self, items: Items[Request], results: Results) -> None:
        self._items = items
        self._endings = JobCompletions(items)
        self._results = results
        self.get = items.get
        self.look_again = items.look_again
        self.get_due = items.get_due

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
        """Write a new request down, with one INIT job for each (provider, url).

        Returns the request and whether it is new: the same id and `content` (what the caller sent, any JSON value)
        are the same request. Raises Conflict for the same id with other content, or of another tenant, in the same
        words: that the id is taken is all that can be learned.
        """
        fingerprint = _fingerprint(content)
        facts = {
            "tenant": tenant,
            "jobs": [_new_job(provider, url) for provider, url in providers],
            "callbackUrl": callback_url,
            "openJobs": len(providers),
            "doneJobs": 0,
            "deadline": to_text(deadline),
            "dueAt": min(self._items.due_soon(self._items.clock()), to_text(deadline)),
            "delivery": _new_delivery(1),
            "revision": 1,
            "fingerprint": fingerprint,
        }
        try:
            return self._items.put_new(request_id, facts), True
        except ConditionFailed:
            request = self.get(request_id)
            if (request.tenant, request.fingerprint) != (tenant, fingerprint):
                raise Conflict(f"the request {request_id} exists with other content") from None
            return request, False

    def find(self, request_id: str, *, content: Any, tenant: str) -> Request | None:
        """The request that `create` would find there: of the tenant, with the same content. None if there is none."""
        try:
            request = self.get(request_id, tenant)
        except NotFound:
            return None
        return request if request.fingerprint == _fingerprint(content) else None

    def load_results(self, request: Request) -> dict[str, bytes]:
        """The results that are there, as JSON text, by provider. Raises `persistence.errors.ResultLost`."""
        return {job.provider: self._results.load(request.request_id, job.result) for job in request.jobs if job.result}

    def pending_result(self, attempt: Attempt, text: bytes) -> PendingResult:
        """A result (JSON text) that is to be written down by `finish_job`; nothing is written yet.

        It is compressed, and knows what of it is there. Kept by who repeats a write, it saves both the next time.
        """
        job = f"{attempt.index} until {attempt.deadline}"
        return self._results.begin(attempt.request_id, text, revision=attempt.revision, job=job)

    def finish_job(
        self, attempt: Attempt, result: bytes | PendingResult | None, *, attempts: int = 1
    ) -> Request | None:
        """End a job as DONE with its result (JSON text, if there is one), adding `attempts` to its count.

        Returns the request if this write ended it; of all writers exactly one gets it.
        Raises Conflict, with nothing changed, when the job or the request has ended already, or was retried meanwhile.
        After Unavailable it may be called again with the same result, and writes no part of it a second time.
        """
        if result is None:
            return self._endings.write(JobCompletion(attempt, JobStatus.DONE, attempts))
        pending = self.pending_result(attempt, result) if isinstance(result, bytes) else result
        place = self._results.store(pending)
        try:
            return self._endings.write(JobCompletion(attempt, JobStatus.DONE, attempts, result=place))
        except Conflict:
            # boto3 repeats a write whose answer was lost, which then conflicts with what it has written itself.
            # Any other conflict is for ever: an attempt's job ends once in its revision.
            if place not in [recorded.result for recorded in self.get(attempt.request_id).jobs]:
                self._results.discard(attempt.request_id, place)
            raise

    def fail_job(self, attempt: Attempt, error: str, *, attempts: int = 1) -> Request | None:
        """End a job as FAILED with the reason. Returns and raises as `finish_job` does.

        Raises Conflict also when it is an attempt's failure (`attempts` is not 0) that was counted before.
        """
        return self._endings.write(JobCompletion(attempt, JobStatus.FAILED, attempts, error=error))

    def record_failure(self, attempt: Attempt, error: str, next_attempt_at: datetime) -> None:
        """Count a failed attempt of a job that will be tried again.

        Raises Conflict when the job has ended or was retried, or when this attempt was counted before.
        """
        # The due time stays: it was set for an earlier step, so it is early rather than late.
        at = f"#jobs[{attempt.index}]"
        self._items.change(
            attempt.request_id,
            [f"{at}.#attempts = :counted", f"{at}.#lastError = :error", f"{at}.#nextAttemptAt = :next"],
            {
                "counted": attempt.made + 1,
                "error": error,
                "next": to_text(next_attempt_at),
                "attempts": attempt.made,
                "revision": attempt.revision,
                "init": JobStatus.INIT.value,
                "zero": 0,
            },
            condition=f"{_STILL_OPEN.format(index=attempt.index)} AND {at}.#attempts = :attempts",
            conflict=f"has ended already, or this attempt at {attempt.provider} was counted before",
        )

    def close(self, request_id: str, reason: CloseReason) -> Request:
        """End an open request: its open jobs end CANCELLED, or FAILED at the deadline, by this one write.

        Returns the ended request.
        Raises NotFound, and Conflict when the request has ended already, or has time until its deadline.
        """
        now = self._items.clock()
        at_deadline = reason is CloseReason.DEADLINE
        values = {
            "zero": 0,
            "closed": {"reason": reason.value, "at": to_text(now)},
            "due": self._items.due_soon(now),
        }
        changes = ["#closed = :closed", "#openJobs = :zero", "#dueAt = :due"]
        item = self._items.change(
            request_id,
            changes,
            values,
            condition="#openJobs > :zero" + (" AND #deadline <= :now" if at_deadline else ""),
            conflict="has ended already" + (", or has time until its deadline" if at_deadline else ""),
        )
        return self._items.parse(item)

    def retry(self, request_id: str, *, deadline: datetime) -> Request:
        """Open a PARTIAL or FAILED request again, with a new deadline, for its failed jobs only.

        Raises NotFound, and Conflict when the request is open, complete or cancelled.
        """
        request = self.get(request_id)
        if request.status not in (RequestStatus.PARTIAL, RequestStatus.FAILED):
            raise Conflict(f"the request {request_id} is {request.status}; only PARTIAL and FAILED ones are retried")
        failed = [job for job in request.jobs if job.status is JobStatus.FAILED]
        changes = [f"#jobs[{job.index}] = :job{job.index}" for job in failed]
        changes += ["#openJobs = :open", "#deadline = :deadline", "#delivery = :delivery"]
        changes += ["#dueShard = :shard", "#dueAt = :due"]
        values: dict[str, Any] = {f"job{job.index}": _new_job(job.provider, job.url) for job in failed}
        values |= {
            "open": len(failed),
            "deadline": to_text(deadline),
            "delivery": _new_delivery(request.delivery.round + 1),
            "shard": self._items.shards.of(OPEN, request_id),
            "due": self._items.due_soon(self._items.clock()),
            "seen": request.version,
        }
        item = self._items.change(
            request_id,
            changes,
            values,
            condition="#version = :seen",
            conflict="was changed at the same moment; look at it and try again",
            remove=["#closed", "#expiresAt"],
            add=["#revision :one"],
        )
        return self._items.parse(item)


def _fingerprint(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _new_job(provider: str, url: str) -> Item:
    return {"provider": provider, "url": url, "status": JobStatus.INIT.value, "attempts": 0}


def _new_delivery(number: int) -> Item:
    return {"status": DeliveryStatus.PENDING.value, "attempts": 0, "round": number}
