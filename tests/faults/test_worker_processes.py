"""Several worker processes under one command: it restarts each that dies, and all end with the command."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis
import rq

from tests.support.system import System, eventually


@pytest.fixture
def system(make_system: Callable[..., System]) -> System:
    """Redis, and a command that runs two worker processes."""
    system = make_system(worker_processes=2)
    system.start("redis", "worker")
    return system


@pytest.fixture
def connection(system: System) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(system.settings.redis_url) as made:
        yield made


def workers(connection: "redis.Redis") -> dict[int, str]:
    """The names of RQ's workers by process id, once Redis lists two that are running."""

    def two() -> dict[int, str]:
        found = {int(worker.pid or 0): worker.name for worker in rq.Worker.all(connection=connection)}
        return {pid: name for pid, name in found.items() if lives(pid)}

    return eventually(lambda: (found := two()) and len(found) == 2 and found)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_worker_processes_register_separately_and_stop_together(system: System, connection: "redis.Redis") -> None:
    running = workers(connection)

    system.kill("worker", signal.SIGTERM)

    assert system.exit_code("worker") == 0
    assert not any(map(lives, running))
    assert rq.Worker.count(connection=connection) == 0


def test_a_killed_worker_process_is_restarted(system: System, connection: "redis.Redis") -> None:
    victim, other = workers(connection)

    os.kill(victim, signal.SIGKILL)
    eventually(lambda: f"worker {victim} ended with -9, the next in 1 s" in system.log("worker"))

    again = workers(connection)
    assert other in again
    assert victim not in again


def test_worker_processes_stop_when_the_command_is_killed(system: System, connection: "redis.Redis") -> None:
    running = workers(connection)

    system.kill("worker")

    eventually(lambda: not any(map(lives, running)))
    assert rq.Worker.count(connection=connection) == 0


def test_a_worker_process_that_does_not_stop_is_killed(system: System, connection: "redis.Redis") -> None:
    frozen, _ = workers(connection)
    os.kill(frozen, signal.SIGSTOP)
    started = time.monotonic()

    system.kill("worker", signal.SIGTERM)

    assert time.monotonic() - started < system.settings.worker_grace + 10
    assert system.exit_code("worker") == 1
    assert not lives(frozen)
