"""Reconcile: looks at what is open and due, and puts on the queue what should be there and is not."""

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
from workers.reconciler.healing import Healing, Look, Walk
from workers.reconciler.plans import Planner
from workers.reconciler.shard_leases import ShardLeases
from workers.reconciler.thread_crew import Crew

log = logging.getLogger(__name__)

# Seconds between two signs of life, in a long look and in a long pause.
_BEAT = 1.0
# Seconds between two looks for results that no record needs, each of which is due for a day or more.
_COLLECT_PERIOD = 60.0


class Collector(Protocol):
    """Deletes what nothing refers to any more, as `persistence.results.expired` does."""

    def look(self) -> int:
        """Look at what is due, up to a number; returns how many that were. Raises Unavailable."""


class Reconciler:
    """The loop. Any number may run at once: each takes its share of the shards, and every write is conditional.

    `period` is the seconds between two looks, `heal_after` those that a step may be late before it counts as lost, and
    `delivery_timeout` those that a callback has to answer. `collectors` delete the results that no record needs, once a
    minute at most.
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
        # Unlike an Event, its put is safe in a signal handler.
        self._stop: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Look, again and again, until `stop` is called."""
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
        """End `run` after what is under way; may be called by a signal handler."""
        self._stop.put(None)

    def look(self) -> int:
        """Look once at the permits and at all that is due in this reconciler's shards; returns how many it mended.

        Leaves out what cannot be read now. Raises Unavailable when DynamoDB as a whole is away, and at the end
        redis.RedisError when something could not be put on the queue; what is due stays due.
        """
        look = Look()
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
            log.info("permits are swept once Redis answers: %s", error)
            return 0

    def _collect(self) -> None:
        if time.monotonic() < self._collect_at:
            return
        self._collect_at = time.monotonic() + _COLLECT_PERIOD
        for collector in self._collectors:
            if deleted := collector.look():
                log.info("looked at %d results that may not be needed any more", deleted)

    def _walks(self) -> Iterator[Walk]:
        """One for each shard that is its own; each time another comes first, in case one cannot be read."""
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

    def _beat(self, look: Look) -> None:
        if time.monotonic() - self._beaten_at > _BEAT and not (look.queue_away or look.refused):
            self._beaten_at = time.monotonic()
            with suppress(redis.RedisError):
                self._heartbeats.reconciler_lives()

    def _is_stopped_within(self, seconds: float) -> bool:
        """Whether it is told to stop before so many seconds are over; its share stays its own meanwhile."""
        until = time.monotonic() + seconds
        while True:
            with suppress(Empty):
                self._stop.get(timeout=max(0.0, min(_BEAT, until - time.monotonic())))
                return True
            if time.monotonic() >= until:
                return False
            self._shard_leases.beat()
