"""Items that are records: read, written first, and changed by condition, in the one way that every repository uses."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from persistence.due import OPEN, shard_of
from persistence.dynamodb import ConditionFailed, Item, Table
from persistence.errors import Conflict, NotFound
from persistence.times import Clock, to_text, utc_now


class Versioned(Protocol):
    """A record that says which request it is of, whose, and whether it has ended, and counts its writes."""

    @property
    def request_id(self) -> str:
        """The request's id."""

    @property
    def tenant(self) -> str:
        """Whose it is, for ever."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""

    @property
    def version(self) -> int:
        """How often the record was written."""


Record = TypeVar("Record", bound=Versioned)

# DynamoDB deletes what has expired only within days, so an expired item counts as gone.
_GONE = "attribute_not_exists(#pk) OR #expiresAt <= :epoch"
_THERE = "attribute_exists(#pk) AND (attribute_not_exists(#expiresAt) OR #expiresAt > :epoch)"


class Items(Generic[Record]):
    """The items of one kind in a table: one for each request, under (requestId, kind).

    `parse` makes the record of an item. `heal_after` (seconds) is how long a step that was written down may wait for
    its place on the queue before the reconciler looks at the record.
    """

    def __init__(
        self,
        table: Table,
        kind: str,
        parse: Callable[[Mapping[str, Any]], Record],
        *,
        heal_after: float = 10,
        clock: Clock = utc_now,
    ) -> None:
        self._table = table
        self._kind = kind
        self.parse = parse
        self._heal_after = timedelta(seconds=heal_after)
        self.clock = clock

    def get(self, request_id: str, tenant: str | None = None) -> Record:
        """The request as it is now; the tenant is None for whoever works for all of them.

        Raises NotFound, also for another tenant's: nobody is to learn that it is there.
        """
        item = self._table.get(self._key(request_id))
        record = self.parse(item) if item and not self._is_gone(item) else None
        if record is None or tenant not in (None, record.tenant):
            raise NotFound(f"no request {request_id}")
        return record

    def still_open(self, tenant: str, request_ids: Sequence[str]) -> set[str]:
        """Those of at most 100 requests that are the tenant's and have not ended."""
        items = self._table.get_many([self._key(request_id) for request_id in request_ids])
        records = [self.parse(item) for item in items if not self._is_gone(item)]
        return {record.request_id for record in records if record.tenant == tenant and not record.ended}

    def put_new(self, request_id: str, facts: Item) -> Record:
        """Write the first version of a request, due soon unless the facts say when.

        Raises ConditionFailed when there is one already.
        """
        now = self.clock()
        item = {
            **self._key(request_id),
            "version": 1,
            "createdAt": to_text(now),
            "updatedAt": to_text(now),
            "dueShard": shard_of(OPEN, request_id),
            "dueAt": self.due_soon(now),
            **facts,
        }
        self._table.put(item, condition=_GONE, values={"epoch": int(now.timestamp())})
        return self.parse(item)

    def change(
        self,
        request_id: str,
        changes: Sequence[str],
        values: Mapping[str, Any],
        *,
        condition: str,
        conflict: str,
        remove: Sequence[str] = (),
        add: Sequence[str] = (),
    ) -> Mapping[str, Any]:
        """Change the item in one write if the condition holds; the values `:now` and `:one` are given.

        Returns the item as it is then, of which `parse` makes the record.
        Raises NotFound, and Conflict with the given words when the condition does not hold.
        """
        update = "SET " + ", ".join([*changes, "#updatedAt = :now"])
        update += (" REMOVE " + ", ".join(remove)) if remove else ""
        update += " ADD " + ", ".join([*add, "#version :one"])
        now = self.clock()
        values = {"now": to_text(now), "epoch": int(now.timestamp()), "one": 1, **values}
        condition = f"{_THERE} AND ({condition})"
        try:
            return self._table.update(
                self._key(request_id), update, condition=condition, values=values, returned="ALL_NEW"
            )
        except ConditionFailed:
            self.get(request_id)
            raise Conflict(f"the request {request_id} {conflict}") from None

    def look_again(self, record: Record, at: datetime) -> None:
        """Move the time at which the reconciler looks next; nothing happens if the record changed meanwhile.

        To the others it is no change: the version stays.
        """
        self._move_due(record.request_id, at, "#version = :version", version=record.version)

    def put_off(self, request_id: str, at: datetime) -> None:
        """The same for what cannot be read; nothing happens if nobody is to look at it."""
        self._move_due(request_id, at, "attribute_exists(#dueAt)")

    def due_soon(self, moment: datetime) -> str:
        """When the reconciler must look at a step that should be taken at the given moment."""
        return to_text(moment + self._heal_after)

    def _move_due(self, request_id: str, at: datetime, condition: str, **values: Any) -> None:
        values["due"] = to_text(at)
        with suppress(ConditionFailed):
            self._table.update(self._key(request_id), "SET #dueAt = :due", condition=condition, values=values)

    def _is_gone(self, item: Item) -> bool:
        return bool(item.get("expiresAt", float("inf")) <= self.clock().timestamp())

    def _key(self, request_id: str) -> dict[str, str]:
        return {"pk": request_id, "sk": self._kind}
