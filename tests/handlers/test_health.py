"""Health: a failed or hanging check is named in bounded time, under any number of calls."""

import asyncio
import threading
import time

import pytest
import redis
from connexion.lifecycle import ConnexionResponse

import handlers.health
from handlers.health import REMEMBERED, Health
from handlers.problems import Problem


def fails() -> None:
    raise redis.ConnectionError("secret.example.com refused")


def ask(health: Health) -> Problem | ConnexionResponse:
    try:
        return asyncio.run(health.ready())
    except Problem as problem:
        return problem


def test_passing_checks_are_ready() -> None:
    response = ask(Health({"redis": lambda: None, "worker": lambda: None}))

    assert isinstance(response, ConnexionResponse)
    assert response.body == b'{"status":"ready","checks":{"redis":"ok","worker":"ok"}}'


def test_a_failed_check_is_named_without_its_error() -> None:
    response = ask(Health({"dynamodb": lambda: None, "redis": fails, "worker": lambda: "nobody listens to a, b"}))

    assert isinstance(response, Problem)
    assert (response.status, response.headers) == (503, {"Retry-After": "2"})
    assert response.detail == "redis: does not answer; worker: nobody listens to a, b"
    assert response.document["checks"] == {"dynamodb": "ok", "redis": "failed", "worker": "failed"}


def test_a_hanging_check_is_abandoned_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.health, "PATIENCE", 0.3)
    released = threading.Event()
    asked: list[None] = []
    now = [0.0]

    def hangs() -> None:
        asked.append(None)
        released.wait(30)

    health = Health({"dynamodb": hangs, "redis": lambda: None}, clock=lambda: now[0])
    responses = []
    for _ in range(3):
        began = time.monotonic()
        responses.append(ask(health))
        assert time.monotonic() - began < 10
        now[0] += REMEMBERED
    released.set()

    for response in responses:
        assert isinstance(response, Problem)
        assert response.document["checks"] == {"dynamodb": "failed", "redis": "ok"}
    assert len(asked) == 1


def test_concurrent_calls_share_one_check_for_a_second() -> None:
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
