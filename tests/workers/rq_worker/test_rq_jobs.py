"""Jobs that others enqueue with RQ itself, on a real Valkey: our worker keeps the promises of RQ."""

from datetime import timedelta

import pytest
import redis
import rq
from rq import Callback, Repeat, Retry
from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.job import Dependency, Job, JobStatus
from rq.rate_limit import RateLimit, RateLimitRegistry
from rq.results import Result
from rq.serializers import JSONSerializer, PickleSerializer
from rq.suspension import resume, suspend
from rq.utils import now
from rq.worker.base import BaseWorker

from tests.support.engines.rq_state import FETCH, failure, leftovers, names, running
from tests.support.system import eventually
from tests.support.workers import job_functions as functions
from tests.support.workers.job_functions import callbacks, ran
from tests.support.workers.worker_process import CONCURRENCY, WorkerProcess


@pytest.fixture(scope="module", autouse=True)
def worker(shared_worker: WorkerProcess) -> WorkerProcess:
    """Starts the worker of this module's tests."""
    return shared_worker


@pytest.fixture
def others(connection: "redis.Redis") -> rq.Queue:
    """RQ's own queue of fetch jobs."""
    return rq.Queue(FETCH, connection=connection, serializer=JSONSerializer)


def status_of(job: Job) -> JobStatus:
    return job.get_status()


def known_worker(connection: "redis.Redis") -> BaseWorker:
    """Returns the worker that RQ knows; each test empties Redis, so RQ knows it from the next heartbeat on."""
    [worker] = eventually(lambda: rq.Worker.all(connection=connection))
    return worker


def finish(job: Job) -> Result:
    """Waits until a job has succeeded; returns its result."""
    eventually(lambda: status_of(job) == JobStatus.FINISHED, 10)
    result = job.latest_result()
    assert result
    return result


def test_a_kept_result_names_its_worker_and_times(connection: "redis.Redis", others: rq.Queue) -> None:
    before = now().replace(microsecond=0)
    job = others.enqueue(functions.give, 1, b=[2])

    result = finish(job)

    assert job.return_value() == {"args": [1], "kwargs": {"b": [2]}}
    assert result.type == Result.Type.SUCCESSFUL
    assert result.worker_name == known_worker(connection).name
    assert result.execution_started_at
    assert result.execution_ended_at
    assert before <= result.execution_started_at <= result.execution_ended_at <= now()
    assert job.id in others.finished_job_registry


def test_a_finished_job_keeps_its_start_time(others: rq.Queue) -> None:
    job = others.enqueue("time.sleep", 0.4)

    result = finish(job)

    job.refresh()  # type: ignore[no-untyped-call]
    assert job.started_at
    assert job.ended_at
    assert result.execution_started_at
    assert result.execution_ended_at
    assert job.ended_at - job.started_at >= timedelta(seconds=0.4)
    assert result.execution_ended_at - result.execution_started_at >= timedelta(seconds=0.4)


@pytest.mark.parametrize(("result_ttl", "kept"), [(60, range(1, 61)), (-1, [-1])])
def test_a_job_is_kept_for_its_result_ttl(
    connection: "redis.Redis", others: rq.Queue, result_ttl: int, kept: list[int]
) -> None:
    job = others.enqueue(functions.give, result_ttl=result_ttl)

    finish(job)

    assert connection.ttl(job.key) in kept
    assert connection.ttl(f"rq:results:{job.id}") in kept


def test_a_job_with_result_ttl_zero_leaves_nothing(connection: "redis.Redis", others: rq.Queue) -> None:
    others.enqueue(functions.note, "a", seconds="0.1", result_ttl=0)

    eventually(lambda: names(connection) == ["a"])
    eventually(lambda: not leftovers(connection))


def test_a_job_fails_after_its_retries(connection: "redis.Redis", others: rq.Queue) -> None:
    job = others.enqueue(functions.fail_each_time, "a", retry=Retry(max=2, interval=[0, 1]))

    eventually(lambda: status_of(job) == JobStatus.SCHEDULED)
    assert job.id in others.scheduled_job_registry

    assert "RuntimeError: failed 3 times" in failure(connection, job.id)
    assert not running(connection)


@pytest.mark.parametrize(("wait", "result_ttl"), [(0, 0), (1, 0), (0, 60)])
def test_a_job_can_ask_to_run_again(connection: "redis.Redis", others: rq.Queue, wait: int, result_ttl: int) -> None:
    others.enqueue(functions.again, "a", wait, result_ttl=result_ttl)

    eventually(lambda: names(connection) == ["a"])


