"""The record of a job: one provider's part of a request, and its next attempt."""

from dataclasses import dataclass
from enum import StrEnum

from persistence.dynamodb.table import Item


class JobStatus(StrEnum):
    """How far one provider's job is; between attempts it stays INIT."""

    INIT = "INIT"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Job:
    """One provider's part of a request."""

    index: int
    provider: str
    url: str
    status: JobStatus
    attempts: int
    next_attempt_at: str | None
    last_error: str | None
    ended_at: str | None
    result: Item | None
    """Where the result is kept (see `persistence.results.store`); None until DONE."""


@dataclass(frozen=True)
class Attempt:
    """The next attempt of a job: what it takes to make it, and to write down what came of it."""

    request_id: str
    provider: str
    index: int
    made: int
    """Attempts that were made before this one."""
    revision: int
    deadline: str
