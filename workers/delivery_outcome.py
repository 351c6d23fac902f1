"""Delivery outcomes: what came of one attempt to deliver, in a form that a job can be given to write down."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from persistence.records.request import DeliveryStatus, Request


@dataclass(frozen=True)
class Outcome:
    """Acknowledged when there is no `error`; else to be made again at a time, or given up when there is none.

    `round` and `attempts` are those of the delivery when the attempt was made.
    """

    round: int
    attempts: int
    error: str | None
    next_attempt_at: str | None

    @classmethod
    def of(cls, request: Request, *, error: str | None = None, next_attempt_at: str | None = None) -> Self:
        """The outcome of the attempt that was next for the request."""
        return cls(request.delivery.round, request.delivery.attempts, error, next_attempt_at)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `to_text` returned."""
        return cls(**json.loads(text))

    def to_text(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self))

    def is_next_of(self, request: Request) -> bool:
        """Whether the outcome is still to be written. An acknowledgement is, even if another attempt has failed."""
        delivery = request.delivery
        if self.round != delivery.round:
            return False
        if self.error is None:
            return delivery.status is not DeliveryStatus.SUCCEEDED
        return delivery.status is DeliveryStatus.PENDING and self.attempts == delivery.attempts
