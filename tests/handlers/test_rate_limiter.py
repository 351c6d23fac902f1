"""The rate limit: counts calls per key, tells callers how long to wait, and lets them in while Redis is away."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from handlers.access.callers import Caller
from handlers.access.rate_limiter import WINDOW, RateLimit
from handlers.problems import Problem
from workers.redis_breaker import PAUSE, RedisBreaker

_ADA, _BOB = Caller("ada", "acme"), Caller("bob", "acme")


class Limiter:
    """Replaces the limiter of `limits`: allows three calls of each key, and can be unavailable."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.away = False
        self.now = 0.0

    async def hit(self, _window: Any, _name: str, key_id: str) -> bool:
        self.hits.append(key_id)
        if self.away:
            raise redis.ConnectionError("away")
        return self.hits.count(key_id) <= 3

    async def get_window_stats(self, *_: Any) -> Any:
        return SimpleNamespace(reset_time=self.now + 4.2)


@pytest.fixture
def limiter(monkeypatch: pytest.MonkeyPatch) -> Limiter:
    made = Limiter()
    monkeypatch.setattr("time.time", lambda: made.now)
    return made


@pytest.fixture
def limit(limiter: Limiter) -> RateLimit:
    def clock() -> float:
        return limiter.now

    return RateLimit(cast(Any, limiter), "aggregator", rate=1, breaker=RedisBreaker(clock=clock), clock=clock)


def _wait(limit: RateLimit, caller: Caller = _ADA) -> int | None:
    """Returns the seconds that the caller must wait, or None when the call is accepted."""
    try:
        asyncio.run(limit.count(caller))
    except Problem as problem:
        return int(problem.headers["Retry-After"])
    return None


def test_a_call_over_the_limit_is_told_how_long_to_wait(limit: RateLimit) -> None:
    # Redis reports 4.2 s; the window may end up to half a second later.
    assert [_wait(limit) for _ in range(4)] == [None, None, None, 6]
    assert _wait(limit, _BOB) is None
    with pytest.raises(Problem, match=f"1 calls a second, {WINDOW} in {WINDOW} s; wait 6 s") as refused:
        asyncio.run(limit.count(_ADA))
    assert refused.value.status == 429


def test_a_refused_caller_causes_no_further_redis_calls(limit: RateLimit, limiter: Limiter) -> None:
    for _ in range(4):
        _wait(limit)
    limiter.now += 2

    assert [_wait(limit) for _ in range(100)] == [4] * 100
    assert len(limiter.hits) == 4

    limiter.now += 3.5
    limiter.hits.clear()
    assert _wait(limit) is None


def test_an_unlimited_key_is_not_counted(limit: RateLimit, limiter: Limiter) -> None:
    assert [_wait(limit, Caller("client", "client", unlimited=True)) for _ in range(9)] == [None] * 9
    assert limiter.hits == []


def test_calls_pass_and_redis_is_asked_rarely_while_away(
    limit: RateLimit, limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    limiter.away = True

    with caplog.at_level(logging.INFO, "workers.redis_breaker"):
        assert [_wait(limit) for _ in range(9)] == [None] * 9
        limiter.now += PAUSE
        assert [_wait(limit) for _ in range(9)] == [None] * 9
        assert len(limiter.hits) == 2
        limiter.away = False
        limiter.now += PAUSE
        limiter.hits.clear()
        assert [_wait(limit) for _ in range(4)] == [None, None, None, 6]

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
