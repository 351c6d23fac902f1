"""The circuit breaker of Redis: it opens for all at once, probes seldom, and closes as soon as Redis answers."""

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
    """Whether a caller asks Redis, which then fails so, or answers."""
    with breaker.tolerated(consequence) as may_ask:
        if may_ask and error:
            raise error
    return may_ask


@pytest.mark.parametrize("error", [redis.TimeoutError("hangs"), redis.ConnectionError("away")])
def test_one_call_without_a_response_opens_it_for_all(breaker: RedisBreaker, error: Exception) -> None:
    assert asks(breaker, error)

    assert [asks(breaker, consequence=f"purpose {number}") for number in range(5)] == [False] * 5


def test_while_open_one_call_in_a_while_probes(breaker: RedisBreaker, clock: Clock) -> None:
    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE

    with breaker.tolerated("the probe") as may_ask:
        assert may_ask
        assert [asks(breaker) for _ in range(3)] == [False] * 3

    assert [asks(breaker) for _ in range(3)] == [True] * 3


def test_a_probe_that_fails_keeps_it_open(breaker: RedisBreaker, clock: Clock) -> None:
    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE

    assert asks(breaker, redis.TimeoutError())

    clock.now += PAUSE / 2
    assert not asks(breaker)


def test_a_call_that_is_made_anyway_opens_and_closes_it(breaker: RedisBreaker) -> None:
    with pytest.raises(redis.TimeoutError), breaker.observed():
        raise redis.TimeoutError("hangs")
    assert not asks(breaker)

    with breaker.observed():
        pass
    assert asks(breaker)


def test_a_response_that_refuses_does_not_open_it(breaker: RedisBreaker) -> None:
    assert asks(breaker, redis.exceptions.OutOfMemoryError("full"))

    assert asks(breaker)


def test_no_call_joins_one_that_seems_to_hang(breaker: RedisBreaker, clock: Clock) -> None:
    with breaker.observed():
        clock.now += SUSPICIOUS + 0.1
        assert not asks(breaker)

    assert asks(breaker)


def test_a_slow_call_beside_ones_with_responses_is_not_suspected(breaker: RedisBreaker, clock: Clock) -> None:
    with breaker.observed():
        for _ in range(5):
            clock.now += SUSPICIOUS * 0.9
            assert asks(breaker)


def test_a_call_that_its_caller_gives_up_tells_nothing(breaker: RedisBreaker, clock: Clock) -> None:
    with suppress(KeyboardInterrupt), breaker.tolerated("nothing"):
        raise KeyboardInterrupt
    clock.now += 10 * SUSPICIOUS
    assert asks(breaker)

    asks(breaker, redis.TimeoutError())
    clock.now += PAUSE
    with suppress(KeyboardInterrupt), breaker.tolerated("nothing"):
        raise KeyboardInterrupt
    assert not asks(breaker)


def test_each_consequence_is_told_once(breaker: RedisBreaker, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
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


def test_of_many_threads_one_probes(breaker: RedisBreaker, clock: Clock) -> None:
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
