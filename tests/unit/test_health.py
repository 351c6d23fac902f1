"""Health: what fails or hangs is named in bounded time, however many ask; and the signs of life, on a real Redis."""

import asyncio
import threading
import time
from datetime import timedelta

import pytest
import redis
from connexion.lifecycle import ConnexionResponse

import handlers.health
from handlers.health import REMEMBERED, Health
from handlers.problems import Problem
from persistence.records.timestamps import utc_now
from tests.support.system import eventually
from tests.support.workers.worker_process import StartWorker
from workers.heartbeats import Heartbeats
from workers.queue import QUEUES
from workers.rq_worker.worker import ConcurrentWorker


def fails() -> None:
    raise redis.ConnectionError("secret.example.com refused")


def ask(health: Health) -> Problem | ConnexionResponse:
    try:
        return asyncio.run(health.ready())
    except Problem as problem:
        return problem


def test_what_is_well_is_ready() -> None:
    answer = ask(Health({"redis": lambda: None, "worker": lambda: None}))

    assert isinstance(answer, ConnexionResponse)
    assert answer.body == b'{"status":"ready","checks":{"redis":"ok","worker":"ok"}}'


def test_what_is_not_well_is_named_and_its_error_is_not_shown() -> None:
    answer = ask(Health({"dynamodb": lambda: None, "redis": fails, "worker": lambda: "nobody listens to a, b"}))

    assert isinstance(answer, Problem)
    assert (answer.status, answer.headers) == (503, {"Retry-After": "2"})
    assert answer.detail == "redis: does not answer; worker: nobody listens to a, b"
    assert answer.document["checks"] == {"dynamodb": "ok", "redis": "failed", "worker": "failed"}


def test_what_hangs_is_given_up_on_holds_up_no_other_and_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.health, "PATIENCE", 0.3)
    released = threading.Event()
    asked: list[None] = []
    now = [0.0]

    def hangs() -> None:
        asked.append(None)
        released.wait(30)

    health = Health({"dynamodb": hangs, "redis": lambda: None}, clock=lambda: now[0])
    answers = []
    for _ in range(3):
        began = time.monotonic()
        answers.append(ask(health))
        assert time.monotonic() - began < 10
        now[0] += REMEMBERED
    released.set()

    for answer in answers:
        assert isinstance(answer, Problem)
        assert answer.document["checks"] == {"dynamodb": "failed", "redis": "ok"}
    assert len(asked) == 1


def test_many_who_ask_are_answered_by_one_look_and_later_by_another() -> None:
    looks: list[None] = []
    now = [0.0]
    health = Health({"redis": lambda: looks.append(None)}, clock=lambda: now[0])

    async def many() -> None:
        await asyncio.gather(*(health.ready() for _ in range(50)))
        assert len(looks) == 1
        now[0] = REMEMBERED
        await health.ready()
        assert len(looks) == 2

    asyncio.run(many())


def heartbeats(connection: "redis.Redis", *, ahead: float = 0) -> Heartbeats:
    return Heartbeats(
        connection,
        QUEUES,
        reconciler_silence=0.3,
        worker_silence=5,
        clock=lambda: utc_now() + timedelta(seconds=ahead),
    )


def test_a_reconciler_is_there_for_as_long_as_it_may_be_silent(connection: "redis.Redis") -> None:
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


def test_rq_keeps_a_heartbeat_for_longer_than_it_takes_until_the_next(connection: "redis.Redis") -> None:
    lease = 3600
    worker = ConcurrentWorker(QUEUES, connection, concurrency=1, grace=1, lease=lease)

    worker._sign_on()

    assert int(connection.ttl(worker.key)) > lease / 5