@pytest.mark.parametrize("result_ttl", [0, 60])
def test_a_coroutine_is_run(connection: "redis.Redis", others: rq.Queue, result_ttl: int) -> None:
    others.enqueue(functions.note_later, "a", result_ttl=result_ttl)

    eventually(lambda: names(connection) == ["a"])


def test_callbacks_of_a_job_are_called(connection: "redis.Redis", others: rq.Queue) -> None:
    both = {"on_success": Callback(functions.on_success), "on_failure": Callback(functions.on_failure)}

    good = others.enqueue(functions.give, 1, **both)
    finish(good)
    bad = others.enqueue(functions.broken, **both)
    failure(connection, bad.id)

    assert callbacks(connection) == [
        ["success", good.id, {"args": [1], "kwargs": {}}],
        ["failure", bad.id, "this job is poisoned"],
    ]


def test_a_callback_that_raises_fails_its_job(connection: "redis.Redis", others: rq.Queue) -> None:
    job = others.enqueue(functions.give, on_success=Callback(functions.refuse))

    assert "ValueError: the callback refused" in failure(connection, job.id)


def test_dependent_jobs_run_after_their_dependency(connection: "redis.Redis", others: rq.Queue) -> None:
    first = others.enqueue(functions.note, "first", "0.3")
    second = others.enqueue(functions.note, "second", depends_on=first)
    others.enqueue(functions.note, "third", depends_on=[first, second])

    eventually(lambda: len(ran(connection)) == 3)

    assert names(connection) == ["first", "second", "third"]


def test_dependents_of_a_failed_job_run_only_if_they_allow_it(connection: "redis.Redis", others: rq.Queue) -> None:
    bad = others.enqueue(functions.broken_later, "0.3")
    minds = others.enqueue(functions.note, "minds", depends_on=bad)
    others.enqueue(functions.note, "does not", depends_on=Dependency([bad], allow_failure=True))

    eventually(lambda: names(connection) == ["does not"])

    assert others.deferred_job_registry.get_job_ids() == [minds.id]


def test_a_job_with_repetitions_is_repeated(connection: "redis.Redis", others: rq.Queue) -> None:
    job = others.enqueue(functions.note, "a", repeat=Repeat(times=2, interval=[0, 1]))

    eventually(lambda: len(ran(connection)) == 3)

    finish(job)
    [_, second, third] = [began for _, began in ran(connection)]
    assert 0 < third - second < 1.2
    assert len(ran(connection)) == 3


def test_a_job_can_store_its_progress(others: rq.Queue) -> None:
    job = others.enqueue(functions.mark_progress, meta={"owner": "me"})

    finish(job)

    assert job.get_meta() == {"owner": "me", "progress": 0.5}


def test_timed_out_jobs_fail_and_free_their_slots(connection: "redis.Redis", others: rq.Queue) -> None:
    finish(others.enqueue(functions.give, on_success=Callback(functions.on_success, timeout=77)))
    late = [
        others.enqueue(functions.spin, job_timeout=1),
        others.enqueue("time.sleep", 30, job_timeout=1),
        others.enqueue("time.sleep", 30, job_timeout=1, result_ttl=0),
    ]
    others.enqueue(functions.note, "meanwhile")
    eventually(lambda: names(connection) == ["meanwhile"])
    eventually(lambda: running(connection) == len(late))

    for job in late:
        assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in failure(connection, job.id)

    connection.delete("test:inside", "test:peaks")
    for _ in range(2 * CONCURRENCY):
        others.enqueue(functions.note, "after", "0.2")
    eventually(lambda: names(connection).count("after") == 2 * CONCURRENCY)
    assert connection.zrange("test:peaks", -1, -1) == [str(CONCURRENCY).encode()]


def test_no_more_jobs_run_at_once_than_their_rate_limit(connection: "redis.Redis", others: rq.Queue) -> None:
    limit = RateLimit("theirs", concurrency=2)
    failed = [others.enqueue(functions.broken_later, "0.2", rate_limit=limit) for _ in range(2)]
    for number in range(4):
        others.enqueue(functions.note, f"{number}", "0.2", rate_limit=limit)
    registry = RateLimitRegistry("theirs", connection)
    assert sorted(registry.get_allowed_job_ids()) == sorted(job.id for job in failed)
    assert registry.get_rate_limited_job_count() == 4

    eventually(lambda: len(ran(connection)) == 4)

    assert connection.zrange("test:peaks", -1, -1) == [b"2"]
    eventually(lambda: not registry.get_allowed_job_ids())


