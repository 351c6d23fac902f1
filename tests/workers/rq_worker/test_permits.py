"""Permits of a provider: none is lost for ever, also if a job is removed, recovered or enqueued twice."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import redis
import rq
from hypothesis import example, given
from hypothesis import strategies as st
from rq.job import Job
from rq.serializers import JSONSerializer

from persistence.records.job import Attempt
from providers.model import Provider
from tests.support.engines.queue_state import QueueState
from tests.support.engines.rq_state import FETCH, step
from workers.queue import QUEUES, Queue, Step, fetch_job_id
from workers.rq_worker.leases import Batches, Ended, Taken

LEASE = 20  # seconds
Make = Callable[[str], Batches]


class Clock:
    """A clock (seconds since the epoch) that the test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(connection: "redis.Redis", clock: Clock) -> Queue:
    providers = {"gas": Provider(url="http://x", concurrency=1)}
    return Queue(connection, "tests.support.workers.job_functions", providers.get, clock=clock)


@pytest.fixture
def make(connection: "redis.Redis", clock: Clock) -> Make:
    """Makes the batches of one worker."""
    return lambda name: Batches(connection, QUEUES, worker=name, lease=LEASE, clock=clock)


def gas(job_id: str, at: float | None = None) -> Step:
    moment = None if at is None else datetime.fromtimestamp(at, UTC)
    return replace(step("note", job_id, provider="gas"), at=moment)


def take_one(batches: Batches) -> Taken:
    [job] = batches.take(1)
    return job


def drain(make: Make, clock: Clock) -> list[str]:
    """Runs all jobs for a simulated hour; returns their ids in the order in which they ran."""
    worker, ran = make("last"), []
    for _ in range(60):
        clock.now += 60
        worker.recover()
        while taken := worker.take(10):
            ran += [job.job_id for job in taken]
            worker.end([Ended(job, answered=True) for job in taken])
    return ran


def test_a_job_that_reschedules_itself_runs_again(
    connection: "redis.Redis", queue: Queue, make: Make, clock: Clock
) -> None:
    queue.put(gas("a"))
    worker = make("w")
    job = take_one(worker)
    queue.put(gas("a", clock.now + 50))

    worker.end([Ended(job)])

    assert worker.take(1) == []
    assert QueueState.read(connection).violations() == []
    queue.put(gas("b"))
    assert drain(make, clock) == ["b", "a"]


def test_a_late_enqueue_of_a_running_job_keeps_its_state(
    connection: "redis.Redis", queue: Queue, make: Make, clock: Clock
) -> None:
    queue.put(gas("next"))
    job = take_one(make("quick"))
    before = connection.hgetall("rq:job:next")

    queue.put(gas("next", clock.now - 5))

    assert connection.hget("rq:job:next", "again")
    connection.hdel("rq:job:next", "again")
    assert connection.hgetall("rq:job:next") == before
    make("quick").end([Ended(job, answered=True)])
    queue.put(gas("b"))
    assert drain(make, clock) == ["b"]


def test_six_concurrent_reconcilers_lose_no_permit(
    connection: "redis.Redis", queue: Queue, make: Make, clock: Clock
) -> None:
    steps = [gas(f"job-{number}") for number in range(40)]
    over = threading.Event()

    def heal() -> None:
        while not over.is_set():
            queue.put_missing(steps)

    reconcilers = [threading.Thread(target=heal) for _ in range(6)]
    for reconciler in reconcilers:
        reconciler.start()
    worker, ended = make("w"), 0
    while ended < 400:
        for job in worker.take(1):
            worker.end([Ended(job, wait=0.0, answered=True)])
            ended += 1
    over.set()
    for reconciler in reconcilers:
        reconciler.join()

    assert QueueState.read(connection).violations() == []
    assert sorted(set(drain(make, clock))) == sorted(step.job_id for step in steps)


