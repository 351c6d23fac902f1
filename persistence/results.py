"""Results: compressed, kept inline when small, split over items of the same partition when not (400 KB limit)."""

import uuid
import zlib
from typing import Any

from persistence.dynamodb import ConditionFailed, Item, Table

# An item is rewritten by each update of its request, and is paid for by its size, so only small results ride along.
INLINE_LIMIT = 1024
# DynamoDB takes items of up to 400 KB, attribute names and keys included.
CHUNK_SIZE = 380_000


class ResultLost(Exception):
    """A result's parts are not all there: they have expired or were deleted."""


class Results:
    """The results of the requests in one table. Each result is JSON text in UTF-8, given and returned unchanged."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def store(self, request_id: str, text: bytes, *, expires_at: int) -> Item:
        """Keep a result and return where: a small map that belongs in the job's record.

        `expires_at` (epoch seconds) is when DynamoDB may drop the parts that are items of their own.
        Until the map is recorded nothing refers to the parts, so storing twice does no harm.
        """
        packed = zlib.compress(text)
        if len(packed) <= INLINE_LIMIT:
            return {"inline": packed}
        result_id = uuid.uuid4().hex
        parts = [packed[start : start + CHUNK_SIZE] for start in range(0, len(packed), CHUNK_SIZE)]
        for number, part in enumerate(parts):
            self._table.put(
                {"pk": request_id, "sk": _part_key(result_id, number), "part": part, "expiresAt": expires_at}
            )
        return {"id": result_id, "parts": len(parts)}

    def load(self, request_id: str, place: Item) -> bytes:
        """The result kept at the place that `store` returned. Raises ResultLost."""
        if "inline" in place:
            return zlib.decompress(place["inline"])
        items = self._table.query(
            "#pk = :pk AND begins_with(#sk, :sk)", {"pk": request_id, "sk": _part_key(place["id"])}
        )
        parts = [item["part"] for item in items]
        if len(parts) != place["parts"]:
            raise ResultLost(f"{len(parts)} of {place['parts']} parts of a result of {request_id} are there")
        return zlib.decompress(b"".join(parts))

    def discard(self, request_id: str, place: Item) -> None:
        """Delete the parts of a result that nothing refers to."""
        for number in range(place.get("parts", 0)):
            self._table.delete({"pk": request_id, "sk": _part_key(place["id"], number)})

    def keep_until(self, request_id: str, place: Item, expires_at: int) -> None:
        """Move the time (epoch seconds) from which DynamoDB may drop a result's parts. Raises ResultLost."""
        values: dict[str, Any] = {"at": expires_at}
        for number in range(place.get("parts", 0)):
            key = {"pk": request_id, "sk": _part_key(place["id"], number)}
            try:
                self._table.update(key, "SET #expiresAt = :at", condition="attribute_exists(#pk)", values=values)
            except ConditionFailed:
                raise ResultLost(f"part {number} of a result of {request_id} is gone") from None


def in_parts(place: Item) -> bool:
    """Whether the result at a place that `store` returned is kept in items of its own: it may be large."""
    return "parts" in place


def _part_key(result_id: str, number: int | None = None) -> str:
    return f"result#{result_id}#" + ("" if number is None else f"{number:04}")
