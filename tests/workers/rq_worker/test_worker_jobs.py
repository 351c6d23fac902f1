"""Jobs in a worker on a real Valkey: they run once, on time, again if they ask, and fail with their reason."""

import math
import random
import subprocess
import sys
import time

import pytest
import redis
import rq
from rq.suspension import resume, suspend

from datahog.settings import Settings
from providers.model import Provider
from tests.support.engines.rq_state import FETCH, failure, leftovers, names, running, step
from tests.support.system import eventually
from tests.support.workers.job_functions import ran
from tests.support.workers.worker_process import CONCURRENCY, WorkerProcess
from workers.queue import QUEUES, Queue


@pytest.fixture(scope="module", autouse=True)
def worker(shared_worker: WorkerProcess) -> WorkerProcess:
    """Starts the worker of this module's tests."""
    return shared_worker


def test_each_job_runs_once_and_leaves_nothing_behind(connection: "redis.Redis", queue: Queue) -> None:
    expected = [f"job-{number}" for number in range(1000)]

    queue.put(*(step("note", name, queue=random.choice(QUEUES)) for name in expected))

    eventually(lambda: len(ran(connection)) >= 1000)
    assert sorted(names(connection)) == sorted(expected)
    eventually(lambda: not leftovers(connection))


def test_no_more_jobs_run_at_once_than_the_concurrency(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(*(step("note", f"job-{number}", "0.1") for number in range(20)))

    eventually(lambda: len(ran(connection)) == 20)

    assert connection.zrange("test:peaks", -1, -1) == [str(CONCURRENCY).encode()]


def test_a_job_enqueued_twice_runs_once(connection: "redis.Redis", queue: Queue) -> None:
    suspend(connection)
    queue.put(step("note", "twin", "0.2"), step("note", "twin", "0.2"))
    queue.put(step("note", "twin", "0.2"), step("note", "other", "0.4"))
    resume(connection)

    eventually(lambda: "other" in names(connection))

    assert sorted(names(connection)) == ["other", "twin"]


def test_a_delayed_job_runs_on_time_and_never_early(connection: "redis.Redis", queue: Queue) -> None:
    steps = [step("note", f"job-{number}", wait=0.3 + number * 0.0613) for number in range(20)]
    due = {one.job_id: one.at.timestamp() for one in steps if one.at}

    queue.put(*steps)

    eventually(lambda: len(ran(connection)) == 20)
    for name, began in ran(connection):
        assert 0 <= began - due[name] < 0.2


def test_a_job_can_ask_to_run_later(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("later", "patient", "0.7"))

    eventually(lambda: ran(connection))

    began = ran(connection)[0][1]
    asked = float(connection.get("test:asked:patient") or math.nan)
    assert 0.7 <= began - asked < 1
    eventually(lambda: not leftovers(connection))


def test_a_job_without_a_database_is_deferred_and_run_again(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("unavailable", "held"))

    eventually(lambda: names(connection) == ["held"], 10)


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [
        ("broken", (), "RuntimeError: this job is poisoned"),
        ("leave", (), "SystemExit: gone"),
        ("no_such_function", (), "no_such_function"),
        ("note", (), "TypeError: note() missing 1 required positional argument"),
        ("RAN", (), "TypeError: 'str' object is not callable"),
    ],
)
def test_a_poisoned_job_is_kept_as_failed_with_the_reason(
    connection: "redis.Redis", queue: Queue, function: str, args: tuple[str, ...], reason: str
) -> None:
    queue.put(*(step(function, *args, job_id=f"poison-{number}") for number in range(CONCURRENCY)))

    queue.put(step("note", "after"))

    assert reason in failure(connection, "poison-0")
    eventually(lambda: names(connection) == ["after"])
    assert not running(connection)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not compressed", id="not compressed"),
        pytest.param(b"x\x9c\x03\x00\x00\x00\x00\x01", id="no JSON"),
        pytest.param(b"x\x9c\x8b6\xd0QP\x8a\x05\x00\x05\x00\x01\x84", id="no job"),
    ],
)
def test_a_job_with_a_broken_payload_is_kept_as_failed(connection: "redis.Redis", queue: Queue, payload: bytes) -> None:
    suspend(connection)
    queue.put(step("note", "poison"), step("note", "after"))
    connection.hset("rq:job:poison", "data", payload)

    resume(connection)

    assert "error" in failure(connection, "poison").lower()
    eventually(lambda: names(connection) == ["after"])


def test_a_job_can_return_its_permit_before_it_ends(
    connection: "redis.Redis", queue: Queue, providers: dict[str, Provider]
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=1)

    queue.put(step("give_back", "first", "1.5", provider="gas"), step("note", "second", provider="gas"))

    eventually(lambda: len(ran(connection)) == 2)
    assert names(connection) == ["second", "first"]
    eventually(lambda: not leftovers(connection))


def test_a_failed_job_that_is_enqueued_again_can_succeed(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("broken", job_id="mended"))
    failure(connection, "mended")

    queue.put_missing([step("note", "mended")])

    eventually(lambda: names(connection) == ["mended"])
    eventually(lambda: not leftovers(connection))


def test_a_poisoned_job_lost_from_redis_does_not_stop_the_worker(
    connection: "redis.Redis", queue: Queue, worker: WorkerProcess
) -> None:
    queue.put(step("broken_later", "0.3", job_id="forgotten"))
    eventually(lambda: running(connection))
    connection.flushall()

    eventually(lambda: "forgotten: failed" in worker.log)
    queue.put(step("note", "after"))

    eventually(lambda: names(connection) == ["after"])


def test_a_damaged_poisoned_job_does_not_stop_the_worker(
    connection: "redis.Redis", queue: Queue, worker: WorkerProcess
) -> None:
    queue.put(step("broken_later", "0.3", job_id="partial"))
    eventually(lambda: running(connection))
    connection.hset("rq:job:partial", "created_at", "yesterday")

    eventually(lambda: "partial: is gone or broken" in worker.log)
    queue.put(step("note", "after"))

    eventually(lambda: names(connection) == ["after"])
    assert not running(connection)


def test_a_suspended_worker_waits_until_it_is_resumed(connection: "redis.Redis", queue: Queue) -> None:
    suspend(connection)
    queue.put(step("note", "patient"), step("note", "delayed", wait=0.1))
    time.sleep(0.4)
    assert not ran(connection)

    resume(connection)

    eventually(lambda: sorted(names(connection)) == ["delayed", "patient"])


def test_a_worker_registers_again_after_redis_is_emptied(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("note", "running", "0.5"))
    eventually(lambda: running(connection))

    connection.flushall()
    queue.put(step("note", "after"))

    eventually(lambda: sorted(names(connection)) == ["after", "running"])
    eventually(lambda: rq.Worker.count(connection=connection) == 1)
    eventually(lambda: not leftovers(connection))


def test_rq_info_shows_the_worker_and_its_queues(connection: "redis.Redis", engines: Settings, queue: Queue) -> None:
    queue.put(step("note", "done"), step("broken", job_id="poison"))
    failure(connection, "poison")
    queue.put(*(step("note", f"job-{number}", "2") for number in range(CONCURRENCY + 1)))
    eventually(lambda: running(connection) == CONCURRENCY)
    eventually(lambda: rq.Worker.count(connection=connection))

    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "-u", engines.redis_url, "--raw"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()

    assert f"queue {FETCH} 1, {CONCURRENCY} executing, 0 finished, 1 failed" in shown
    [line] = [line for line in shown if line.startswith("worker ")]
    assert line.endswith(f" busy {', '.join(QUEUES)}. jobs: 1 finished, 1 failed")
