"""The reference model: what each request must be after each write, in plain Python and without any fault."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from persistence.records.job import Attempt, JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, Request, RequestStatus


@dataclass
class ExpectedJob:
    """One job of a request."""

    status: JobStatus = JobStatus.INIT
    attempts: int = 0
    result: bytes | None = None
    revision: int = 1
    """In which it was begun: what is done stays so when the request is retried."""


@dataclass
class Expected:
    """One request."""

    providers: tuple[str, ...]
    content: Any
    deadline: str
    jobs: list[ExpectedJob]
    revision: int = 1
    version: int = 1
    cancelled: bool = False
    delivery: DeliveryStatus = DeliveryStatus.PENDING
    delivery_attempts: int = 0
    round: int = 1

    @property
    def open_jobs(self) -> int:
        return sum(job.status is JobStatus.INIT for job in self.jobs)

    @property
    def status(self) -> RequestStatus:
        if self.cancelled:
            return RequestStatus.CANCELLED
        if self.open_jobs:
            return RequestStatus.OPEN
        done = sum(job.status is JobStatus.DONE for job in self.jobs)
        return (
            RequestStatus.COMPLETE
            if done == len(self.jobs)
            else RequestStatus.PARTIAL
            if done
            else RequestStatus.FAILED
        )


@dataclass
class Model:
    """All requests. Each method that stands for a write says whether it must be done, and does it here if so."""

    requests: dict[str, Expected] = field(default_factory=dict)
    sent: dict[bytes, tuple[str, str, int]] = field(default_factory=dict)
    """What providers have sent: for which request, provider and revision."""
    calls: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """How often a provider was asked, for which request and revision."""
    posts: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """How often which round of a request's delivery was posted, and how it was answered."""
    told: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many were told that it was they who ended a request, of which revision."""

    def create(self, request_id: str, providers: tuple[str, ...], content: Any, deadline: str) -> bool:
        if request_id in self.requests:
            return False
        self.requests[request_id] = Expected(providers, content, deadline, [ExpectedJob() for _ in providers])
        return True

    def end_job(
        self, attempt: Attempt, status: JobStatus, attempts: int, result: bytes | None = None, *, others: bool = False
    ) -> bool:
        """`others`: only if that does not end the request."""
        expected = self.requests[attempt.request_id]
        job = expected.jobs[attempt.index]
        if expected.revision != attempt.revision or job.status is not JobStatus.INIT:
            return False
        if status is JobStatus.FAILED and attempts and job.attempts != attempt.made:
            # Another has made this attempt too, counted it and planned the next.
            return False
        if others and expected.open_jobs == 1:
            return False
        job.status, job.result = status, result
        job.attempts += attempts
        expected.version += 1
        return True

    def record_failure(self, attempt: Attempt) -> bool:
        expected = self.requests[attempt.request_id]
        job = expected.jobs[attempt.index]
        if (expected.revision, job.status, job.attempts) != (attempt.revision, JobStatus.INIT, attempt.made):
            return False
        job.attempts += 1
        expected.version += 1
        return True

    def close(self, request_id: str, reason: CloseReason, now: str) -> bool:
        expected = self.requests[request_id]
        at_deadline = reason is CloseReason.DEADLINE
        if not expected.open_jobs or (at_deadline and now < expected.deadline):
            return False
        for job in expected.jobs:
            if job.status is JobStatus.INIT:
                job.status = JobStatus.FAILED if at_deadline else JobStatus.CANCELLED
        expected.cancelled = not at_deadline
        expected.version += 1
        return True

    def retry(self, request_id: str, deadline: str, seen: int) -> bool:
        expected = self.requests[request_id]
        if expected.version != seen:
            return False
        assert expected.status in (RequestStatus.PARTIAL, RequestStatus.FAILED), "retried what cannot be"
        expected.deadline = deadline
        expected.revision += 1
        anew = [job.status is JobStatus.FAILED for job in expected.jobs]
        begun = zip(expected.jobs, anew, strict=True)
        expected.jobs = [ExpectedJob(revision=expected.revision) if again else job for job, again in begun]
        self._new_round(expected)
        return True

    def delivered(self, request_id: str, delivery_round: int) -> bool:
        expected = self.requests[request_id]
        assert self.posts[request_id, delivery_round, "ok"], "called delivered although nobody acknowledged it"
        if expected.delivery is DeliveryStatus.SUCCEEDED or expected.round != delivery_round:
            return False
        expected.delivery = DeliveryStatus.SUCCEEDED
        expected.delivery_attempts += 1
        expected.version += 1
        return True

    def delivery_failed(self, request_id: str, delivery_round: int, made: int, *, last: bool) -> bool:
        expected = self.requests[request_id]
        is_next = (DeliveryStatus.PENDING, delivery_round, made)
        if (expected.delivery, expected.round, expected.delivery_attempts) != is_next:
            return False
        expected.delivery = DeliveryStatus.FAILED if last else DeliveryStatus.PENDING
        expected.delivery_attempts += 1
        expected.version += 1
        return True

    def start_anew(self, request_id: str) -> bool:
        expected = self.requests[request_id]
        if expected.open_jobs:
            return False
        self._new_round(expected)
        return True

    def ended_by(self, request: Request) -> None:
        """Somebody was told that it was they who ended the request."""
        self.told[request.request_id, request.revision] += 1
        assert self.told[request.request_id, request.revision] == 1, "two were told that they ended it"
        assert request.ended

    def check(self, request: Request) -> None:
        """The record, as somebody was just told of it, is what it must be."""
        expected = self.requests[request.request_id]
        assert (request.version, request.revision) == (expected.version, expected.revision)
        assert (request.status, request.open_jobs) == (expected.status, expected.open_jobs)
        assert request.deadline == expected.deadline
        for job, provider, must in zip(request.jobs, expected.providers, expected.jobs, strict=True):
            assert (job.provider, job.status, job.attempts) == (provider, must.status, must.attempts)
            assert job.attempts <= self.calls[request.request_id, provider, must.revision]
        delivery = request.delivery
        assert (delivery.status, delivery.attempts) == (expected.delivery, expected.delivery_attempts)
        assert delivery.round == expected.round
        assert delivery.webhook_id == f"msg_{request.request_id}_{expected.revision}"

    def _new_round(self, expected: Expected) -> None:
        expected.delivery, expected.delivery_attempts = DeliveryStatus.PENDING, 0
        expected.round += 1
        expected.version += 1
