"""Shared fixtures of the worker tests: the queue on a test's Redis, and worker processes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from datahog.settings import Settings
from providers.model import Provider
from tests.support.workers.worker_process import CONCURRENCY, StartWorker, WorkerProcess
from workers.queue import Queue


@pytest.fixture
def providers() -> dict[str, Provider]:
    """The providers that the queue knows; none until a test adds one."""
    return {}


@pytest.fixture
def queue(connection: "redis.Redis", providers: dict[str, Provider]) -> Queue:
    """The queue of the worker tests; its jobs are those of `tests.support.workers.job_functions`."""
    return Queue(connection, "tests.support.workers.job_functions", providers.get)


@pytest.fixture
def start(engines: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts worker processes; `url` names a Redis other than the usual one."""
    with ExitStack() as workers:
        logs = iter(range(100))

        def run(url: str = engines.redis_url, **options: Any) -> WorkerProcess:
            return workers.enter_context(WorkerProcess(url, tmp_path / f"worker-{next(logs)}.log", **options))

        yield run


@pytest.fixture(scope="module")
def shared_worker(engines: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with CONCURRENCY slots for all tests of a module; its queues are empty at the start."""
    with redis.Redis.from_url(engines.redis_url) as made:
        made.flushall()
    log: Path = tmp_path_factory.mktemp("worker") / "log"
    with WorkerProcess(engines.redis_url, log, concurrency=CONCURRENCY, lease=1) as process:
        yield process
        assert process.runs, process.log
