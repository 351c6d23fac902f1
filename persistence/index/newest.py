"""The list of a tenant's retrievals, newest first, page by page."""

import base64
import heapq
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from persistence.dynamodb.schema import NEWEST_INDEX
from persistence.dynamodb.table import Item, Table
from persistence.errors import BadCursor
from persistence.index.shards import Shards
from persistence.records.retrieval import KIND, Retrieval, retrieval_from_item
from persistence.records.tenants import DEFAULT_TENANT, kind_of
from persistence.records.timestamps import Clock, to_text

_NEWEST = "newest"
_NEWEST_KEY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z#[A-Za-z0-9_-]{1,64}", re.ASCII)


def newest_first(request_id: str, tenant: str, created_at: datetime, shards: Shards) -> Item:
    """The attributes by which a retrieval is in its tenant's list."""
    return {
        "newestShard": shards.of(kind_of(_NEWEST, tenant), request_id),
        "newestKey": f"{to_text(created_at)}#{request_id}",
    }


class RetrievalList:
    """Reads the lists in one table. It raises `persistence.errors.Unavailable` when DynamoDB cannot answer."""

    def __init__(self, table: Table, shards: Shards, clock: Clock) -> None:
        self._table = table
        self._shards = shards
        self._clock = clock

    def newest(
        self, *, limit: int, cursor: str | None, tenant: str = DEFAULT_TENANT
    ) -> tuple[list[Retrieval], str | None]:
        """At most `limit` (up to 100) of a tenant's retrievals, newest first, from where an earlier list's cursor is.

        Returns them with the next cursor, None at the end. Raises BadCursor.
        """
        before = _read_cursor(cursor) if cursor else "~"  # "~" sorts after every digit

        def read(shard: str) -> Iterator[tuple[str, str]]:
            values = {"shard": shard, "before": before}
            condition = "#newestShard = :shard AND #newestKey < :before"
            for item in self._table.query(condition, values, index=NEWEST_INDEX, limit=limit + 1, newest_first=True):
                yield item["newestKey"], item["pk"]

        merged = heapq.merge(*map(read, self._shards.names(kind_of(_NEWEST, tenant))), reverse=True)
        page = list(islice(merged, limit))
        more = next(merged, None) is not None
        items = self._table.get_many([{"pk": request_id, "sk": KIND} for _, request_id in page])
        now = self._clock().timestamp()
        found = [retrieval_from_item(item) for item in items if item.get("expiresAt", float("inf")) > now]
        found.sort(key=lambda retrieval: retrieval.newest_key, reverse=True)
        return found, _write_cursor(page[-1][0]) if more else None


def _write_cursor(newest_key: str) -> str:
    return base64.urlsafe_b64encode(newest_key.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    # Decoding is lenient, so what it gave must also be what makes this very cursor.
    if not _NEWEST_KEY.fullmatch(text) or _write_cursor(text) != cursor:
        raise BadCursor("this cursor was not given out by this API")
    return text
