"""The worker process on a real Valkey: it completes or returns each claimed job, also if it or Redis fails."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import rq
from rq.command import send_shutdown_command
from rq.serializers import JSONSerializer

from datahog.settings import Settings
from tests.support.engines.rq_state import DELIVER, FETCH, failure, leftovers, names, running, step
from tests.support.system import System, eventually
from tests.support.workers.job_functions import begun, ran
from tests.support.workers.worker_process import StartWorker, WorkerProcess
from workers.queue import QUEUES, Queue
from workers.rq_worker.worker import ConcurrentWorker


@pytest.fixture
def own_redis(make_system: Callable[..., System]) -> System:
    """A Redis that the test may kill; its append-only file is kept."""
    system = make_system()
    system.start("redis")
    return system


def test_deliveries_run_before_submissions_and_fetches(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    queue.put(*(step("note", f"{name}-{number}", queue=name) for number in (1, 2) for name in reversed(QUEUES)))

    start(concurrency=1)

    eventually(lambda: len(ran(connection)) == 6)
    assert names(connection) == [f"{name}-{number}" for name in QUEUES for number in (1, 2)]


def test_jobs_of_a_killed_worker_are_recovered(connection: "redis.Redis", queue: Queue, start: StartWorker) -> None:
    killed = start(lease=1)
    expected = [f"job-{number}" for number in range(4)]
    queue.put(*(step("hang", name) for name in expected))
    # A claimed job may not run yet, and one that is killed before its first call would hang in its next run.
    eventually(lambda: all(begun(connection, name) for name in expected))
    killed.send(signal.SIGKILL)
    killed.exit_code()

    start(lease=1)

    eventually(lambda: len(ran(connection)) == 4, 10)
    assert sorted(names(connection)) == expected
    eventually(lambda: not leftovers(connection))


def test_a_living_worker_keeps_a_job_longer_than_its_lease(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    start(lease=0.5)
    queue.put(step("note", "long", "2"))
    eventually(lambda: running(connection))

    other = start(lease=0.5)

    eventually(lambda: ran(connection))
    eventually(lambda: not leftovers(connection))
    assert names(connection) == ["long"]
    assert "took back" not in other.log


def test_a_stopped_worker_finishes_only_running_jobs(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    worker = start(concurrency=2)
    queue.put(*(step("note", name, "0.8") for name in ("a", "b", "c")))
    eventually(lambda: running(connection) == 2)

    worker.send(signal.SIGTERM)

    assert worker.exit_code(5) == 0
    assert sorted(names(connection)) == ["a", "b"]
    assert connection.lrange(f"rq:queue:{FETCH}", 0, -1) == [b"c"]
    assert not running(connection)


def test_a_stopped_worker_returns_jobs_after_the_grace_period(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    worker = start(grace=0.5)
    queue.put(step("hang", "long"))
    eventually(lambda: begun(connection, "long"))

    worker.send(signal.SIGTERM)

    assert worker.exit_code(3) == 0
    assert not running(connection)
    start()
    eventually(lambda: names(connection) == ["long"], 5)


def test_a_stopped_worker_keeps_its_leases_in_the_grace_period(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    worker = start(lease=0.5, grace=10)
    queue.put(step("note", "long", "2"))
    eventually(lambda: running(connection))

    worker.send(signal.SIGTERM)

    other = start(lease=0.5)
    assert worker.exit_code() == 0
    assert names(connection) == ["long"]
    assert "took back" not in other.log


def test_an_idle_worker_stops_at_once_and_deregisters(connection: "redis.Redis", start: StartWorker) -> None:
    worker = start(grace=10)

    worker.send(signal.SIGINT)

    assert worker.exit_code(2) == 0
    assert rq.Worker.count(connection=connection) == 0


def test_the_shutdown_command_of_rq_stops_the_worker(
    connection: "redis.Redis", queue: Queue, start: StartWorker
) -> None:
    worker = start()
    queue.put(step("note", "running", "0.5"))
    eventually(lambda: running(connection))
    [known] = rq.Worker.all(connection=connection)

    send_shutdown_command(connection, known.name)

    assert worker.exit_code(5) == 0
    assert names(connection) == ["running"]


def test_a_stock_rq_worker_can_run_the_same_jobs(
    connection: "redis.Redis", engines: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAHOG_REDIS_URL", engines.redis_url)
    queue.put(step("note", "a"), step("later", "b", "0"), step("note", "c", queue=DELIVER), step("broken", job_id="d"))

    worker = rq.SimpleWorker(list(QUEUES), connection=connection, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")

    assert sorted(names(connection)) == ["a", "b", "c"]
    assert "poisoned" in failure(connection, "d")


def test_a_stock_worker_and_ours_share_a_queue(
    connection: "redis.Redis", engines: Settings, queue: Queue, start: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAHOG_REDIS_URL", engines.redis_url)
    start(concurrency=1)
    expected = [f"job-{number}" for number in range(100)]
    queue.put(*(step("note", name, "0.01") for name in expected))

    rq.SimpleWorker([FETCH], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="ERROR")

    eventually(lambda: len(ran(connection)) >= 100)
    assert sorted(names(connection)) == sorted(expected)


def test_the_worker_continues_after_a_restart_of_redis(own_redis: System, start: StartWorker) -> None:
    url = own_redis.settings.redis_url
    with redis.Redis.from_url(url) as connection:
        queue = Queue(connection, "tests.support.workers.job_functions", lambda _: None)
        worker = start(url)
        queue.put(step("note", "before"), step("note", "delayed", wait=4), step("note", "running", "1.5"))
        eventually(lambda: names(connection) == ["before"])
        time.sleep(1.2)  # the append-only file is written each second

        own_redis.kill("redis")
        eventually(lambda: "queue away" in worker.log)
        own_redis.start("redis")
        queue.put(step("note", "after"))

        eventually(lambda: {"before", "delayed", "after"} <= set(names(connection)))
        eventually(lambda: not leftovers(connection))
        assert names(connection).count("before") == 1
        # The worker listens for commands again.
        eventually(lambda: connection.pubsub_channels("rq:pubsub:*"))
        send_shutdown_command(connection, rq.Worker.all(connection=connection)[0].name)
        assert worker.exit_code() == 0


def test_the_worker_continues_after_redis_hung(own_redis: System, start: StartWorker) -> None:
    url = own_redis.settings.redis_url
    with redis.Redis.from_url(url) as connection:
        worker = start(url)
        own_redis.kill("redis", signal.SIGSTOP)
        eventually(lambda: "queue away" in worker.log, 10)
        own_redis.kill("redis", signal.SIGCONT)

        Queue(connection, "tests.support.workers.job_functions", lambda _: None).put(step("note", "after"))

        eventually(lambda: names(connection) == ["after"])
        eventually(lambda: connection.pubsub_channels("rq:pubsub:*"))
        send_shutdown_command(connection, rq.Worker.all(connection=connection)[0].name)
        assert worker.exit_code() == 0


def test_the_worker_waits_for_redis_at_its_start(own_redis: System, tmp_path: Path) -> None:
    own_redis.kill("redis")

    with WorkerProcess(own_redis.settings.redis_url, tmp_path / "early.log", ready="queue away") as early:
        own_redis.start("redis")

        eventually(lambda: "jobs at once" in early.log)


def test_a_worker_stopped_without_redis_finishes_running_jobs(own_redis: System, start: StartWorker) -> None:
    url = own_redis.settings.redis_url
    with redis.Redis.from_url(url) as connection:
        worker = start(url, grace=10)
        Queue(connection, "tests.support.workers.job_functions", lambda _: None).put(
            step("broken_later", "1.5", job_id="running")
        )
        eventually(lambda: running(connection))
    own_redis.kill("redis")
    eventually(lambda: "queue away" in worker.log)

    worker.send(signal.SIGTERM)

    assert worker.exit_code(8) == 0
    assert "running: failed" in worker.log


def test_the_worker_keeps_the_connection_timeouts(engines: Settings) -> None:
    with redis.Redis.from_url(engines.redis_url, socket_timeout=2) as connection:
        ConcurrentWorker(QUEUES, connection, concurrency=1, grace=1)

        assert connection.connection_pool.connection_kwargs["socket_timeout"] == 2
