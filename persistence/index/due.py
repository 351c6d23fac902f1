"""The sparse index: which records are open, by the time somebody must next look at them.

A record is in the index while it has the attributes `dueShard` and `dueAt`. Their value may be too early, which costs
one look, but never late by more than the pause that who wrote it allows itself.
"""

import heapq
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from persistence.dynamodb.schema import DUE_INDEX
from persistence.dynamodb.table import Table
from persistence.errors import ConditionFailed
from persistence.index.shards import OPEN, Shards
from persistence.records.tenants import DEFAULT_TENANT, kind_of
from persistence.records.timestamps import to_text

UNDELIVERED = "undelivered"

# Entries that a query answers with at once.
_PAGE = 500


@dataclass(frozen=True, order=True)
class Due:
    """An entry of the index: the item under (`record_id`, `kind`) is due at `due_at`."""

    due_at: str
    record_id: str
    kind: str


class DueIndex:
    """Reads the sparse index of one table. Every method raises Unavailable when DynamoDB cannot answer."""

    def __init__(self, table: Table, shards: Shards) -> None:
        self._table = table
        self._shards = shards
        self.name = table.name

    def shards(self) -> list[str]:
        """The shards of all that is open."""
        return self._shards.names(OPEN)

    def due_in(self, shard: str, now: datetime) -> Iterator[Due]:
        """The entries of one of the shards whose time has come, the longest due first, read as they are asked for."""
        return self._read("#dueShard = :shard AND #dueAt <= :at", shard, now, page=_PAGE)

    def due(self, now: datetime, *, limit: int) -> list[Due]:
        """At most `limit` entries of all shards whose time has come, the longest due first."""
        condition = "#dueShard = :shard AND #dueAt <= :at"
        merged = heapq.merge(*(self._read(condition, shard, now, limit=limit) for shard in self.shards()))
        return list(islice(merged, limit))

    def undelivered(self, since: datetime, *, limit: int, tenant: str = DEFAULT_TENANT) -> list[str]:
        """The ids of at most `limit` of a tenant's requests whose delivery failed since then, the earliest first."""
        condition, shards = "#dueShard = :shard AND #dueAt >= :at", self._shards.names(kind_of(UNDELIVERED, tenant))
        merged = heapq.merge(*(self._read(condition, shard, since, limit=limit) for shard in shards))
        return [entry.record_id for entry in islice(merged, limit)]

    def defer(self, entry: Due, at: datetime) -> None:
        """Move the time of an entry, whatever it is of; nothing happens if that was moved meanwhile."""
        key = {"pk": entry.record_id, "sk": entry.kind}
        values = {"due": to_text(at), "seen": entry.due_at}
        with suppress(ConditionFailed):
            self._table.update(key, "SET #dueAt = :due", condition="#dueAt = :seen", values=values)

    def _read(
        self, condition: str, shard: str, at: datetime, *, limit: int | None = None, page: int | None = None
    ) -> Iterator[Due]:
        values = {"shard": shard, "at": to_text(at)}
        for item in self._table.query(condition, values, index=DUE_INDEX, limit=limit, page=page):
            yield Due(item["dueAt"], item["pk"], item["sk"])
