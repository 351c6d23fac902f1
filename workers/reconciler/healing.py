"""Healing: reads a batch of due records, ends requests at their deadlines, and enqueues the steps that are missing."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TypeVar

import redis

from persistence.errors import Conflict, NotFound, Unavailable
from persistence.index.due import Due, DueIndex
from persistence.items import Versioned
from persistence.records.request import CloseReason, Request
from persistence.records.retrieval import KIND, Retrieval
from persistence.records.timestamps import Clock
from persistence.requests import Requests
from persistence.retrievals import Retrievals
from workers.queue import Queue, needless_job_ids
from workers.reconciler.plans import LATEST, SOONEST, Plan, Planner, is_past_deadline
from workers.reconciler.thread_crew import Crew

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Versioned)

# Records in a batch: the most that BatchGetItem reads.
_BATCH = 100
# Queries or whole batches in a row that DynamoDB may refuse before it counts as away.
_REFUSALS = 2
# A record that can be neither read nor deferred is skipped for this many seconds, and this many records at most are.
_SKIPPED_SECONDS, _SKIPPED_RECORDS = 10.0, 10_000


@dataclass
class Walk:
    """The walk through the due entries of one shard of an index. `shards` are all shards of that index."""

    index: DueIndex
    shards: Sequence[str]
    shard: str
    entries: Iterator[Due]


@dataclass
class Scan:
    """The progress of one scan, and its failures."""

    put: int = 0
    queue_away: redis.RedisError | None = None
    refused: list[Unavailable] = field(default_factory=list)
    """The refusals since the last response of DynamoDB."""

    def refuse(self, error: Unavailable) -> None:
        """Record that DynamoDB did not respond. Raises the error when DynamoDB counts as away."""
        self.refused.append(error)
        if len(self.refused) >= _REFUSALS:
            raise error


class Healing:
    """Heals batches. A record that cannot be read or written does not keep others from being healed."""

    def __init__(
        self,
        requests: Requests,
        retrievals: Retrievals,
        queue: Queue,
        crew: Crew,
        planner: Planner,
        clock: Clock,
    ) -> None:
        self._requests = requests
        self._retrievals = retrievals
        self._queue = queue
        self._crew = crew
        self._planner = planner
        self._clock = clock
        self._skipped: dict[tuple[str, Due], float] = {}

    def heal(self, walk: Walk, look: Scan) -> bool:
        """Heal the next batch of the walk; returns whether there may be more.

        Raises Unavailable when DynamoDB counts as away.
        """
        try:
            entries = list(islice(walk.entries, _BATCH))
        except Unavailable as error:
            log.warning("%s: %s is skipped: %s", walk.index.name, walk.shard, error)
            look.refuse(error)
            return False
        wanted = [entry for entry in entries if not self._is_skipped(walk.index, entry)]
        if wanted:
            self._heal(walk.index, wanted, look)
        else:
            look.refused.clear()
        return len(entries) == _BATCH

    def _heal(self, index: DueIndex, entries: Sequence[Due], look: Scan) -> None:
        by_kind: dict[str, list[Due]] = {}
        for entry in entries:
            by_kind.setdefault(entry.kind, []).append(entry)
        for kind, those in by_kind.items():
            if kind == "request":
                self._heal_requests(index, those, look)
            elif kind == KIND:
                self._heal_retrievals(index, those, look)
            else:
                for entry in those:
                    self._defer(index, entry, LookupError(f"no records of the kind {kind} are known"))

    def _heal_requests(self, index: DueIndex, entries: Sequence[Due], look: Scan) -> None:
        now = self._clock()
        found = self._read(index, self._requests.get_due, entries, look)
        late = [entry for entry, request in found.items() if is_past_deadline(request, now)]
        closed = dict(zip(late, self._crew.each(self._close, late), strict=True))
        plans: dict[Due, tuple[Request, Plan]] = {}
        needless: list[str] = []
        for entry, request in found.items():
            ended = closed.get(entry)
            if isinstance(ended, Request):
                needless += needless_job_ids(ended)
                plans[entry] = ended, self._planner.request(ended, now, just_closed=True)
            elif ended is None:
                plans[entry] = request, self._planner.request(request, now)
            elif not isinstance(ended, Conflict):
                # In a conflict, another process has ended the request.
                self._defer(index, entry, ended)
        if needless and look.queue_away is None:
            self._queue.drop(*needless)
        self._carry_out(index, plans, self._requests.look_again, look)

    def _close(self, entry: Due) -> Request:
        log.info("%s: deadline reached", entry.record_id)
        return self._requests.close(entry.record_id, CloseReason.DEADLINE)

    def _heal_retrievals(self, index: DueIndex, entries: Sequence[Due], look: Scan) -> None:
        now = self._clock()
        found = self._read(index, self._retrievals.get_due, entries, look)
        plans = {entry: (retrieval, self._heal_retrieval(retrieval, now)) for entry, retrieval in found.items()}
        self._carry_out(index, plans, self._retrievals.look_again, look)

    def _heal_retrieval(self, retrieval: Retrieval, now: datetime) -> Plan:
        """The plan for a retrieval that has to be submitted or cancelled."""
        return self._planner.retrieval(retrieval, now)

    def _read(
        self,
        index: DueIndex,
        get_due: Callable[[Sequence[Due], datetime], dict[Due, Record | Exception]],
        entries: Sequence[Due],
        look: Scan,
    ) -> dict[Due, Record]:
        """Read the records; those that cannot be read are deferred."""
        try:
            found = get_due(entries, self._clock())
        except Unavailable as error:
            if len(entries) == 1:
                # Perhaps only this record is throttled.
                self._defer(index, entries[0], error)
                return {}
            for entry in entries:
                self._skip(index, entry)
            look.refuse(error)
            return {}
        look.refused.clear()
        failed = [(entry, error) for entry, error in found.items() if isinstance(error, Exception)]
        self._crew.each(lambda failure: self._defer(index, *failure), failed)
        return {entry: record for entry, record in found.items() if not isinstance(record, Exception)}

    def _carry_out(
        self,
        index: DueIndex,
        plans: Mapping[Due, tuple[Record, Plan]],
        look_again: Callable[[Record, datetime], None],
        look: Scan,
    ) -> None:
        steps = [step for _, plan in plans.values() for step in plan.steps]
        if steps and look.queue_away is None:
            try:
                look.put += self._queue.put_missing(steps)
            except redis.RedisError as error:
                look.queue_away = error

        def move(entry: Due) -> None:
            record, plan = plans[entry]
            # A record whose steps are not on the queue stays due.
            if plan.look_at is None or (plan.steps and look.queue_away):
                return
            try:
                look_again(record, plan.look_at)
            except Unavailable as error:
                log.warning("%s: stays due: %s", entry.record_id, error)
                self._skip(index, entry)

        self._crew.each(move, list(plans))

    def _defer(self, index: DueIndex, entry: Due, error: Exception) -> None:
        """Make the entry due again later. The longest due come first, and broken ones would fill each scan."""
        wait = LATEST
        if isinstance(error, Unavailable):
            log.warning("%s: deferred: %s", entry.record_id, error)
            wait = SOONEST
        elif not isinstance(error, NotFound):
            # DynamoDB may take two days to delete an expired record.
            log.error("%s: cannot be reconciled", entry.record_id, exc_info=error)
        try:
            index.defer(entry, self._clock() + wait)
        except Unavailable:
            self._skip(index, entry)

    def _skip(self, index: DueIndex, entry: Due) -> None:
        while len(self._skipped) >= _SKIPPED_RECORDS:
            del self._skipped[next(iter(self._skipped))]
        self._skipped[index.name, entry] = time.monotonic() + _SKIPPED_SECONDS

    def _is_skipped(self, index: DueIndex, entry: Due) -> bool:
        until = self._skipped.get((index.name, entry))
        if until is None:
            return False
        if until < time.monotonic():
            del self._skipped[index.name, entry]
            return False
        return True
