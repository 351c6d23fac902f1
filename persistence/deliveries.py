"""Deliveries: how the posting of a request's result goes, kept on the request's own item."""

from datetime import datetime, timedelta
from typing import Any

from persistence.index.due import UNDELIVERED
from persistence.index.shards import OPEN
from persistence.items import Items
from persistence.records.request import DeliveryStatus, Request
from persistence.records.tenants import kind_of
from persistence.records.timestamps import to_text

# A retry raises the round too, so it also tells the revisions apart.
_ROUND = "#delivery.#round = :round"


class Deliveries:
    """The repository of deliveries. `retention` (seconds) is how long a request is kept after its delivery ended.

    Every method raises `persistence.errors.Unavailable` when DynamoDB cannot answer.
    """

    def __init__(self, items: Items[Request], *, retention: float) -> None:
        self._items = items
        self._retention = timedelta(seconds=retention)

    def succeeded(self, request: Request) -> None:
        """The callback URL acknowledged the result: nothing more is due, even if another attempt was the last to fail.

        Raises Conflict when that was known, or when the delivery was started anew or the request retried meanwhile.
        """
        self._items.change(
            request.request_id,
            [
                "#delivery.#status = :status",
                "#delivery.#attempts = #delivery.#attempts + :one",
                "#expiresAt = :expires",
            ],
            {
                "status": DeliveryStatus.SUCCEEDED.value,
                "expires": self._expires_at(),
                "round": request.delivery.round,
            },
            condition=f"#delivery.#status <> :status AND {_ROUND}",
            conflict="has been delivered already, or is delivered anew",
            remove=["#delivery.#nextAttemptAt", "#delivery.#lastError", "#dueShard", "#dueAt"],
        )

    def attempt_failed(self, request: Request, error: str, next_attempt_at: datetime | None) -> None:
        """Count a failed attempt; with no next one the delivery has FAILED and waits to be asked for again.

        Raises Conflict when this attempt was counted before, or belongs to an earlier round.
        """
        changes = ["#delivery.#attempts = #delivery.#attempts + :one", "#delivery.#lastError = :error"]
        remove = []
        values: dict[str, Any] = {
            "error": error,
            "attempts": request.delivery.attempts,
            "round": request.delivery.round,
            "pending": DeliveryStatus.PENDING.value,
        }
        if next_attempt_at:
            changes += ["#delivery.#nextAttemptAt = :next", "#dueAt = :due"]
            values |= {"next": to_text(next_attempt_at), "due": self._items.due_soon(next_attempt_at)}
        else:
            changes += ["#delivery.#status = :status", "#dueShard = :shard", "#dueAt = :now", "#expiresAt = :expires"]
            values |= {"status": DeliveryStatus.FAILED.value, "expires": self._expires_at()}
            values["shard"] = self._items.shards.of(kind_of(UNDELIVERED, request.tenant), request.request_id)
            remove = ["#delivery.#nextAttemptAt"]
        self._items.change(
            request.request_id,
            changes,
            values,
            condition=f"#delivery.#status = :pending AND {_ROUND} AND #delivery.#attempts = :attempts",
            conflict="has been delivered already, or this attempt was counted before",
            remove=remove,
        )

    def start_anew(self, request_id: str, tenant: str | None = None) -> Request:
        """Deliver the result of an ended request again, from the start of the schedule.

        The tenant is None for whoever works for all of them.
        Raises NotFound, and Conflict while the request is open.
        """
        now = self._items.clock()
        self._items.get(request_id, tenant)
        item = self._items.change(
            request_id,
            [
                "#delivery.#status = :pending",
                "#delivery.#attempts = :zero",
                "#delivery.#round = #delivery.#round + :one",
                "#dueShard = :shard",
                "#dueAt = :due",
            ],
            {
                "pending": DeliveryStatus.PENDING.value,
                "zero": 0,
                "shard": self._items.shards.of(OPEN, request_id),
                "due": self._items.due_soon(now),
            },
            condition="#openJobs = :zero",
            conflict="is open: there is no result to deliver yet",
            remove=["#delivery.#nextAttemptAt", "#delivery.#lastError", "#expiresAt"],
        )
        return self._items.parse(item)

    def _expires_at(self) -> int:
        return int((self._items.clock() + self._retention).timestamp())
