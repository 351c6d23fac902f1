"""The reconciler's loop: scans the records that are due, and enqueues the steps that are missing on the queue."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Protocol

import redis

from persistence.errors import Unavailable
from persistence.index.due import DueIndex
from persistence.records.timestamps import Clock, utc_now
from persistence.requests import Requests
from persistence.retrievals import Retrievals
from workers.heartbeats import Heartbeats
from workers.queue import Queue
from workers.reconciler.healing import Healing, Scan, Walk
from workers.reconciler.plans import Planner
from workers.reconciler.shard_leases import ShardLeases
from workers.reconciler.thread_crew import Crew

log = logging.getLogger(__name__)

# Seconds between two heartbeats in a long scan and in a long pause.
_BEAT = 1.0
# Seconds between two scans for results that no record needs. None is urgent: each is kept for a day or more.
_COLLECT_PERIOD = 60.0


class Collector(Protocol):
    """Deletes results to which no record refers any more, as `persistence.results.expired` does."""

    def look(self) -> int:
        """Scan the due results, up to a number; returns how many there were. Raises Unavailable."""


class Reconciler:
    """The loop. Any number may run at once: each has its share of the shards, and every write is conditional.

    `period` is the seconds between two scans, `heal_after` the seconds that a step may be late before it counts as
    lost, and `delivery_timeout` the seconds that a receiver has to respond. `collectors` delete the results that no
    record needs, once a minute at most.
    """

    def __init__(
        self,
        requests: Requests,
        retrievals: Retrievals,
        request_index: DueIndex,
        retrieval_index: DueIndex,
        queue: Queue,
        heartbeats: Heartbeats,
        shard_leases: ShardLeases,
        crew: Crew,
        *,
        period: float,
        delivery_timeout: float,
        heal_after: float = 10,
        collectors: Sequence[Collector] = (),
        clock: Clock = utc_now,
    ) -> None:
        planner = Planner(timedelta(seconds=heal_after), timedelta(seconds=delivery_timeout))
        self._healing = Healing(requests, retrievals, queue, crew, planner, clock)
        self._indexes = (request_index, retrieval_index)
        self._queue = queue
        self._heartbeats = heartbeats
        self._shard_leases = shard_leases
        self._period = period
        self._clock = clock
        self._looks = 0
        self._collectors = collectors
        self._collect_at = time.monotonic()
        self._beaten_at = time.monotonic()
        # A signal handler may call its put, unlike the set of an Event.
        self._stop: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Scan again and again, until `stop` is called."""
        while True:
            try:
                found = self.look()
                self._heartbeats.reconciler_lives()
                if found:
                    log.info("put %d steps back on the queue", found)
            except (Unavailable, redis.RedisError) as error:
                log.warning("an engine is away: %s", error)
            if self._is_stopped_within(self._period):
                self._shard_leases.leave()
                return

    def stop(self) -> None:
        """End `run` after the batch under way; a signal handler may call this."""
        self._stop.put(None)

    def look(self) -> int:
        """Scan the permits and all that is due in this reconciler's shards once; returns how many of them it repaired.

        Skips records that cannot be read now. Raises Unavailable when DynamoDB as a whole is away, and at the end
        redis.RedisError when a step could not be enqueued; its record stays due.
        """
        look = Scan()
        walks = deque(self._walks())
        while walks and self._stop.empty():
            walk = walks.popleft()
            if walk.shard in self._shard_leases.held(walk.index.name, walk.shards):
                if self._healing.heal(walk, look):
                    walks.append(walk)
                self._beat(look)
        if look.queue_away:
            raise look.queue_away
        if look.refused:
            raise look.refused[0]
        self._collect()
        return look.put + self._sweep()

    def _sweep(self) -> int:
        try:
            return self._queue.sweep()
        except redis.RedisError as error:
            log.info("permits are not swept until Redis responds: %s", error)
            return 0

    def _collect(self) -> None:
        if time.monotonic() < self._collect_at:
            return
        self._collect_at = time.monotonic() + _COLLECT_PERIOD
        for collector in self._collectors:
            if deleted := collector.look():
                log.info("scanned %d results that may not be needed any more", deleted)

    def _walks(self) -> Iterator[Walk]:
        """One walk for each shard held. Each scan begins with another shard, in case one cannot be read."""
        now = self._clock()
        walks = []
        for index in self._indexes:
            shards = index.shards()
            for shard in self._shard_leases.held(index.name, shards):
                walks.append(Walk(index, shards, shard, index.due_in(shard, now)))
        self._looks += 1
        first = self._looks % len(walks) if walks else 0
        yield from walks[first:]
        yield from walks[:first]

    def _beat(self, look: Scan) -> None:
        if time.monotonic() - self._beaten_at > _BEAT and not (look.queue_away or look.refused):
            self._beaten_at = time.monotonic()
            with suppress(redis.RedisError):
                self._heartbeats.reconciler_lives()

    def _is_stopped_within(self, seconds: float) -> bool:
        """Wait for so many seconds or until `stop` is called; returns whether it was. The shards stay held."""
        until = time.monotonic() + seconds
        while True:
            with suppress(Empty):
                self._stop.get(timeout=max(0.0, min(_BEAT, until - time.monotonic())))
                return True
            if time.monotonic() >= until:
                return False
            self._shard_leases.beat()
