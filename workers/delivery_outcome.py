"""Delivery outcomes: the outcome of one attempt to deliver, as text for a job that writes it later."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from persistence.records.request import DeliveryStatus, Request


@dataclass(frozen=True)
class Outcome:
    """The receiver acknowledged the result if `error` is None; `next_attempt_at` is None if no attempt follows.

    `round` and `attempts` are those of the delivery before the attempt.
    """

    round: int
    attempts: int
    error: str | None
    next_attempt_at: str | None

    @classmethod
    def of(cls, request: Request, *, error: str | None = None, next_attempt_at: str | None = None) -> Self:
        """The outcome of the attempt that is next for the request."""
        return cls(request.delivery.round, request.delivery.attempts, error, next_attempt_at)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a text that `to_text` returned."""
        return cls(**json.loads(text))

    def to_text(self) -> str:
        """The outcome as JSON."""
        return json.dumps(asdict(self))

    def is_next_of(self, request: Request) -> bool:
        """Whether the outcome must still be written. An acknowledgement must, even after another attempt has failed."""
        delivery = request.delivery
        if self.round != delivery.round:
            return False
        if self.error is None:
            return delivery.status is not DeliveryStatus.SUCCEEDED
        return delivery.status is DeliveryStatus.PENDING and self.attempts == delivery.attempts
