"""Redis in trouble without being gone: frozen, full, or empty after a restart. It is a hint: nothing waits for it."""

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

# What is lost from the queue is looked for after HEAL_AFTER, or half a minute after the last look.
HEAL_AFTER = 2
HEALED = 60
FROZEN = 30.0
# Seconds in which a request must be accepted, on a machine that does much else.
QUICKLY = 8.0


@pytest.fixture(scope="module")
def _fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that is quick to look for what was lost."""
    with System(system_settings(tmp_path_factory.mktemp("redis"), worker_grace=3, heal_after=HEAL_AFTER)) as system:
        system.start()
        yield system


def test_redis_frozen_for_half_a_minute_keeps_no_request_from_being_accepted(fragile: System) -> None:
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


def test_a_full_redis_refuses_new_work_and_no_request_is_refused_for_it(fragile: System) -> None:
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


def test_a_full_redis_is_worked_empty(fragile: System) -> None:
    fragile.kill("worker", signal.SIGTERM)
    asked = [fragile.ask("gas") for _ in range(5)]
    assert waiting(fragile) >= len(asked)
    with full(fragile):
        fragile.start("worker")
        eventually(lambda: not waiting(fragile))

    assert_complete_and_accepted_once(fragile, asked, HEALED)


def test_redis_started_empty_is_healed(fragile: System) -> None:
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
    """Redis has no memory for anything more in this block."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        connection.config_set("maxmemory", 1)
        try:
            yield
        finally:
            connection.config_set("maxmemory", 0)


def waiting(system: System) -> int:
    """How many jobs are on the queues, begun by nobody."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        return sum(connection.llen(key) for key in connection.scan_iter("rq:queue:*", count=1000))


def assert_all_alive(system: System) -> None:
    for name in ("worker", "reconciler", "client", "aggregator"):
        assert system.exit_code(name) is None, name
    assert "ended with" not in system.log("worker")
