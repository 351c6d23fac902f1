"""Results: compressed, kept inline when small, split over items when not (400 KB limit), each with a key of its own.

DynamoDB takes 1,000 write units (1 KB each) a second under one partition key, and a part costs 372 of them, whether it
is written, changed or deleted. So parts have keys of their own, each is written once, and what says how long they are
kept is another, small item (`persistence.results.expiry_items`).
"""

import hashlib
import zlib
from contextlib import suppress
from dataclasses import dataclass

from persistence.dynamodb.table import Item, Key, Table, patiently
from persistence.errors import Conflict, ResultLost, Unavailable
from persistence.index.shards import Shards
from persistence.records.timestamps import Clock, utc_now
from persistence.results.expiry_items import ExpiryItems

# An item is rewritten by each update of its request, and is paid for by its size, so only small results ride along.
INLINE_LIMIT = 1024
# DynamoDB takes items of up to 400 KB, attribute names and keys included.
CHUNK_SIZE = 380_000

# Parts that are read by one call. It may take 100 keys and 16 MB, all of which are in memory three times at once.
_READ_AT_ONCE = 8
# Seconds before what is throttled is tried again. A partition's units come back within a second; who waits has a few.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass
class PendingResult:
    """A result on its way into the table; `Results.store` goes on with it where it stopped. For one thread."""

    request_id: str
    revision: int
    job: str
    packed: bytes
    """The result, compressed."""
    result_id: str
    """Made of all of the above, so that who stores the same again goes on where another process stopped."""
    stored: int | None = None
    """How many parts are there, once that is known."""

    @property
    def parts(self) -> int:
        """Of how many items it is made; 0 when it is kept inline."""
        return 0 if len(self.packed) <= INLINE_LIMIT else -(-len(self.packed) // CHUNK_SIZE)


class Results:
    """The results of the requests in one table. Each result is JSON text in UTF-8, given and returned unchanged."""

    def __init__(self, table: Table, shards: Shards, *, clock: Clock = utc_now) -> None:
        self._table = table
        self._expiries = ExpiryItems(table, shards, clock=clock)

    def begin(self, request_id: str, text: bytes, *, revision: int, job: str) -> PendingResult:
        """Make a result ready to be stored, for a job of a revision of the request; nothing is written yet.

        Two results of the same request, revision and job are the same result if they are the same text.
        """
        packed = zlib.compress(text)
        digest = hashlib.sha256(f"{request_id} {revision} {job} ".encode())
        digest.update(packed)
        return PendingResult(request_id, revision, job, packed, digest.hexdigest()[:32])

    def store(self, pending: PendingResult) -> Item:
        """Keep a result and return where: a small map that belongs in the job's record.

        Raises Unavailable: called again with the same pending result, or with one that `begin` made of the same, it
        goes on with the part that it could not write. Raises Conflict when nobody needs the result any more.

        Until the map is recorded nothing refers to the parts, so storing twice does no harm.
        """
        if not pending.parts:
            return {"inline": pending.packed}
        if pending.stored is None:
            pending.stored = self._begin(pending)
        while pending.stored < pending.parts:
            self._store_part(pending, pending.stored)
        return {"id": pending.result_id, "parts": pending.parts}

    def load(self, request_id: str, place: Item) -> bytes:
        """The result kept at the place that `store` returned. Raises ResultLost."""
        if "inline" in place:
            return zlib.decompress(place["inline"])
        keys = part_keys(request_id, place["id"], place["parts"])
        parts: dict[tuple[str, str], bytes] = {}
        for start in range(0, len(keys), _READ_AT_ONCE):
            for item in self._table.get_many(keys[start : start + _READ_AT_ONCE], pauses=_PAUSES):
                parts[item["pk"], item["sk"]] = item["part"]
        if len(parts) != place["parts"]:
            raise ResultLost(f"{len(parts)} of {place['parts']} parts of a result of {request_id} are there")
        return zlib.decompress(b"".join(parts[key["pk"], key["sk"]] for key in keys))

    def discard(self, request_id: str, place: Item) -> None:
        """Delete the parts of a result that nothing refers to, nor ever will.

        What cannot be deleted now is deleted once its expiry item is looked at.
        """
        if in_parts(place):
            with suppress(Unavailable):
                self._expiries.needless(request_id, place["id"])
                self.delete_parts(request_id, place["id"], place["parts"])

    def delete_parts(self, request_id: str, result_id: str, parts: int) -> None:
        """Delete the parts of a result, those of them that are there."""
        self._table.delete_many(part_keys(request_id, result_id, parts), pauses=_PAUSES)

    def _begin(self, pending: PendingResult) -> int:
        return patiently(
            lambda: self._expiries.begin(
                pending.request_id,
                pending.result_id,
                revision=pending.revision,
                job=pending.job,
                parts=pending.parts,
            ),
            _PAUSES,
        )

    def _store_part(self, pending: PendingResult, number: int) -> None:
        key = part_keys(pending.request_id, pending.result_id, pending.parts)[number]
        part = pending.packed[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        patiently(lambda: self._table.put({**key, "part": part}), _PAUSES)
        pending.stored = number + 1
        try:
            patiently(lambda: self._expiries.count(pending.request_id, pending.result_id, number + 1), _PAUSES)
        except Conflict:
            # All parts were deleted while this process stood still, so nobody would ever delete this one.
            self._table.delete(key)
            raise


def in_parts(place: Item) -> bool:
    """Whether the result at a place that `store` returned is kept in items of its own: it may be large."""
    return "parts" in place


def part_keys(request_id: str, result_id: str, parts: int) -> list[Key]:
    """The keys of a result's parts, in their order."""
    return [{"pk": f"{request_id}#result#{result_id}#{number:04}", "sk": "part"} for number in range(parts)]
