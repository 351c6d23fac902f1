"""Heartbeats: the signs of life of workers and the reconciler, on a real Redis."""

from datetime import timedelta

import redis

from persistence.records.timestamps import utc_now
from tests.support.system import eventually
from tests.support.workers.worker_process import StartWorker
from workers.heartbeats import Heartbeats
from workers.queue import QUEUES
from workers.rq_worker.worker import ConcurrentWorker


def heartbeats(connection: "redis.Redis", *, ahead: float = 0) -> Heartbeats:
    return Heartbeats(
        connection,
        QUEUES,
        reconciler_silence=0.3,
        worker_silence=5,
        clock=lambda: utc_now() + timedelta(seconds=ahead),
    )


def test_a_reconciler_is_present_until_its_silence_limit(connection: "redis.Redis") -> None:
    signs = heartbeats(connection)
    assert not signs.is_reconciler_there()

    signs.reconciler_lives()

    assert signs.is_reconciler_there()
    eventually(lambda: not signs.is_reconciler_there())


def test_queues_are_deserted_without_a_living_worker(connection: "redis.Redis", start: StartWorker) -> None:
    signs = heartbeats(connection)
    assert signs.deserted_queues() == list(QUEUES)

    start()

    eventually(lambda: not signs.deserted_queues())
    assert heartbeats(connection, ahead=100).deserted_queues() == list(QUEUES)


def test_a_heartbeat_outlives_the_time_until_the_next(connection: "redis.Redis") -> None:
    lease = 3600
    worker = ConcurrentWorker(QUEUES, connection, concurrency=1, grace=1, lease=lease)

    worker._sign_on()

    assert int(connection.ttl(worker.key)) > lease / 5
