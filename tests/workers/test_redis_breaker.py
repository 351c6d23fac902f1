"""The circuit breaker of Redis: it opens for all calls, probes seldom, and closes when Redis responds."""

import logging
import threading
from contextlib import suppress

import pytest
import redis

from workers.redis_breaker import PAUSE, SUSPICIOUS, RedisBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> RedisBreaker:
    return RedisBreaker(clock=clock)


def asks(breaker: RedisBreaker, error: Exception | None = None, consequence: str = "no limit holds") -> bool:
    """Makes a call to Redis, which fails with `error` or responds; returns whether the breaker let it through."""
    with breaker.tolerated(consequence) as may_ask:
        if may_ask and error:
            raise error
    return may_ask


@pytest.mark.parametrize("error", [redis.TimeoutError("hangs"), redis.ConnectionError("away")])
def test_a_call_without_a_response_opens_the_breaker_for_all(breaker: RedisBreaker, error: Exception) -> None:
    assert asks(breaker, error)

    assert [asks(breaker, consequence=f"purpose {number}") for number in range(5)] == [False] * 5


def test_an_open_breaker_lets_a_single_probe_through(breaker: RedisBreaker, clock: Clock) -> None:
    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE

    with breaker.tolerated("the probe") as may_ask:
        assert may_ask
        assert [asks(breaker) for _ in range(3)] == [False] * 3

    assert [asks(breaker) for _ in range(3)] == [True] * 3


def test_a_failed_probe_keeps_the_breaker_open(breaker: RedisBreaker, clock: Clock) -> None:
    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE

    assert asks(breaker, redis.TimeoutError())

    clock.now += PAUSE / 2
    assert not asks(breaker)


def test_observed_calls_open_and_close_the_breaker(breaker: RedisBreaker) -> None:
    with pytest.raises(redis.TimeoutError), breaker.observed():
        raise redis.TimeoutError("hangs")
    assert not asks(breaker)

    with breaker.observed():
        pass
    assert asks(breaker)


def test_an_error_response_does_not_open_the_breaker(breaker: RedisBreaker) -> None:
    assert asks(breaker, redis.exceptions.OutOfMemoryError("full"))

    assert asks(breaker)


def test_no_call_joins_a_call_that_seems_to_hang(breaker: RedisBreaker, clock: Clock) -> None:
    with breaker.observed():
        clock.now += SUSPICIOUS + 0.1
        assert not asks(breaker)

    assert asks(breaker)


def test_a_slow_call_beside_successful_ones_does_not_block(breaker: RedisBreaker, clock: Clock) -> None:
    with breaker.observed():
        for _ in range(5):
            clock.now += SUSPICIOUS * 0.9
            assert asks(breaker)


def test_an_interrupted_call_does_not_change_the_state(breaker: RedisBreaker, clock: Clock) -> None:
    with suppress(KeyboardInterrupt), breaker.tolerated("nothing"):
        raise KeyboardInterrupt
    clock.now += 10 * SUSPICIOUS
    assert asks(breaker)

    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE
    with suppress(KeyboardInterrupt), breaker.tolerated("nothing"):
        raise KeyboardInterrupt
    assert not asks(breaker)


def test_each_consequence_is_logged_once(breaker: RedisBreaker, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "workers.redis_breaker"):
        for _ in range(5):
            asks(breaker, redis.TimeoutError("hangs"))
            asks(breaker, consequence="no quota holds")
        clock.now += PAUSE
        for _ in range(5):
            asks(breaker)
            asks(breaker, consequence="no quota holds")

    assert [record.getMessage() for record in caplog.records] == [
        "Redis is away, so no limit holds: hangs",
        "Redis is away, so no quota holds: it has not answered of late",
        "Redis is back: it is no longer so that no limit holds",
        "Redis is back: it is no longer so that no quota holds",
    ]


def test_one_of_many_threads_probes(breaker: RedisBreaker, clock: Clock) -> None:
    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE
    barrier, asked = threading.Barrier(16), []

    def ask() -> None:
        barrier.wait()
        with suppress(KeyboardInterrupt), breaker.tolerated("nothing") as may_ask:
            asked.append(may_ask)
            raise KeyboardInterrupt

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert asked.count(True) == 1
