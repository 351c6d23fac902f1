"""The quota of open requests: counts each once, checks them only when it is full, and frees the ended ones."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from handlers.access.callers import Caller
from handlers.access.open_request_quota import OpenRequests
from handlers.problems import Problem
from workers.redis_breaker import RedisBreaker

_ADA, _BOB = Caller("ada", "acme"), Caller("bob", "globex")


class World:
    """The open requests, the requests that were checked, and the time in seconds."""

    def __init__(self) -> None:
        self.open: set[tuple[str, str]] = set()
        self.checked: list[str] = []
        self.now = 1_000_000.0
        self.ids = (f"r{number}" for number in itertools.count())

    def still_open(self, tenant: str, request_ids: Sequence[str]) -> set[str]:
        assert 0 < len(request_ids) <= 100
        self.checked += request_ids
        return {request_id for request_id in request_ids if (tenant, request_id) in self.open}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make(connection: "redis.Redis", world: World) -> Any:
    """Makes the counter for a quota, a number of requests."""
    return lambda quota: OpenRequests(
        connection, world.still_open, "aggregator", quota=quota, breaker=RedisBreaker(), clock=lambda: world.now
    )


def _open(requests: OpenRequests, world: World, caller: Caller = _ADA, *, ends: bool = False) -> int | None:
    """Open a request; returns the seconds that the caller must wait, or None when the request is counted."""
    request_id = next(world.ids)
    try:
        requests.count(caller, request_id)
    except Problem as problem:
        return int(problem.headers["Retry-After"])
    if not ends:
        world.open.add((caller.tenant, request_id))
    return None


def test_each_tenant_opens_no_more_than_its_quota(make: Any, world: World) -> None:
    requests = make(3)

    assert [_open(requests, world) for _ in range(5)] == [None, None, None, 1, 1]
    assert [_open(requests, world, _BOB) for _ in range(4)] == [None, None, None, 1]
    assert [_open(requests, world, Caller("c", "acme", unlimited=True)) for _ in range(9)] == [None] * 9


def test_ended_requests_make_room_after_the_told_wait(make: Any, world: World) -> None:
    requests = make(3)
    for _ in range(3):
        _open(requests, world)
    wait = _open(requests, world) or 0
    world.open.clear()

    world.now += wait

    assert [_open(requests, world) for _ in range(4)] == [None, None, None, 1]


def test_a_repeated_request_is_counted_once(make: Any) -> None:
    requests = make(1)

    for _ in range(3):
        requests.count(_ADA, "the-same")
    with pytest.raises(Problem, match="1 requests are open") as refused:
        requests.count(_ADA, "another")
    assert refused.value.status == 429


def test_requests_are_checked_about_once_and_only_when_full(make: Any, world: World) -> None:
    requests = make(200)

    for _ in range(200):
        assert _open(requests, world, ends=True) is None
    assert world.checked == []
    world.now += 1
    for _ in range(2000):
        world.now += 0.02
        assert _open(requests, world, ends=True) is None

    assert len(world.checked) <= 2200


def test_few_ended_requests_are_found_among_many_open(make: Any, world: World) -> None:
    requests = make(450)
    for _ in range(450):
        _open(requests, world)
    world.open -= {("acme", "r7"), ("acme", "r440")}
    world.now += 1

    assert [_open(requests, world) for _ in range(3)] == [None, None, 1]


def test_repeated_refusals_check_each_request_once(make: Any, world: World) -> None:
    requests = make(10)
    for _ in range(10):
        _open(requests, world)
    world.now += 1

    assert {_open(requests, world) for _ in range(100)} == {1}
    assert len(world.checked) == 10


def test_a_counted_request_that_was_never_written_expires(make: Any, world: World) -> None:
    requests = make(3)
    for number in range(3):
        requests.count(_ADA, f"lost-{number}")

    world.now += 1

    assert _open(requests, world) is None


def test_counting_restarts_when_redis_is_emptied(make: Any, world: World, connection: "redis.Redis") -> None:
    requests = make(2)
    for _ in range(2):
        _open(requests, world)

    connection.flushall()
    connection.script_flush()

    assert [_open(requests, world) for _ in range(3)] == [None, None, 1]


def test_an_idle_tenant_expires_from_redis(make: Any, connection: "redis.Redis") -> None:
    make(2).count(_ADA, "r1")

    (key,) = connection.keys("datahog:open:*")
    assert 30 * 86_400 < connection.ttl(key) <= 31 * 86_400


def test_any_number_may_be_open_without_redis(world: World) -> None:
    nowhere = redis.Redis(port=9, socket_connect_timeout=0.1)
    requests = OpenRequests(nowhere, world.still_open, "aggregator", quota=1, breaker=RedisBreaker())

    assert [_open(requests, world) for _ in range(5)] == [None] * 5


def test_ended_requests_make_room_after_a_clock_set_back(make: Any, world: World) -> None:
    requests = make(3)
    for _ in range(3):
        _open(requests, world, ends=True)
    world.now -= 3600

    assert _open(requests, world) is None
