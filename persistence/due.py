"""The sparse index: which records are open, by the time somebody must next look at them.

A record is in the index while it has the attributes `dueShard` and `dueAt`. Their value may be too early, which costs
one look, but never late by more than the pause that who wrote it allows itself.
"""

import heapq
import zlib
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from persistence.dynamodb import Table
from persistence.tables import DUE_INDEX
from persistence.tenants import DEFAULT_TENANT, kind_of
from persistence.times import to_text

# One index partition takes 1,000 writes a second on AWS; each record keeps to one shard.
SHARDS = 4

OPEN = "open"
UNDELIVERED = "undelivered"
# The expiry items of results (`persistence.expiry_items`). They wait apart from what is open, often for weeks, and
# deleting what they stand for may not hold up the healing of requests.
EXPIRING = "expiring"


def shard_of(kind: str, record_id: str) -> str:
    """The index partition of a record of a kind, such as OPEN, which may be one tenant's (`persistence.tenants`)."""
    return f"{kind}#{zlib.crc32(record_id.encode()) % SHARDS}"


class DueIndex:
    """Reads the sparse index of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def due(self, now: datetime, *, limit: int) -> list[str]:
        """The ids of at most `limit` open records whose time has come, the longest due first."""
        return self._read("#dueShard = :shard AND #dueAt <= :at", OPEN, now, limit)

    def undelivered(self, since: datetime, *, limit: int, tenant: str = DEFAULT_TENANT) -> list[str]:
        """The ids of at most `limit` of a tenant's requests whose delivery failed since then, the earliest first."""
        return self._read("#dueShard = :shard AND #dueAt >= :at", kind_of(UNDELIVERED, tenant), since, limit)

    def _read(self, condition: str, kind: str, at: datetime, limit: int) -> list[str]:
        def shard(number: int) -> Iterator[tuple[str, str]]:
            values = {"shard": f"{kind}#{number}", "at": to_text(at)}
            for item in self._table.query(condition, values, index=DUE_INDEX, limit=limit):
                yield item["dueAt"], item["pk"]

        merged = heapq.merge(*(shard(number) for number in range(SHARDS)))
        return [record_id for _, record_id in islice(merged, limit)]
