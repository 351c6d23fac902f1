"""Taking and ending jobs in batches on a real Valkey: two workers at one job never harm each other's work."""

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
    """Makes the batches of one worker; a lease is over at once, as if the worker had died."""
    return lambda worker: Batches(connection, QUEUES, worker=worker, lease=-1)


def take_one(batches: Batches) -> Taken:
    [job] = batches.take(1)
    return job


def test_no_more_is_taken_than_wanted(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"job-{number}") for number in range(5)))

    assert [job.job_id for job in make("a").take(3)] == ["job-0", "job-1", "job-2"]
    assert [job.job_id for job in make("b").take(3)] == ["job-3", "job-4"]
    assert make("c").take(3) == []


def test_what_is_taken_says_what_to_do(queue: Queue, make: Make) -> None:
    queue.put(step("note", "a", queue=DELIVER))

    job = take_one(make("w"))

    assert (job.job_id, job.origin, job.begun_before) == ("a", DELIVER, False)
    assert job.data


def test_of_many_delayed_jobs_those_that_are_due_are_taken(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"due-{n}", wait=-1) for n in range(3)), step("note", "early", wait=60))

    assert sorted(job.job_id for job in make("w").take(10)) == ["due-0", "due-1", "due-2"]


def test_a_job_that_vanished_is_skipped(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "gone"), step("note", "scheduled-gone", wait=-1), step("note", "there"))
    connection.delete("rq:job:gone", "rq:job:scheduled-gone")

    assert [job.job_id for job in make("w").take(10)] == ["there"]


@pytest.mark.parametrize("job_id", [b"string", b"\xff", "\u00fc".encode()])
def test_what_is_no_job_is_skipped_and_loses_none_that_are(
    connection: "redis.Redis", queue: Queue, make: Make, job_id: bytes
) -> None:
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


def test_a_job_that_says_of_no_queue_is_of_the_one_where_it_lay(
    connection: "redis.Redis", queue: Queue, make: Make
) -> None:
    queue.put(step("note", "a"), step("note", "b"))
    connection.hdel("rq:job:b", "origin")

    assert [job.origin for job in make("w").take(10)] == [FETCH, FETCH]
    assert make("w").recover() == 2


def test_the_jobs_of_a_queue_leave_room_for_those_of_the_queues_behind(queue: Queue, make: Make) -> None:
    queue.put(*(step("note", f"deliver-{number}", queue=DELIVER) for number in range(5)))
    queue.put(*(step("note", f"fetch-{number}") for number in range(5)))

    assert [job.job_id for job in make("w").take(6, most=2)][:3] == ["deliver-0", "deliver-1", "fetch-0"]
    assert [job.job_id for job in make("w").take(6, most=3, rooms={DELIVER: 0})] == ["fetch-4"]


def test_a_job_is_recovered_when_its_lease_is_over(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    dead, alive = make("dead"), make("alive")
    take_one(dead)

    assert alive.recover() == 1

    again = take_one(alive)
    assert (again.job_id, again.begun_before) == ("a", True)
    assert running(connection) == 1


def test_a_renewed_lease_is_not_over(connection: "redis.Redis", queue: Queue, make: Make) -> None:
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
def test_who_has_lost_a_job_to_another_does_not_end_it(
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
def test_of_two_who_run_one_job_the_last_to_start_ends_it(
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


def test_ending_again_changes_nothing(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "later"), step("note", "done"))
    batches = make("w")
    later, done = batches.take(2)

    for _ in range(2):
        batches.end([Ended(later, wait=60), Ended(done)])

    assert connection.zcard(f"rq:scheduled:{FETCH}") == 1
    assert connection.llen(f"rq:queue:{FETCH}") == 0
    assert not connection.exists("rq:job:done")


def test_a_job_comes_again_after_its_wait(connection: "redis.Redis", queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    before = time.time()

    batches.end([Ended(take_one(batches), wait=60.25)])

    assert 60.25 <= (connection.zscore(f"rq:scheduled:{FETCH}", "a") or 0) - before < 61
    assert batches.take(1) == []


@pytest.mark.parametrize(("wait", "state", "left"), [(None, None, []), (60.0, b"scheduled", ["a"])])
def test_a_job_that_goes_on_and_ends_in_one_batch_has_ended(
    wait: float | None, state: bytes | None, left: list[str], connection: "redis.Redis", queue: Queue, make: Make
) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    job = take_one(batches)

    batches.end([Ended(job, answered=True, goes_on=True), Ended(job, wait=wait)])

    assert status(connection, "a") == state
    assert scheduled(connection, FETCH) == left
    assert running(connection) == 0


def test_a_job_that_is_put_again_while_it_runs_runs_again(queue: Queue, make: Make) -> None:
    queue.put(step("note", "a"))
    batches = make("w")
    first = take_one(batches)
    queue.put(step("note", "a"))

    batches.end([Ended(first)])

    assert take_one(batches).job_id == "a"
