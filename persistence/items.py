"""Items that are records: read, written first, and changed by condition, in the one way that every repository uses."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from persistence.dynamodb.table import Item, Table
from persistence.errors import ConditionFailed, Conflict, NotFound, Unavailable
from persistence.index.due import Due
from persistence.index.shards import OPEN, Shards
from persistence.records.timestamps import Clock, to_text, utc_now


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

    `parse` makes the record of an item, `shards` are those of the table's indexes. `heal_after` (seconds) is how long a
    step that was written down may wait for its place on the queue before the reconciler looks at the record.
    """

    def __init__(
        self,
        table: Table,
        kind: str,
        parse: Callable[[Mapping[str, Any]], Record],
        *,
        shards: Shards,
        heal_after: float = 10,
        clock: Clock = utc_now,
    ) -> None:
        self._table = table
        self._kind = kind
        self.parse = parse
        self.shards = shards
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

    def get_due(self, entries: Sequence[Due], now: datetime) -> dict[Due, Record | Exception]:
        """The records of at most 100 entries that are still due, or why each could not be had.

        That is NotFound for what has expired, Unavailable for what DynamoDB would not read now, or what `parse` raised.
        Raises Unavailable when DynamoDB would read none of them.
        """
        items, unread = self._table.get_available([self._key(entry.record_id) for entry in entries])
        there = {item["pk"]: item for item in items}
        without = {key["pk"] for key in unread}
        found: dict[Due, Record | Exception] = {}
        for entry in entries:
            if entry.record_id in without:
                found[entry] = Unavailable(f"DynamoDB: {entry.record_id} is not read, however often it is asked for")
                continue
            item = there.get(entry.record_id)
            # The index may be behind, and what it said is a while ago.
            if item and item.get("dueAt", "~") <= to_text(now):
                found[entry] = self._parse_due(item)
        return found

    def _parse_due(self, item: Mapping[str, Any]) -> Record | Exception:
        if self._is_gone(item):
            return NotFound(f"no request {item['pk']}")
        try:
            return self.parse(item)
        except Exception as error:
            return error

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
            "dueShard": self.shards.of(OPEN, request_id),
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
        item = self.change_if(request_id, changes, values, condition=condition, remove=remove, add=add)
        if item is None:
            self.get(request_id)
            raise Conflict(f"the request {request_id} {conflict}")
        return item

    def change_if(
        self,
        request_id: str,
        changes: Sequence[str],
        values: Mapping[str, Any],
        *,
        condition: str,
        remove: Sequence[str] = (),
        add: Sequence[str] = (),
    ) -> Mapping[str, Any] | None:
        """The same; returns None when the condition does not hold, or the item is not there."""
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
            return None

    def look_again(self, record: Record, at: datetime) -> None:
        """Move the time at which the reconciler looks next; nothing happens if the record changed meanwhile.

        To the others it is no change: the version stays.
        """
        values = {"due": to_text(at), "version": record.version}
        with suppress(ConditionFailed):
            self._table.update(
                self._key(record.request_id), "SET #dueAt = :due", condition="#version = :version", values=values
            )

    def due_soon(self, moment: datetime) -> str:
        """When the reconciler must look at a step that should be taken at the given moment."""
        return to_text(moment + self._heal_after)

    def _is_gone(self, item: Mapping[str, Any]) -> bool:
        return bool(item.get("expiresAt", float("inf")) <= self.clock().timestamp())

    def _key(self, request_id: str) -> dict[str, str]:
        return {"pk": request_id, "sk": self._kind}