def test_delayed_jobs_keep_their_rate_limit(connection: "redis.Redis", others: rq.Queue) -> None:
    limit = RateLimit("theirs", concurrency=3)
    for number in range(6):
        others.enqueue_in(timedelta(seconds=0.5), functions.note, f"{number}", "0.2", rate_limit=limit)

    eventually(lambda: len(ran(connection)) == 6)

    assert connection.zrange("test:peaks", -1, -1) == [b"3"]
    eventually(lambda: not RateLimitRegistry("theirs", connection).get_allowed_job_ids())


def test_a_running_job_is_shown_as_started(connection: "redis.Redis", others: rq.Queue) -> None:
    before = now()
    job = others.enqueue("time.sleep", 0.5)

    eventually(lambda: status_of(job) == JobStatus.STARTED, pause=0.01)

    job.refresh()  # type: ignore[no-untyped-call]
    assert job.started_at
    assert before <= job.started_at <= now()
    assert job.worker_name == known_worker(connection).name
    assert job.id in others.started_job_registry
    finish(job)
    assert job.id not in others.started_job_registry


def test_a_job_longer_than_its_lease_is_not_abandoned(connection: "redis.Redis", others: rq.Queue) -> None:
    registry = others.started_job_registry
    before = known_worker(connection)
    job = others.enqueue("time.sleep", 1.2)

    eventually(lambda: registry.cleanup() or status_of(job) == JobStatus.FINISHED, pause=0.1)

    after = known_worker(connection)
    assert before.last_heartbeat
    assert after.last_heartbeat
    assert after.last_heartbeat - before.last_heartbeat > timedelta(seconds=0.8)
    assert job.id not in others.failed_job_registry


def test_a_started_job_is_kept_past_its_ttl(connection: "redis.Redis", others: rq.Queue) -> None:
    job = others.enqueue(functions.broken_later, "1.2", ttl=1, result_ttl=0)

    assert "poisoned" in failure(connection, job.id)


def test_delayed_jobs_run_on_time_without_a_scheduler(connection: "redis.Redis", others: rq.Queue) -> None:
    jobs = [
        others.enqueue_in(timedelta(seconds=1), functions.note, "in"),
        others.enqueue_at(now() + timedelta(seconds=1.5), functions.note, "at"),
    ]
    registry = others.scheduled_job_registry
    due = [registry.get_scheduled_time(job).timestamp() for job in jobs]

    eventually(lambda: len(ran(connection)) == 2)

    began = dict(ran(connection))
    assert 0 <= began["in"] - due[0] < 0.1
    assert 0 <= began["at"] - due[1] < 0.1


@pytest.mark.parametrize("result_ttl", [0, 60])
def test_a_job_of_a_missing_module_fails_with_the_reason(
    connection: "redis.Redis", others: rq.Queue, result_ttl: int
) -> None:
    job = others.enqueue("no.such.module", result_ttl=result_ttl)

    assert "no.such.module" in failure(connection, job.id)


@pytest.mark.parametrize("result_ttl", [0, 60])
def test_a_pickled_job_fails_with_the_reason(connection: "redis.Redis", result_ttl: int) -> None:
    pickled = rq.Queue(FETCH, connection=connection, serializer=PickleSerializer)

    job = pickled.enqueue(functions.note, "a", result_ttl=result_ttl)

    assert "can't decode byte 0x80" in failure(connection, job.id)
    assert not names(connection)


def test_a_job_with_an_invalid_timeout_runs(connection: "redis.Redis", others: rq.Queue) -> None:
    suspend(connection)
    job = others.enqueue(functions.note, "a", result_ttl=0)
    connection.hset(job.key, "timeout", "soon")

    resume(connection)

    eventually(lambda: names(connection) == ["a"])
    eventually(lambda: not leftovers(connection))


def test_a_result_that_is_no_json_is_stored_as_unserializable(others: rq.Queue) -> None:
    job = others.enqueue("datetime.datetime.now")

    finish(job)

    assert job.return_value() == UNSERIALIZABLE_RETURN_VALUE_PAYLOAD


@pytest.mark.parametrize("result_ttl", [0, 60])
def test_a_job_fails_also_with_an_unencodable_reason(
    connection: "redis.Redis", others: rq.Queue, result_ttl: int
) -> None:
    jobs = [others.enqueue(functions.fail_with, "\ud800", result_ttl=result_ttl) for _ in range(CONCURRENCY)]

    for job in jobs:
        assert "RuntimeError" in failure(connection, job.id)
    assert not running(connection)
