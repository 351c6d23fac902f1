"""The queue: each step is one RQ job, enqueuing it twice is once, and the loss of Redis is tolerated."""

import json
import socket
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import rq
from rq.executions import Execution
from rq.job import Job
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer
from rq.utils import utcparse

from datahog.bootstrap.wiring import Wiring
from persistence.records.request import Request
from providers.model import Provider
from tests.support.engines.rq_state import FETCH, leftovers, status, step
from workers.queue import QUEUES, Queue, deliver_step, fetch_step, fetch_steps, submit_step
from workers.redis_breaker import RedisBreaker
from workers.rq_worker.leases import Batches

SOON = datetime.now(UTC).replace(microsecond=123_456) + timedelta(hours=1)


@pytest.fixture
def request_record(wiring: Wiring) -> Request:
    """A request for gas and water."""
    providers = [(name, f"http://x/{name}") for name in ("gas", "water")]
    deadline = datetime.now(UTC) + timedelta(days=1)
    request, _ = wiring.requests.create("r1", providers, "http://callback", deadline=deadline, content={})
    return request


@pytest.fixture
def without_redis() -> Queue:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pool = redis.ConnectionPool(port=port)
    return Queue(redis.Redis(connection_pool=pool), "tests.support.workers.job_functions", lambda _: None)


def payload(connection: "redis.Redis", job_id: str) -> Any:
    data = connection.hget(f"rq:job:{job_id}", "data")
    assert isinstance(data, bytes)
    return json.loads(zlib.decompress(data))


def test_an_enqueued_step_is_a_job_that_rq_can_read(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("note", "a", "0"))

    [job] = rq.Queue(FETCH, connection=connection, serializer=JSONSerializer).jobs

    assert (job.id, job.func_name, job.args) == ("a", "tests.support.workers.job_functions.note", ["a", "0"])
    assert job.get_status() == "queued"


def test_an_enqueued_job_has_the_fields_that_rq_writes(
    connection: "redis.Redis", queue: Queue, providers: dict[str, Provider]
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=7)
    queue.put(step("note", "ours", provider="gas"))
    rqs_own = rq.Queue(FETCH, connection=connection, serializer=JSONSerializer)
    rqs_own.enqueue(
        "tests.support.workers.job_functions.note",
        "ours",
        job_id="theirs",
        description="theirs",
        result_ttl=0,
        job_timeout=4000,
        rate_limit=RateLimit("gas", 7),
    )

    ours, theirs = (rqs_own.fetch_job(job_id) for job_id in ("ours", "theirs"))

    assert ours
    assert theirs
    made, wanted = ours.to_dict(), theirs.to_dict()
    for moment in ("created_at", "enqueued_at"):
        assert abs(utcparse(made[moment]) - utcparse(wanted[moment])) < timedelta(seconds=5)
    unlike = {"created_at", "enqueued_at", "description", "data"}
    assert {name: made[name] for name in made.keys() - unlike} == {name: wanted[name] for name in made.keys() - unlike}
    assert [name for name in wanted.keys() - made.keys() if wanted[name] not in (None, "")] == []
    assert (ours.func_name, ours.args, ours.kwargs) == (theirs.func_name, theirs.args, theirs.kwargs)
    assert connection.smembers("rq:queues") == {f"rq:queue:{FETCH}".encode()}


