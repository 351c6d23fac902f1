"""Claims and completions in batches on a real Valkey: two workers with one job never undo each other's work."""

import time
from collections.abc import Callable

import pytest
import redis

from tests.support.engines.rq_state import DELIVER, FETCH, leftovers, running, scheduled, status, step
from workers.queue import QUEUES, Queue
from workers.rq_worker.leases import Batches, Ended, Taken

Make = Callable[[str], Batches]


@pytest.fixture
def make(connection: "redis.Redis") -> Make:
    """Makes the batches of one worker; its leases run out at once, as if it had died."""
    return lambda worker: Batches(connection, QUEUES, worker=worker, lease=-1)


def take_one(batches: Batches) -> Taken:
    [job] = batches.take(1)
    return job


def test_no_more_jobs_are_claimed_than_wanted(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"job-{number}") for number in range(5)))

    assert [job.job_id for job in make("a").take(3)] == ["job-0", "job-1", "job-2"]
    assert [job.job_id for job in make("b").take(3)] == ["job-3", "job-4"]
    assert make("c").take(3) == []


def test_a_claimed_job_holds_its_queue_and_payload(queue: Queue, make: Make) -> None:
    queue.put(step("note", "a", queue=DELIVER))

    job = take_one(make("w"))

    assert (job.job_id, job.origin, job.begun_before) == ("a", DELIVER, False)
    assert job.data


def test_only_due_delayed_jobs_are_claimed(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"due-{n}", wait=-1) for n in range(3)), step("note", "early", wait=60))

    assert sorted(job.job_id for job in make("w").take(10)) == ["due-0", "due-1", "due-2"]


def test_a_deleted_job_is_skipped(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "gone"), step("note", "scheduled-gone", wait=-1), step("note", "there"))
    connection.delete("rq:job:gone", "rq:job:scheduled-gone")

    assert [job.job_id for job in make("w").take(10)] == ["there"]


@pytest.mark.parametrize("job_id", [b"string", b"\xff", "\u00fc".encode()])
def test_an_entry_that_is_no_job_is_skipped(connection: "redis.Redis", queue: Queue, make: Make, job_id: bytes) -> None:
    if job_id == b"string":
        connection.set("rq:job:string", "x")
    else:
        connection.hset(b"rq:job:" + job_id, mapping={"data": "x", "status": "queued"})
    queue.put(step("note", "before"))
    connection.rpush(f"rq:queue:{FETCH}", job_id)
    connection.zadd(f"rq:scheduled:{FETCH}", {job_id: 1})
    queue.put(step("note", "behind"))

    assert [job.job_id for job in make("w").take(10)] == ["before", "behind"]
    assert make("w").take(10) == []
    assert make("w").recover() == 2


def test_a_job_without_an_origin_has_the_queue_of_its_list(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"), step("note", "b"))
    connection.hdel("rq:job:b", "origin")

    assert [job.origin for job in make("w").take(10)] == [FETCH, FETCH]
    assert make("w").recover() == 2


def test_a_full_queue_leaves_slots_for_the_next_queue(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"deliver-{number}", queue=DELIVER) for number in range(5)))
    queue.put(*(step("note", f"fetch-{number}") for number in range(5)))

    assert [job.job_id for job in make("w").take(6, most=2)][:3] == ["deliver-0", "deliver-1", "fetch-0"]
    assert [job.job_id for job in make("w").take(6, most=3, rooms={DELIVER: 0})] == ["fetch-4"]


def test_a_job_is_recovered_after_its_lease(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    dead, alive = make("dead"), make("alive")
    take_one(dead)

    assert alive.recover() == 1

    again = take_one(alive)
    assert (again.job_id, again.begun_before) == ("a", True)
    assert running(connection) == 1


def test_a_job_with_a_renewed_lease_is_not_recovered(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    job = take_one(make("w"))

    Batches(connection, QUEUES, worker="w", lease=60).renew([job])

    assert make("other").recover() == 0


def test_a_lost_lease_cannot_be_renewed(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    slow = make("slow")
    job = take_one(slow)
    make("other").recover()

    slow.renew([job])

    assert not running(connection)


@pytest.mark.parametrize("late", [{}, {"wait": 5}])
def test_a_worker_that_lost_a_job_cannot_complete_it(
    connection: "redis.Redis", queue: Queue, make: Make, late: dict[str, float]
) -> None:
    queue.put(step("note", "a"))
    slow, other = make("slow"), make("other")
    lost = take_one(slow)
    other.recover()
    held = take_one(other)

    slow.end([Ended(lost, **late)])  # type: ignore[arg-type]

    assert status(connection, "a") == b"started"
    other.end([Ended(held)])
    assert not leftovers(connection)


@pytest.mark.parametrize("first", [0, 1])
def test_the_last_worker_to_claim_a_job_completes_it(
    connection: "redis.Redis", queue: Queue, make: Make, first: int
) -> None:
    queue.put(step("note", "a"))
    batches = [make("one"), make("two")]
    jobs = [take_one(batches[0])]
    batches[1].recover()
    jobs.append(take_one(batches[1]))

    batches[first].end([Ended(jobs[first], wait=60 if first else None)])
    batches[1 - first].end([Ended(jobs[1 - first], wait=None if first else 60)])

    assert status(connection, "a") == b"scheduled"
    assert not running(connection)


def test_completing_a_job_again_changes_nothing(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "later"), step("note", "done"))
    batches = make("w")
    later, done = batches.take(2)

    for _ in range(2):
        batches.end([Ended(later, wait=60), Ended(done)])

    assert connection.zcard(f"rq:scheduled:{FETCH}") == 1
    assert connection.llen(f"rq:queue:{FETCH}") == 0
    assert not connection.exists("rq:job:done")


def test_a_job_with_a_wait_is_scheduled_after_it(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    before = time.time()

    batches.end([Ended(take_one(batches), wait=60.25)])

    assert 60.25 <= (connection.zscore(f"rq:scheduled:{FETCH}", "a") or 0) - before < 61
    assert batches.take(1) == []


@pytest.mark.parametrize(("wait", "state", "left"), [(None, None, []), (60.0, b"scheduled", ["a"])])
def test_a_job_continued_and_completed_in_one_batch_is_complete(
    wait: float | None, state: bytes | None, left: list[str], connection: "redis.Redis", queue: Queue, make: Make
) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    job = take_one(batches)

    batches.end([Ended(job, answered=True, goes_on=True), Ended(job, wait=wait)])

    assert status(connection, "a") == state
    assert scheduled(connection, FETCH) == left
    assert running(connection) == 0


def test_a_job_enqueued_while_it_runs_runs_again(queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    first = take_one(batches)
    queue.put(step("note", "a"))

    batches.end([Ended(first)])

    assert take_one(batches).job_id == "a"
