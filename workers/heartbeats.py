"""Heartbeats: tells from Redis which workers and reconcilers are alive."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import redis
from rq.worker import Worker

from persistence.records.timestamps import Clock, utc_now

_RECONCILER = "datahog:reconciler"


class Heartbeats:
    """Writes and reads heartbeats. Every method raises redis.RedisError.

    A reconciler counts as dead after `reconciler_silence` seconds without a heartbeat, a worker after `worker_silence`.
    """

    def __init__(
        self,
        connection: "redis.Redis",
        queues: Sequence[str],
        *,
        reconciler_silence: float,
        worker_silence: float,
        clock: Clock = utc_now,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._reconciler_silence = reconciler_silence
        self._worker_silence = worker_silence
        self._clock = clock

    def reconciler_lives(self) -> None:
        """Write the heartbeat of a reconciler."""
        # The key expires by the clock of Redis, so that no two clocks are compared.
        self._connection.set(_RECONCILER, "", px=int(self._reconciler_silence * 1000))

    def is_reconciler_there(self) -> bool:
        """Whether a reconciler has written a heartbeat recently."""
        return bool(self._connection.exists(_RECONCILER))

    def deserted_queues(self) -> list[str]:
        """The queues to which no live worker listens."""
        served = {name for queues in self._living() for name in queues}
        return [name for name in self._queues if name not in served]

    def _living(self) -> Iterator[list[str]]:
        keys = Worker.all_keys(connection=self._connection)
        pipeline = self._connection.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key, "last_heartbeat", "queues")
        for heartbeat, queues in pipeline.execute():
            if heartbeat and queues and self._age(heartbeat.decode()) <= self._worker_silence:
                yield queues.decode().split(",")

    def _age(self, heartbeat: str) -> float:
        """Seconds since a time in RQ's format."""
        return (self._clock() - datetime.fromisoformat(heartbeat).astimezone(UTC)).total_seconds()
