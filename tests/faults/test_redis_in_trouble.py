"""Redis is frozen, full, or empty after a restart: requests are still accepted, and all complete."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.support.leftovers import open_records, queued
from tests.support.load import assert_complete_and_accepted_once, some_under_way
from tests.support.system import System, eventually, system_settings

# Seconds. The reconciler heals a lost step after HEAL_AFTER, or half a minute after its last check of the record.
HEAL_AFTER = 2
HEALED = 60
FROZEN = 30.0
# Seconds within which a request must be accepted, on a busy machine.
QUICKLY = 8.0


@pytest.fixture(scope="module")
def _fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that soon heals lost steps."""
    with System(system_settings(tmp_path_factory.mktemp("redis"), worker_grace=3, heal_after=HEAL_AFTER)) as system:
        system.start()
        yield system


def test_requests_are_accepted_while_redis_is_frozen(fragile: System) -> None:
    asked = some_under_way(fragile, 10)
    fragile.kill("redis", signal.SIGSTOP)
    try:
        thaws = time.monotonic() + FROZEN
        longest, meanwhile = 0.0, []
        while (began := time.monotonic()) < thaws:
            meanwhile.append(fragile.ask("gas", "water"))
            longest = max(longest, time.monotonic() - began)
            time.sleep(1)
    finally:
        fragile.kill("redis", signal.SIGCONT)

    assert longest < QUICKLY
    assert_complete_and_accepted_once(fragile, asked + meanwhile, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


def test_requests_are_accepted_while_redis_is_full(fragile: System) -> None:
    asked = some_under_way(fragile, 10)
    logged = len(fragile.log("worker"))
    with full(fragile):
        meanwhile = [fragile.ask("gas", "water") for _ in range(3)]
        eventually(lambda: "Redis is full" in fragile.log("worker")[logged:])
        eventually(lambda: "maxmemory" in fragile.log("reconciler"))

    assert_complete_and_accepted_once(fragile, asked + meanwhile, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


def test_workers_empty_the_queue_of_a_full_redis(fragile: System) -> None:
    fragile.kill("worker", signal.SIGTERM)
    asked = [fragile.ask("gas") for _ in range(5)]
    assert waiting(fragile) >= len(asked)
    with full(fragile):
        fragile.start("worker")
        eventually(lambda: not waiting(fragile))

    assert_complete_and_accepted_once(fragile, asked, HEALED)


def test_requests_complete_when_redis_starts_empty(fragile: System) -> None:
    asked = some_under_way(fragile, 10)

    fragile.kill("redis")
    shutil.rmtree(fragile.settings.data_dir / "redis")
    fragile.start("redis")

    assert_complete_and_accepted_once(fragile, asked, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


@contextmanager
def full(system: System) -> Iterator[None]:
    """Let Redis have no memory for new data during this block."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        connection.config_set("maxmemory", 1)
        try:
            yield
        finally:
            connection.config_set("maxmemory", 0)


def waiting(system: System) -> int:
    """The number of jobs on the queues that no worker has claimed."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        return sum(connection.llen(key) for key in connection.scan_iter("rq:queue:*", count=1000))


def assert_all_alive(system: System) -> None:
    for name in ("worker", "reconciler", "client", "aggregator"):
        assert system.exit_code(name) is None, name
    assert "ended with" not in system.log("worker")
