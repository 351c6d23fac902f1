"""The record type of the client: a person's request, its submission to the aggregator, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from persistence.dynamodb.table import Item
from persistence.records.request import RequestStatus
from persistence.records.tenants import tenant_of

KIND = "retrieval"


class SubmissionStatus(StrEnum):
    """Whether the aggregator has the request: on its way, accepted, or refused for good."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"


class NextStep(StrEnum):
    """The next exchange with the aggregator; the value is what a step's id on the queue begins with."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    CHECK = "check"
    """The callback has not come by its time: ask for the result."""


@dataclass(frozen=True)
class Submission:
    """The handing over of a request to the aggregator."""

    status: SubmissionStatus
    attempts: int
    next_attempt_at: str | None
    last_error: str | None


@dataclass(frozen=True)
class Retrieval:
    """One request of a person, as the client knows it."""

    request_id: str
    tenant: str
    providers: tuple[str, ...]
    deadline: str
    submission: Submission
    checks: int
    """How often the aggregator was asked for a result whose callback had not come."""
    next_check_at: str | None
    cancel_requested_at: str | None
    cancelled_at: str | None
    outcome: Item | None
    """What the callback said, each job's result replaced by the place where it is kept; None until then."""
    created_at: str
    updated_at: str
    version: int
    newest_key: str

    @property
    def status(self) -> RequestStatus:
        """How far the request is."""
        if self.outcome:
            return RequestStatus(self.outcome["status"])
        if self.cancelled_at:
            return RequestStatus.CANCELLED
        return RequestStatus.FAILED if self.submission.status is SubmissionStatus.REFUSED else RequestStatus.OPEN

    @property
    def ended_at(self) -> str | None:
        """When it ended, if it has."""
        if self.outcome:
            return str(self.outcome["endedAt"])
        if self.submission.status is SubmissionStatus.REFUSED:
            return self.updated_at
        return self.cancelled_at

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def next_step(self) -> NextStep:
        """What is to be done next while it is open."""
        if self.cancel_requested_at:
            return NextStep.CANCEL
        return NextStep.CHECK if self.submission.status is SubmissionStatus.ACCEPTED else NextStep.SUBMIT

    @property
    def next_step_at(self) -> str | None:
        """When; None for at once."""
        return self.next_check_at if self.next_step is NextStep.CHECK else self.submission.next_attempt_at


def retrieval_from_item(item: Mapping[str, Any]) -> Retrieval:
    """The retrieval that an item of the client's table says."""
    submission = item["submission"]
    return Retrieval(
        request_id=item["pk"],
        tenant=tenant_of(item),
        providers=tuple(item["providers"]),
        deadline=item["deadline"],
        submission=Submission(
            SubmissionStatus(submission["status"]),
            submission["attempts"],
            submission.get("nextAttemptAt"),
            submission.get("lastError"),
        ),
        checks=item.get("checks", 0),
        next_check_at=item.get("nextCheckAt"),
        cancel_requested_at=item.get("cancelRequestedAt"),
        cancelled_at=item.get("cancelledAt"),
        outcome=item.get("outcome"),
        created_at=item["createdAt"],
        updated_at=item["updatedAt"],
        version=item["version"],
        newest_key=item["newestKey"],
    )