@pytest.mark.parametrize("began", [False, True], ids=["queued", "started"])
@pytest.mark.parametrize("way", ["rq empty", "rq delete", "rq cancel", "list deleted", "leases deleted"])
def test_a_job_removed_by_hand_returns_its_permit(
    way: str, began: bool, connection: "redis.Redis", queue: Queue, make: Make, clock: Clock
) -> None:
    queue.put(gas("a"), gas("b"))
    if began:
        make("dies").take(1)
    theirs = rq.Queue(FETCH, connection=connection, serializer=JSONSerializer)
    job = Job.fetch("a", connection=connection, serializer=JSONSerializer)
    match way:
        case "rq empty":
            theirs.empty()  # type: ignore[no-untyped-call]
        case "rq delete":
            job.delete()
        case "rq cancel":
            job.cancel()
        case "list deleted":
            connection.delete(theirs.key)
        case "leases deleted":
            connection.delete(f"rq:wip:{FETCH}")

    for _ in range(2):
        clock.now += LEASE + 1
        make("other").recover()
        queue.sweep()
    queue.put_missing([gas("b")])

    assert QueueState.read(connection).violations() == []
    assert "b" in drain(make, clock)
    assert queue.sweep() == 0


def test_a_sweep_leaves_the_permits_of_running_jobs(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(gas("a"), gas("b"))
    job = take_one(make("w"))
    connection.delete("rq:job:a")

    assert queue.sweep() == 0
    assert make("other").take(1) == []

    make("w").end([Ended(job, answered=True)])
    assert take_one(make("other")).job_id == "b"


def test_a_job_that_returned_its_permit_waits_for_another(
    connection: "redis.Redis", queue: Queue, make: Make, clock: Clock
) -> None:
    queue.put(gas("a"), gas("b"))
    dies = make("dies")
    job = take_one(dies)
    dies.end([Ended(job, answered=True, goes_on=True)])
    other = make("other")
    held = take_one(other)
    clock.now += LEASE - 1
    other.renew([held])
    clock.now += 2

    assert other.recover() == 1

    assert other.take(5) == []
    other.end([Ended(held, answered=True)])
    assert take_one(other).job_id == "a"


def test_a_queued_job_in_no_list_is_missing(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    steps = [step("note", name) for name in "abc"]
    queue.put(*steps)

    assert connection.lpop(f"rq:queue:{FETCH}") == b"a"

    assert queue.put_missing(steps) == 1
    assert [job.job_id for job in make("w").take(5)] == ["b", "c", "a"]


def test_a_recovered_job_is_not_missing(queue: Queue, make: Make, clock: Clock) -> None:
    steps = [step("note", name) for name in "abc"]
    queue.put(*steps)
    make("dies").take(2)
    clock.now += LEASE + 1
    make("other").recover()

    assert queue.put_missing(steps) == 0


def _attempt(request_id: str, provider: str) -> Attempt:
    return Attempt(request_id, provider, 0, 0, 1, "2026-11-24T10:00:00.000Z")


attempts = st.builds(
    Attempt,
    request_id=st.text("z-north0_", min_size=1, max_size=8),
    provider=st.sampled_from(["gas", "north-gas", "gas-1", "1-1"]),
    index=st.integers(0, 49),
    made=st.integers(0, 2000),
    revision=st.integers(1, 30),
    deadline=st.just("2026-11-24T10:00:00.000Z"),
)


@example(_attempt("z-north", "gas"), _attempt("z", "north-gas"))
@given(attempts, attempts)
def test_ids_of_different_attempts_differ(one: Attempt, other: Attempt) -> None:
    same = (one.request_id, one.index, one.revision, one.made) == (
        other.request_id,
        other.index,
        other.revision,
        other.made,
    )

    assert (fetch_job_id(one) == fetch_job_id(other)) == same
    assert Job.create("f", id=fetch_job_id(one), connection=redis.Redis()).id == fetch_job_id(one)
