"""The shards: over how many partitions the records of a table's indexes are spread, now and ever before."""

import math
import zlib

from persistence.dynamodb.table import Table
from persistence.errors import ConditionFailed

OPEN = "open"

# An index partition of AWS takes 1,000 writes a second. What is open is written into the index and out of it again, and
# read by reconcilers; what people list is written once, and each list reads every shard.
_OPEN_TO_LISTED = 16
# How many shards of either kind a table has in which no number is kept: one from before numbers were.
_UNTOLD = 4
_KEY = {"pk": "shards", "sk": "shards"}


class Shards:
    """The shards of one table. `count` is how many new records of kind OPEN are spread over; of others, a sixteenth.

    A record keeps its shard. So the table keeps the largest numbers that any process ever wrote with, which are raised
    before the first write; readers read so many. Raising and lowering the count loses nothing, at any time.

    Every method raises `persistence.errors.Unavailable` when DynamoDB cannot answer.
    """

    def __init__(self, table: Table, count: int) -> None:
        self._table = table
        self._own = (count, listed(count))
        self._is_told = False

    def of(self, kind: str, record_id: str) -> str:
        """The shard for a new entry of a kind, such as OPEN, which may be one tenant's (`records.tenants`)."""
        if not self._is_told:
            self.tell()
            self._is_told = True
        return shard_of(kind, record_id, self._own[kind != OPEN])

    def names(self, kind: str) -> list[str]:
        """All shards in which there may be entries of the kind."""
        stored = self._stored()[kind != OPEN]
        return [f"{kind}#{number}" for number in range(max(stored, self._own[kind != OPEN]))]

    def tell(self, *, new: bool = False) -> None:
        """Raise the numbers kept in the table to this process's. A `new` table has never had others."""
        while True:
            before = self._stored(untold=0 if new else _UNTOLD)
            wanted = tuple(map(max, before, self._own))
            if wanted == before:
                return
            try:
                self._table.put(
                    _KEY | {"open": wanted[0], "listed": wanted[1]},
                    condition="attribute_not_exists(#pk) OR (#open = :open AND #listed = :listed)",
                    values={"open": before[0], "listed": before[1]},
                )
            except ConditionFailed:
                # Another has raised them at the same moment.
                continue
            return

    def _stored(self, untold: int = _UNTOLD) -> tuple[int, int]:
        item = self._table.get(_KEY)
        return (item["open"], item["listed"]) if item else (untold, untold)


def listed(count: int) -> int:
    """How many shards of the other kinds go with so many of kind OPEN."""
    return math.ceil(count / _OPEN_TO_LISTED)


def shard_of(kind: str, record_id: str, count: int) -> str:
    """The one of `count` shards to which a record belongs."""
    return f"{kind}#{zlib.crc32(record_id.encode()) % count}"
