"""The record of a request and its delivery, as the aggregator keeps them.

The item holds facts; what they amount to (a request's status, whether it has ended) is derived here, so that one
write decides and no state can contradict another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from persistence.dynamodb.table import Item
from persistence.records.job import Attempt, Job, JobStatus
from persistence.records.tenants import tenant_of
from persistence.records.timestamps import from_text

# By so much the clocks of two machines may differ.
SKEW = timedelta(minutes=1)


class RequestStatus(StrEnum):
    """How far a request is: OPEN until all jobs have ended, then how they ended."""

    OPEN = "OPEN"
    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class DeliveryStatus(StrEnum):
    """How far the posting of a result is."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class CloseReason(StrEnum):
    """Why a request ended before all of its jobs had."""

    CANCELLED = "CANCELLED"
    DEADLINE = "DEADLINE"


@dataclass(frozen=True)
class Delivery:
    """The posting of a result to the callback URL."""

    status: DeliveryStatus
    attempts: int
    next_attempt_at: str | None
    last_error: str | None
    webhook_id: str
    round: int
    """Raised by each redelivery, so that attempts of an earlier round are told apart."""


@dataclass(frozen=True)
class Request:
    """One request as it was when read."""

    request_id: str
    tenant: str
    jobs: tuple[Job, ...]
    callback_url: str
    status: RequestStatus
    open_jobs: int
    deadline: str
    delivery: Delivery
    revision: int
    """Raised by each retry: results of a later revision replace those of an earlier one."""
    version: int
    """Raised by every change, so that a reader can tell that nothing has changed since."""
    fingerprint: str
    created_at: str
    updated_at: str
    ended_at: str | None
    due_at: str | None
    expires_at: int | None

    @property
    def ended(self) -> bool:
        """Whether all jobs have ended."""
        return self.open_jobs == 0

    def job(self, provider: str) -> Job | None:
        """The job of the provider, if the request has one."""
        return next((job for job in self.jobs if job.provider == provider), None)

    def attempt(self, job: Job) -> Attempt:
        """The next attempt of one of the jobs."""
        return Attempt(self.request_id, job.provider, job.index, job.attempts, self.revision, self.deadline)

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> "Request":
        """The request that an item of the aggregator's table says."""
        closed: Item | None = item.get("closed")
        jobs = tuple(_job(index, job, closed) for index, job in enumerate(item["jobs"]))
        ended_at = None
        if item["openJobs"] == 0:
            ended_at = closed["at"] if closed else max(job.ended_at or "" for job in jobs)
        return cls(
            request_id=item["pk"],
            tenant=tenant_of(item),
            jobs=jobs,
            callback_url=item["callbackUrl"],
            status=_status(item["openJobs"], item["doneJobs"], len(jobs), closed),
            open_jobs=item["openJobs"],
            deadline=item["deadline"],
            delivery=_delivery(item),
            revision=item["revision"],
            version=item["version"],
            fingerprint=item["fingerprint"],
            created_at=item["createdAt"],
            updated_at=item["updatedAt"],
            ended_at=ended_at,
            due_at=item.get("dueAt"),
            expires_at=item.get("expiresAt"),
        )


def seconds_until(moment: str | None, now: datetime) -> float:
    """How long until a recorded time; 0 when it has come, or was never set."""
    return max(0.0, (from_text(moment) - now).total_seconds()) if moment else 0.0


def clock_set_back_since(written_at: str, now: datetime) -> bool:
    """Whether a record was written at a time still to come: the clock was set back, and its times are too late."""
    return from_text(written_at) - now > SKEW


def _status(open_jobs: int, done_jobs: int, all_jobs: int, closed: Item | None) -> RequestStatus:
    if closed and closed["reason"] == CloseReason.CANCELLED:
        return RequestStatus.CANCELLED
    if open_jobs:
        return RequestStatus.OPEN
    if done_jobs == all_jobs:
        return RequestStatus.COMPLETE
    return RequestStatus.PARTIAL if done_jobs else RequestStatus.FAILED


def _job(index: int, job: Item, closed: Item | None) -> Job:
    status, ended_at, last_error = JobStatus(job["status"]), job.get("endedAt"), job.get("lastError")
    next_attempt_at = job.get("nextAttemptAt")
    if closed and status is JobStatus.INIT:
        # Closing a request ends, by its one write, the jobs that had not ended.
        status = JobStatus.CANCELLED if closed["reason"] == CloseReason.CANCELLED else JobStatus.FAILED
        if status is JobStatus.FAILED:
            last_error = f"deadline reached; {last_error}" if last_error else "deadline reached"
        ended_at, next_attempt_at = closed["at"], None
    return Job(
        index=index,
        provider=job["provider"],
        url=job["url"],
        status=status,
        attempts=job["attempts"],
        next_attempt_at=next_attempt_at,
        last_error=last_error,
        ended_at=ended_at,
        result=job.get("result"),
    )


def _delivery(item: Mapping[str, Any]) -> Delivery:
    delivery = item["delivery"]
    return Delivery(
        status=DeliveryStatus(delivery["status"]),
        attempts=delivery["attempts"],
        next_attempt_at=delivery.get("nextAttemptAt"),
        last_error=delivery.get("lastError"),
        webhook_id=f"msg_{item['pk']}_{item['revision']}",
        round=delivery["round"],
    )
