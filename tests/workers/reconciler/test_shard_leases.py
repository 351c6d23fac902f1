"""Shard leases on a real Redis: no two reconcilers hold the same shard, and one holds each shard."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from datahog.settings import Settings
from tests.support.system import eventually
from workers.reconciler.shard_leases import AllShards, LeasedShards

LEASE = 1.0  # seconds
INDEX = "datahog-aggregator"
SHARDS = [f"open#{number}" for number in range(10)]

Make = Callable[..., LeasedShards]


@pytest.fixture
def make(connection: "redis.Redis") -> Make:
    """Makes the shard leases of one more reconciler; `lease` is in seconds."""
    return lambda lease=LEASE: LeasedShards(connection, lease=lease)


def held(*members: LeasedShards, shards: list[str] = SHARDS) -> list[list[str]]:
    """Returns the shards that each member holds, asked one after the other; no two hold the same shard."""
    found = [sorted(member.held(INDEX, shards)) for member in members]
    assert max(Counter(chain(*found)).values(), default=0) <= 1, found
    return found


def test_a_single_reconciler_holds_all_shards_after_settling(make: Make) -> None:
    one = make()

    began = time.monotonic()
    eventually(lambda: held(one) == [sorted(SHARDS)], 5)

    # Other reconcilers might have lived and held some shards.
    assert time.monotonic() - began >= LEASE / 2 - 0.1


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_several_reconcilers_divide_all_shards_equally(make: Make, count: int) -> None:
    members = [make() for _ in range(count)]

    def is_divided() -> bool:
        sizes = [len(share) for share in held(*members)]
        return sum(sizes) == len(SHARDS) and max(sizes) - min(sizes) <= 1

    eventually(is_divided, 10)


def test_a_later_reconciler_gets_half_of_the_shards(make: Make) -> None:
    first = make()
    eventually(lambda: held(first) == [sorted(SHARDS)], 5)
    second = make()

    eventually(lambda: [len(share) for share in held(first, second)] == [5, 5], 5)


def test_shards_of_a_dead_reconciler_pass_on_after_its_lease(make: Make) -> None:
    first, second = make(), make()
    eventually(lambda: [len(share) for share in held(first, second)] == [5, 5], 10)

    began = time.monotonic()
    eventually(lambda: held(first) == [sorted(SHARDS)], 5)

    assert time.monotonic() - began < 2 * LEASE


def test_shards_of_a_leaving_reconciler_pass_on_at_once(make: Make) -> None:
    first, second = make(), make()
    eventually(lambda: [len(share) for share in held(first, second)] == [5, 5], 10)

    second.leave()

    eventually(lambda: held(first) == [sorted(SHARDS)], LEASE / 2)


def test_no_two_hold_a_shard_after_redis_is_emptied(make: Make, connection: "redis.Redis") -> None:
    members = [make() for _ in range(3)]
    eventually(lambda: sum(map(len, held(*members))) == len(SHARDS), 10)

    connection.flushall()
    # The first member sends its heartbeat before the others know that they must.
    members[0]._said_at[INDEX] = 0

    until = time.monotonic() + 2 * LEASE
    while time.monotonic() < until:
        held(*members)
    assert sum(map(len, held(*members))) == len(SHARDS)


def test_no_two_hold_a_shard_after_all_lost_their_leases(make: Make, connection: "redis.Redis") -> None:
    members = [make() for _ in range(3)]
    eventually(lambda: sum(map(len, held(*members))) == len(SHARDS), 10)

    # The members are gone from Redis, as after a loss of longer than a lease.
    connection.delete(f"datahog:reconcilers:{INDEX}")
    members[2]._said_at[INDEX] = 0

    until = time.monotonic() + 2 * LEASE
    while time.monotonic() < until:
        held(*reversed(members))
    assert sum(map(len, held(*members))) == len(SHARDS)


def test_shards_of_the_dead_are_free_after_a_clock_change(make: Make, connection: "redis.Redis") -> None:
    first, second = make(), make()
    eventually(lambda: [len(share) for share in held(first, second)] == [5, 5], 10)
    # The heartbeat was written by a clock that is an hour ahead of the one of Redis.
    connection.zadd(f"datahog:reconcilers:{INDEX}", {second._id: (time.time() + 3600) * 1000})

    eventually(lambda: held(first) == [sorted(SHARDS)], 5)


def test_added_shards_are_divided_too(make: Make) -> None:
    members = [make(), make()]
    eventually(lambda: sum(map(len, held(*members))) == len(SHARDS), 10)
    more = [*SHARDS, "open#10", "open#11"]

    eventually(lambda: [len(share) for share in held(*members, shards=more)] == [6, 6], 10)


def test_without_redis_each_keeps_its_shards(make: Make, connection: "redis.Redis") -> None:
    one, other = make(), make()
    eventually(lambda: [len(share) for share in held(one, other)] == [5, 5], 10)
    before = held(one, other)

    def fail(**_: object) -> list[bytes]:
        raise redis.ConnectionError("away")

    setattr(one, "_divide", fail)  # noqa: B010
    one._said_at[INDEX] = 0

    assert [sorted(one.held(INDEX, SHARDS))] == before[:1]
    one.beat()


def test_without_redis_from_the_start_each_holds_all_shards() -> None:
    with redis.Redis.from_url("redis://127.0.0.1:1/0") as away:
        alone = LeasedShards(away, lease=LEASE)

        assert alone.held(INDEX, SHARDS) == SHARDS
        alone.beat()
        alone.leave()


def test_all_shards_holds_every_shard() -> None:
    alone = AllShards()

    alone.beat()
    alone.leave()
    assert alone.held(INDEX, SHARDS) == SHARDS


@pytest.fixture(scope="module")
def shared(engines: Settings) -> Iterator["redis.Redis"]:
    """Redis, for all examples of a property."""
    with redis.Redis.from_url(engines.redis_url) as made:
        yield made


@settings(max_examples=60)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["say", "leave", "expire", "empty"]), st.integers(0, 3), st.integers(1, 9)),
        max_size=30,
    )
)
def test_no_two_live_reconcilers_hold_a_shard_after_any_moves(
    shared: "redis.Redis", moves: list[tuple[str, int, int]]
) -> None:
    shared.flushall()
    LeasedShards(shared, lease=60).held(INDEX, SHARDS)
    shared.delete(f"datahog:reconcilers:{INDEX}:settling", f"datahog:shards:{INDEX}")
    members = {number: LeasedShards(shared, lease=60) for number in range(4)}
    believed: dict[int, list[str]] = {}
    for move, number, count in moves:
        member = members[number]
        if move == "say":
            if INDEX in member._said_at:
                member._said_at[INDEX] = 0
            believed[number] = list(member.held(INDEX, SHARDS[: count + 1]))
        elif move == "empty":
            shared.flushall()
        else:
            # The member has stopped, or its lease has run out; a new member replaces it.
            if move == "leave":
                member.leave()
            else:
                shared.zrem(f"datahog:reconcilers:{INDEX}", member._id)
            members[number] = LeasedShards(shared, lease=60)
            believed.pop(number, None)
        counted = Counter(chain(*believed.values()))
        assert max(counted.values(), default=0) <= 1, believed
