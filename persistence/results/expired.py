"""Expired results: deletes the parts of results that no record refers to any more, nor ever will."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from persistence.dynamodb.table import Table
from persistence.errors import Unavailable
from persistence.index.shards import Shards
from persistence.records.job import JobStatus
from persistence.records.request import Request
from persistence.records.retrieval import Retrieval
from persistence.records.timestamps import Clock, to_text, utc_now
from persistence.results.expiry_items import PAUSE, Entry, Expiry, ExpiryItems, result_id_of
from persistence.results.store import Results

log = logging.getLogger(__name__)

Record = TypeVar("Record")

_BATCH = 100
# How long one that cannot be deleted is put off, and after how many of them in a row a look ends.
_TROUBLE, _MOST_IN_TROUBLE = timedelta(minutes=5), 3


class ExpiredResults(Generic[Record]):
    """Looks at the expiry items of one table, whose records are of a `kind` (their sort key) that `parse` reads.

    `needs` tells whether a record refers to a result or may yet. Any number of these may run at once.
    """

    def __init__(
        self,
        table: Table,
        shards: Shards,
        kind: str,
        parse: Callable[[Mapping[str, Any]], Record],
        needs: Callable[[Record, Expiry], bool],
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._table = table
        self._kind = kind
        self._parse = parse
        self._needs = needs
        self._clock = clock
        self._results = Results(table, shards, clock=clock)
        self._expiries = ExpiryItems(table, shards, clock=clock)

    def look(self) -> int:
        """Handle what is due, up to a number, and return how many that were.

        One that cannot be handled is put off. Raises Unavailable when several in a row cannot.
        """
        now, failures = self._clock(), 0
        due = self._expiries.due(now, limit=_BATCH)
        for entry in due:
            try:
                self.handle(entry, now)
                failures = 0
            except Exception as error:
                failures += 1
                if failures == _MOST_IN_TROUBLE and isinstance(error, Unavailable):
                    raise
                log.warning("%s: its result cannot be deleted: %s", entry[0], error)
                with suppress(Unavailable):
                    self._expiries.put_off(entry[0], result_id_of(entry[1]), now + _TROUBLE)
        return len(due)

    def handle(self, entry: Entry, now: datetime) -> None:
        """Look at the expiry item that an entry (request id, sort key, due time) of the due index names.

        While a record needs the result, the next look is when that expires. What no record needs is deleted at the
        second look that finds it so. Raises Unavailable; called again, it deletes what is left.
        """
        request_id, kind, _ = entry
        result_id = result_id_of(kind)
        expiry = self._expiries.get(request_id, result_id)
        if expiry is None or expiry.due_at > to_text(now):
            # Somebody else has looked.
            return
        needed_until = self._needed_until(expiry, now)
        if needed_until is not None:
            self._expiries.look_again(request_id, result_id, needed_until)
        elif not expiry.needless:
            self._expiries.needless(request_id, result_id)
        else:
            self._results.delete_parts(request_id, result_id, expiry.parts)
            self._expiries.delete(request_id, result_id)

    def _needed_until(self, expiry: Expiry, now: datetime) -> datetime | None:
        """When to look whether it is still needed; None when it is not."""
        item = self._table.get({"pk": expiry.request_id, "sk": self._kind})
        if item is None or item.get("expiresAt", float("inf")) <= now.timestamp():
            return None
        if not self._needs(self._parse(item), expiry):
            return None
        return datetime.fromtimestamp(item["expiresAt"], UTC) if "expiresAt" in item else now + PAUSE


def needed_by_request(request: Request, expiry: Expiry) -> bool:
    """Whether one of its jobs has the result, or an attempt that stores it may still end its job.

    An attempt ends its job only while that is INIT, in the revision that the attempt began in.
    """
    if any(job.result and job.result.get("id") == expiry.result_id for job in request.jobs):
        return True
    index = int(expiry.job.split()[0])
    still_open = any(job.index == index and job.status is JobStatus.INIT for job in request.jobs)
    return still_open and request.revision == expiry.revision


def needed_by_retrieval(retrieval: Retrieval, expiry: Expiry) -> bool:
    """Whether its outcome has the result, or the callback that brought it may still become its outcome."""
    if retrieval.outcome is None:
        return True
    kept = [job.get("result", {}).get("id") for job in retrieval.outcome["jobs"]]
    return expiry.result_id in kept or bool(retrieval.outcome["revision"] < expiry.revision)
