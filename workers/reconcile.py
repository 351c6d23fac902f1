"""Reconcile: looks at what is open and due, and puts on the queue what should be there and is not."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

import redis

from persistence.due import DueIndex
from persistence.dynamodb import Unavailable
from persistence.errors import Conflict, NotFound
from persistence.records import CloseReason, DeliveryStatus, Request, seconds_until
from persistence.requests import Requests
from persistence.retrievals import Retrievals
from persistence.times import Clock, from_text, utc_now
from workers.heartbeats import Heartbeats
from workers.queue import Queue, deliver_step, fetch_steps, needless_job_ids, submit_step

log = logging.getLogger(__name__)

_BATCH = 500
# How long after a look the next one at the same record is taken, if nothing else is due before: a share of its age,
# so that what has been waiting for days costs little, within these bounds.
_SOONEST, _LATEST = timedelta(seconds=30), timedelta(minutes=5)


class Reconciler:
    """The loop. Any number may run at once: putting a step on the queue twice is once, and every write is conditional.

    `period` is the seconds between two looks, `heal_after` those that a step may be late before it counts as lost, and
    `delivery_timeout` those that a callback has to answer.
    """

    def __init__(
        self,
        requests: Requests,
        retrievals: Retrievals,
        request_index: DueIndex,
        retrieval_index: DueIndex,
        queue: Queue,
        heartbeats: Heartbeats,
        *,
        period: float,
        delivery_timeout: float,
        heal_after: float = 10,
        clock: Clock = utc_now,
    ) -> None:
        self._requests = requests
        self._retrievals = retrievals
        self._request_index = request_index
        self._retrieval_index = retrieval_index
        self._queue = queue
        self._heartbeats = heartbeats
        self._period = period
        self._delivery_timeout = timedelta(seconds=delivery_timeout)
        self._heal_after = timedelta(seconds=heal_after)
        self._clock = clock
        # Whether there was more due than one look takes in.
        self._behind = False
        # Unlike an Event, its put is safe in a signal handler.
        self._stop: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Look, again and again, until `stop` is called."""
        while True:
            pause = self._period
            try:
                found = self.look()
                self._heartbeats.reconciler_lives()
                if found:
                    log.info("put %d steps back on the queue", found)
                if self._behind:
                    pause = 0
            except (Unavailable, redis.RedisError) as error:
                log.warning("an engine is away: %s", error)
            with suppress(Empty):
                self._stop.get(timeout=pause)
                return

    def stop(self) -> None:
        """End `run` after the look under way; may be called by a signal handler."""
        self._stop.put(None)

    def look(self) -> int:
        """Look once at what is due, up to a number, and at the permits; returns how many steps and permits it mended.

        Raises Unavailable and redis.RedisError; what is due stays due.
        """
        self._behind = False
        mended = self._queue.sweep()
        mended += self._heal_all(self._request_index, self._heal_request, self._requests.put_off)
        return mended + self._heal_all(self._retrieval_index, self._heal_retrieval, self._retrievals.put_off)

    def _heal_all(self, index: DueIndex, heal: Callable[[str], int], put_off: Callable[[str, datetime], None]) -> int:
        put = 0
        due = index.due(self._clock(), limit=_BATCH)
        for record_id in due:
            try:
                put += heal(record_id)
            except (Unavailable, redis.RedisError):
                raise
            except Exception as error:
                # What has expired may stay for two days until DynamoDB deletes it.
                if not isinstance(error, NotFound):
                    log.exception("%s: cannot be reconciled", record_id)
                # It must not keep the others from being healed, as those that are due for longest come first.
                put_off(record_id, self._clock() + _LATEST)
        self._behind |= len(due) == _BATCH
        return put

    def _heal_request(self, request_id: str) -> int:
        now = self._clock()
        closed = False
        try:
            request = self._requests.get(request_id)
            if not request.ended and not seconds_until(request.deadline, now):
                log.info("%s: deadline reached", request_id)
                request = self._requests.close(request_id, CloseReason.DEADLINE)
                self._queue.drop(*needless_job_ids(request))
                closed = True
        except Conflict:
            # Somebody else has ended it.
            return 0
        if not request.ended:
            steps = fetch_steps(request, now)
        elif request.delivery.status is DeliveryStatus.PENDING:
            steps = [deliver_step(request, at=None if closed else self._first_delivery_over(request, now))]
        else:
            return 0
        put = self._queue.put_missing([step for step in steps if step.at is None or step.at <= now])
        moments = [self._next_look(request.created_at, now)]
        moments += [step.at + self._heal_after for step in steps if step.at and step.at > now]
        moments += [] if request.ended else [from_text(request.deadline)]
        self._requests.look_again(request, min(moments))
        return put

    def _first_delivery_over(self, request: Request, now: datetime) -> datetime | None:
        """When the first delivery is over, if it may not be yet: who ends a request makes it without a step."""
        over = from_text(min(request.ended_at or "", request.updated_at)) + self._delivery_timeout
        return over if request.delivery.attempts == 0 and over > now else None

    def _heal_retrieval(self, request_id: str) -> int:
        now = self._clock()
        retrieval = self._retrievals.get(request_id)
        step = submit_step(retrieval)
        if step.at and step.at > now:
            self._retrievals.look_again(retrieval, step.at + self._heal_after)
            return 0
        put = self._queue.put_missing([step])
        self._retrievals.look_again(retrieval, self._next_look(retrieval.created_at, now))
        return put

    def _next_look(self, created_at: str, now: datetime) -> datetime:
        return now + min(max((now - from_text(created_at)) / 2, _SOONEST), _LATEST)