def test_a_delayed_step_is_scheduled_to_the_microsecond(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(replace(step("note", "a"), at=SOON))

    assert connection.zscore(f"rq:scheduled:{FETCH}", "a") == SOON.timestamp()
    assert connection.hget("rq:job:a", "status") == b"scheduled"


def test_jobs_carry_ids_and_progress(wiring: Wiring, request_record: Request) -> None:
    retrieval = wiring.retrievals.create("r2", ["gas"], deadline=SOON)
    now = datetime.now(UTC)
    steps = [*fetch_steps(request_record, now), deliver_step(request_record), submit_step(retrieval)]

    wiring.queue.put(*steps)

    assert [payload(wiring.redis, one.job_id) for one in steps] == [
        ["datahog.jobs.fetch", None, ["r1", "gas", 0, 0, 1, request_record.deadline, now.timestamp()], {}],
        ["datahog.jobs.fetch", None, ["r1", "water", 1, 0, 1, request_record.deadline, now.timestamp()], {}],
        ["datahog.jobs.deliver", None, ["r1"], {}],
        ["datahog.jobs.submit", None, ["r2"], {}],
    ]


def test_each_attempt_has_its_own_job_id(request_record: Request) -> None:
    gas, water = map(request_record.attempt, request_record.jobs)

    ids = {
        fetch_step(gas, SOON).job_id,
        fetch_step(replace(gas, made=1), SOON).job_id,
        fetch_step(water, SOON).job_id,
        deliver_step(request_record).job_id,
        deliver_step(request_record, attempts=1).job_id,
    }

    assert len(ids) == 5
    assert fetch_step(gas, SOON + timedelta(hours=1)).job_id in ids


def test_a_request_has_a_step_for_each_open_job_at_its_time(wiring: Wiring, request_record: Request) -> None:
    gas, water = request_record.jobs
    wiring.requests.finish_job(request_record.attempt(gas), b"[]")
    wiring.requests.record_failure(request_record.attempt(water), "HTTP 500", SOON)

    [one] = fetch_steps(wiring.requests.get("r1"), SOON)

    assert one.args[:4] == ("r1", "water", 1, 1)
    assert one.at == SOON.replace(microsecond=123_000)


def test_submission_cancellation_and_check_are_different_steps(wiring: Wiring) -> None:
    retrieval = wiring.retrievals.create("r1", ["gas"], deadline=SOON)
    cancelled = wiring.retrievals.request_cancel("r1")
    late = wiring.retrievals.cancel_came_late(cancelled)

    assert len({submit_step(each).job_id for each in (retrieval, cancelled, late)}) == 3


def test_a_waiting_or_claimed_step_is_not_missing(
    connection: "redis.Redis", queue: Queue, providers: dict[str, Provider]
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=1)
    steps = [
        step("note", "started"),
        step("note", "queued", provider="gas"),
        step("note", "limited", provider="gas"),
        step("note", "scheduled", wait=60),
    ]
    queue.put(*steps)
    assert len(Batches(connection, QUEUES, worker="w", lease=60).take(1)) == 1

    assert queue.put_missing(steps) == 0

    assert [status(connection, step.job_id) for step in steps] == [b"started", b"queued", b"rate_limited", b"scheduled"]


def test_a_job_run_by_a_stock_rq_worker_is_not_missing(connection: "redis.Redis", queue: Queue) -> None:
    queue.put(step("note", "a"))
    connection.lpop(f"rq:queue:{FETCH}")
    connection.hset("rq:job:a", "status", "started")
    with connection.pipeline() as pipeline:
        Execution.create(Job.fetch("a", connection=connection, serializer=JSONSerializer), 60, pipeline)
        pipeline.execute()

    assert queue.put_missing([step("note", "a")]) == 0

    connection.delete("rq:executions:a")
    assert queue.put_missing([step("note", "a")]) == 1


@pytest.mark.parametrize("lost", [f"rq:wip:{FETCH}", f"rq:scheduled:{FETCH}", "rq:rl:gas:rate_limited"])
def test_a_job_not_in_the_list_of_its_status_is_missing(
    connection: "redis.Redis", queue: Queue, providers: dict[str, Provider], lost: str
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=1)
    steps = [
        step("note", "started", provider="gas"),
        step("note", "limited", provider="gas"),
        step("note", "scheduled", wait=60),
    ]
    queue.put(*steps)
    Batches(connection, QUEUES, worker="w", lease=60).take(1)

    connection.delete(lost)

    assert queue.put_missing(steps) == 1
    assert queue.put_missing(steps) == 0


@pytest.mark.parametrize("status", ["failed", "finished", "canceled", "stopped", "deferred"])
def test_an_ended_job_is_missing(connection: "redis.Redis", queue: Queue, status: str) -> None:
    connection.hset("rq:job:a", "status", status)

    assert queue.put_missing([step("note", "a"), step("note", "b")]) == 2

    assert connection.lrange(f"rq:queue:{FETCH}", 0, -1) == [b"a", b"b"]


def test_an_empty_enqueue_writes_nothing(connection: "redis.Redis", queue: Queue) -> None:
    queue.put()

    assert queue.put_missing([]) == 0
    assert not leftovers(connection)


def test_an_enqueued_step_wakes_the_waiting_worker(queue: Queue) -> None:
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)

    queue.put(step("note", "a"))
    queue.put_missing([step("note", "a")])

    assert woken == [True]


def test_an_enqueue_without_redis_is_left_to_the_reconciler(
    without_redis: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    without_redis.put(step("note", "a"), step("note", "b", wait=1))

    assert "Redis is away, so steps are left to the reconciler" in caplog.text


def test_the_search_for_missing_steps_without_redis_raises(without_redis: Queue) -> None:
    with pytest.raises(redis.RedisError):
        without_redis.put_missing([step("note", "a")])


def test_the_queues_are_in_order_of_priority() -> None:
    assert QUEUES == ("datahog-deliver", "datahog-submit", "datahog-fetch")


def test_skipped_steps_are_enqueued_once_redis_responds(
    connection: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = RedisBreaker()
    queue = Queue(connection, "tests.support.workers.job_functions", lambda _: None, breaker)
    with monkeypatch.context() as away:
        away.setattr(breaker, "_admitted", lambda: None)
        queue.put(step("note", "a"), step("note", "b", wait=60))
    assert not connection.exists("rq:job:a", "rq:job:b")

    with breaker.observed():
        connection.ping()

    assert (status(connection, "a"), status(connection, "b")) == (b"queued", b"scheduled")
