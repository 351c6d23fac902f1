"""What the unit tests share: Redis for one test, the queue on it, workers, and a server that answers as told."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from datahog.settings import Settings
from providers.model import Provider
from tests.support.servers.stub import StubServer
from tests.support.servers.tls import make_certificate
from tests.support.workers.worker_process import CONCURRENCY, StartWorker, WorkerProcess
from workers.queue import Queue

# The same examples in each run, and no failure because the machine was busy.
hypothesis.settings.register_profile("unit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("unit")


@pytest.fixture
def connection(engines: Settings) -> Iterator["redis.Redis"]:
    """Redis, empty."""
    with redis.Redis.from_url(engines.redis_url) as made:
        made.flushall()
        yield made


@pytest.fixture
def providers() -> dict[str, Provider]:
    """The providers that the queue knows; none until a test adds one."""
    return {}


@pytest.fixture
def queue(connection: "redis.Redis", providers: dict[str, Provider]) -> Queue:
    """The queue of the worker's tests."""
    return Queue(connection, "tests.support.workers.job_functions", providers.get)


@pytest.fixture
def start(engines: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers; `url` is that of another Redis."""
    with ExitStack() as workers:
        logs = iter(range(100))

        def run(url: str = engines.redis_url, **options: Any) -> WorkerProcess:
            return workers.enter_context(WorkerProcess(url, tmp_path / f"worker-{next(logs)}.log", **options))

        yield run


@pytest.fixture(scope="module")
def shared_worker(engines: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker of up to CONCURRENCY jobs, for all tests of a module; nothing of an earlier one is on its queues."""
    with redis.Redis.from_url(engines.redis_url) as made:
        made.flushall()
    log: Path = tmp_path_factory.mktemp("worker") / "log"
    with WorkerProcess(engines.redis_url, log, concurrency=CONCURRENCY, lease=1) as process:
        yield process
        assert process.runs, process.log


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """An HTTP server of this test's own; it answers 200 with an empty list until told otherwise."""
    with StubServer() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody vouches for, with its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    make_certificate(file)
    return file
