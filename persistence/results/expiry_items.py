"""Expiry items: for each result in parts a small item that says how many are stored, and when to look at it next."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from persistence.dynamodb.schema import DUE_INDEX
from persistence.dynamodb.table import Item, Key, Table
from persistence.errors import ConditionFailed, Conflict
from persistence.index.shards import Shards
from persistence.records.timestamps import Clock, to_text, utc_now

# What the sort key of each begins with; the result's id follows.
PREFIX = "result#"
# Their kind in the due index. They wait apart from what is open, often for weeks, and deleting what they stand for may
# not hold up the healing of requests.
_EXPIRING = "expiring"
# Between two looks at one, unless it is known when the record expires; and from the look that finds a result needless
# to the one that deletes it. So who has read the record just before still finds the result, and clocks may differ.
PAUSE = timedelta(days=1)

# Request id, sort key, due time: as the due index has it.
Entry = tuple[str, str, str]


@dataclass(frozen=True)
class Expiry:
    """What an expiry item says of a result in `parts`: for which job of which revision of the request it was stored."""

    request_id: str
    result_id: str
    revision: int
    job: str
    parts: int
    stored: int
    due_at: str
    needless: bool
    """A look, or who stored it, has found that no record refers to it, nor ever will."""


class ExpiryItems:
    """The expiry items of one table. Each method raises `persistence.errors.Unavailable`."""

    def __init__(self, table: Table, shards: Shards, *, clock: Clock = utc_now) -> None:
        self._table = table
        self._shards = shards
        self._clock = clock

    def begin(self, request_id: str, result_id: str, *, revision: int, job: str, parts: int) -> int:
        """Announce a result, before its first part is stored. Returns how many are there from an earlier try.

        Raises Conflict when it was found needless.
        """
        item = {
            **_key(request_id, result_id),
            "revision": revision,
            "job": job,
            "parts": parts,
            "stored": 0,
            "dueShard": self._shards.of(_EXPIRING, result_id),
            "dueAt": to_text(self._clock() + PAUSE),
        }
        try:
            self._table.put(item, condition="attribute_not_exists(#pk)")
        except ConditionFailed:
            there = self.get(request_id, result_id)
            if there is None or there.needless:
                raise Conflict(f"a result of the request {request_id} is not needed any more") from None
            return there.stored
        return 0

    def count(self, request_id: str, result_id: str, stored: int) -> None:
        """Write down that the first `stored` parts are there. Raises Conflict when the result was found needless."""
        try:
            self._table.update(
                _key(request_id, result_id),
                "SET #stored = :stored",
                condition="attribute_exists(#pk) AND attribute_not_exists(#needless)",
                values={"stored": stored},
            )
        except ConditionFailed:
            raise Conflict(f"a result of the request {request_id} is not needed any more") from None

    def get(self, request_id: str, result_id: str) -> Expiry | None:
        """The expiry item of a result, if there is one."""
        item = self._table.get(_key(request_id, result_id))
        return _from_item(item) if item else None

    def look_again(self, request_id: str, result_id: str, at: datetime) -> None:
        """Move the time of the next look; nothing happens if the item is gone."""
        self._change(request_id, result_id, "SET #dueAt = :due REMOVE #needless", at)

    def put_off(self, request_id: str, result_id: str, at: datetime) -> None:
        """The same for one that could not be handled: what is known of it stays."""
        self._change(request_id, result_id, "SET #dueAt = :due", at)

    def needless(self, request_id: str, result_id: str) -> None:
        """Write down that the result is needless: the look after a pause deletes it, if it still finds it so."""
        at = self._clock() + PAUSE
        self._change(request_id, result_id, "SET #dueAt = :due, #needless = :true", at, true=True)

    def delete(self, request_id: str, result_id: str) -> None:
        """Delete the item, of a result whose parts are gone."""
        self._table.delete(_key(request_id, result_id))

    def due(self, now: datetime, *, limit: int) -> list[Entry]:
        """At most `limit` of those that are to be looked at, the longest due first."""

        def read(shard: str) -> Iterator[tuple[str, str, str]]:
            values = {"shard": shard, "at": to_text(now)}
            condition = "#dueShard = :shard AND #dueAt <= :at"
            for item in self._table.query(condition, values, index=DUE_INDEX, limit=limit):
                yield item["dueAt"], item["pk"], item["sk"]

        merged = heapq.merge(*map(read, self._shards.names(_EXPIRING)))
        return [(request_id, kind, due_at) for due_at, request_id, kind in islice(merged, limit)]

    def _change(self, request_id: str, result_id: str, update: str, at: datetime, **values: object) -> None:
        values["due"] = to_text(at)
        try:
            self._table.update(_key(request_id, result_id), update, condition="attribute_exists(#pk)", values=values)
        except ConditionFailed:
            return


def result_id_of(kind: str) -> str:
    """The id of the result whose expiry item has that sort key."""
    return kind.removeprefix(PREFIX)


def _key(request_id: str, result_id: str) -> Key:
    return {"pk": request_id, "sk": PREFIX + result_id}


def _from_item(item: Item) -> Expiry:
    return Expiry(
        request_id=item["pk"],
        result_id=result_id_of(item["sk"]),
        revision=item["revision"],
        job=item["job"],
        parts=item["parts"],
        stored=item["stored"],
        due_at=item["dueAt"],
        needless=item.get("needless", False),
    )
