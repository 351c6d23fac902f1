"""A provider's limit and circuit breaker on a real Valkey: they hold over all workers, and other jobs wait."""

import time
from collections.abc import Callable, Sequence

import pytest
import redis
import rq
from rq.rate_limit import RateLimitRegistry
from rq.registry import clean_registries
from rq.serializers import JSONSerializer

from datahog.settings import Settings
from providers.model import BreakerPolicy, Provider
from tests.support.engines.rq_state import FETCH, leftovers, names, queued, step
from tests.support.workers.job_functions import ran
from workers.queue import QUEUES, Queue
from workers.rq_worker.leases import Batches, Ended, Taken

Make = Callable[[str], Batches]
LEASE = 20  # seconds


class Clock:
    """A clock (seconds since the epoch) that the test sets."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(connection: "redis.Redis", clock: Clock) -> Make:
    """Makes the batches of one worker."""
    return lambda worker: Batches(connection, QUEUES, worker=worker, lease=LEASE, clock=clock)


@pytest.fixture
def worker(make: Make) -> Batches:
    return make("w")


@pytest.fixture(autouse=True)
def gas(providers: dict[str, Provider]) -> None:
    """Gas has five permits, and three failures in a row open its circuit breaker for 30 s."""
    breaker = BreakerPolicy(failures=3, open_seconds=30)
    providers["gas"] = Provider(url="http://x", concurrency=5, breaker=breaker, connect_timeout=3, total_timeout=60)
    providers["water"] = Provider(url="http://x", concurrency=5)


def put(queue: Queue, count: int, provider: str = "gas", first: int = 0, wait: float | None = None) -> list[str]:
    """Enqueues `count` jobs of a provider; returns their ids. `wait` is in seconds."""
    ids = [f"{provider}-{number}" for number in range(first, first + count)]
    queue.put(*(step("note", job_id, provider=provider, wait=wait) for job_id in ids))
    return ids


def ids_of(jobs: Sequence[Taken]) -> list[str]:
    return [job.job_id for job in jobs]


def fail(worker: Batches, queue: Queue, times: int) -> None:
    """Makes attempts at gas fail, one after the other."""
    for number in range(times):
        put(queue, 1, first=1000 + number)
        [job] = worker.take(1)
        worker.end([Ended(job, answered=False)])


def test_the_limit_holds_over_all_workers_in_queue_order(queue: Queue, make: Make) -> None:
    one, other = make("one"), make("other")
    expected = put(queue, 12)

    taken = [*one.take(3), *other.take(10)]
    assert ids_of(taken) == expected[:5]
    assert [*one.take(10), *other.take(10)] == []

    one.end([Ended(taken[0], answered=True), Ended(taken[1], answered=True)])
    assert ids_of(other.take(10)) == expected[5:7]


def test_waiting_jobs_are_in_the_registry_of_rq(connection: "redis.Redis", queue: Queue) -> None:
    expected = put(queue, 7)

    registry = RateLimitRegistry("gas", connection)
    assert registry.get_allowed_job_ids() == expected[:5]
    assert registry.get_rate_limited_job_ids() == expected[5:]
    assert registry.concurrency == 5
    assert queued(connection, FETCH) == expected[:5]
    job = rq.job.Job.fetch("gas-6", connection=connection, serializer=JSONSerializer)
    assert (job.get_status(), job.rate_limit_key, job.rate_limit_concurrency) == ("rate_limited", "gas", 5)


def test_a_provider_with_thousands_waiting_does_not_block_others(queue: Queue, worker: Batches) -> None:
    slow = put(queue, 10_000)
    others = put(queue, 3, "water")

    assert ids_of(worker.take(100)) == slow[:5] + others


def test_a_provider_without_a_tight_limit_is_held_to_its_group(
    queue: Queue, worker: Batches, providers: dict[str, Provider]
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=10_000)
    slow = put(queue, 3000)
    others = put(queue, 3, "water")

    taken = worker.take(10, most=6)
    for _ in range(3):
        taken += worker.take(4, most=4, rooms={"gas": 0})

    assert ids_of(taken) == slow[:6] + others
    worker.end([Ended(taken[0], answered=True)])
    late = put(queue, 1, "water", first=3)
    assert ids_of(worker.take(2, most=2, rooms={"gas": 1})) == [slow[6], *late]


def test_held_back_providers_take_turns(
    queue: Queue, worker: Batches, providers: dict[str, Provider], clock: Clock
) -> None:
    hogs = [f"hog{number}" for number in range(10)]
    for name in hogs:
        providers[name] = Provider(url="http://x", concurrency=100)
        put(queue, 100, name)
    while worker.take(50, most=0):
        pass

    taken = []
    for _ in range(5):
        clock.now += 0.001
        taken += worker.take(2, most=2)

    assert {job.key for job in taken} == set(hogs)


@pytest.mark.parametrize("outcome", [{"answered": True}, {"answered": False}, {}, {"wait": 60.0}])
def test_a_permit_is_returned_with_every_outcome(queue: Queue, worker: Batches, outcome: dict[str, float]) -> None:
    put(queue, 6)
    taken = worker.take(10)

    worker.end([Ended(taken[0], **outcome)])  # type: ignore[arg-type]

    assert ids_of(worker.take(10)) == ["gas-5"]


def test_a_continuing_job_can_return_its_permit(queue: Queue, worker: Batches) -> None:
    put(queue, 8)
    first, second, *_ = worker.take(10)

    worker.end([Ended(first, answered=True, goes_on=True)])

    assert ids_of(worker.take(10)) == ["gas-5"]
    assert worker.holds(first)
    worker.end([Ended(first)])
    assert not worker.holds(first)
    assert worker.take(10) == []
    worker.end([Ended(second, answered=True)])
    assert ids_of(worker.take(10)) == ["gas-6"]


def test_completing_again_returns_no_second_permit(queue: Queue, worker: Batches) -> None:
    put(queue, 8)
    first, *_ = worker.take(10)

    for _ in range(2):
        worker.end([Ended(first, answered=True)])

    assert ids_of(worker.take(10)) == ["gas-5"]


def test_permits_of_a_dead_worker_are_kept_until_recovery(queue: Queue, make: Make, clock: Clock) -> None:
    put(queue, 8)
    held = ids_of(make("dead").take(3))
    alive = make("alive")
    alive_holds = alive.take(10)

    clock.now += LEASE - 1
    alive.renew(alive_holds)
    assert (alive.recover(), alive.take(10)) == (0, [])
    clock.now += 2

    assert alive.recover() == 3
    assert sorted(ids_of(alive.take(10))) == sorted(held)


def test_a_delayed_job_takes_a_permit_when_it_is_due(queue: Queue, worker: Batches, clock: Clock) -> None:
    put(queue, 7, wait=10)
    put(queue, 4, first=100)
    assert len(worker.take(20)) == 4

    clock.now += 11

    assert len(worker.take(20)) == 1


def test_the_cleanup_of_rq_keeps_limits_and_breakers(
    connection: "redis.Redis", queue: Queue, worker: Batches, clock: Clock
) -> None:
    delayed = put(queue, 7, wait=10)
    fail(worker, queue, 2)

    clean_registries(rq.Queue(FETCH, connection=connection))
    clock.now += 11

    taken = worker.take(20)
    assert sorted(ids_of(taken)) == delayed[:5]
    worker.end([Ended(taken[0], answered=False)])
    assert worker.take(20) == []
    clock.now += 31
    assert len(worker.take(20)) == 1


def test_dropped_jobs_return_their_permits(connection: "redis.Redis", queue: Queue, worker: Batches) -> None:
    expected = put(queue, 12)
    running = worker.take(2)
    delayed = put(queue, 1, first=100, wait=60)

    queue.drop(*expected[:3], expected[10], *delayed)

    assert ids_of(worker.take(20)) == expected[3:6]
    worker.end([Ended(job, answered=True) for job in running])
    assert ids_of(worker.take(20)) == expected[6:8]
    assert not connection.exists("rq:job:gas-2", "rq:job:gas-10", "rq:job:gas-100")


def test_failures_in_a_row_open_the_breaker_for_all_workers(queue: Queue, make: Make, clock: Clock) -> None:
    fail(make("one"), queue, 3)
    expected = put(queue, 10)
    others = put(queue, 2, "water")
    worker = make("other")

    assert ids_of(worker.take(10)) == others
    clock.now += 29
    assert worker.take(10) == []
    clock.now += 2

    assert ids_of(worker.take(10)) == expected[:1]


def test_a_held_provider_is_probed_after_the_clock_is_set_back(queue: Queue, worker: Batches, clock: Clock) -> None:
    clock.now += 3600
    fail(worker, queue, 3)
    expected = put(queue, 10)
    assert worker.take(10) == []
    clock.now -= 3600

    worker.wait_no_more()

    assert ids_of(worker.take(10)) == expected[:1]


def test_delayed_jobs_are_due_after_the_clock_is_set_back(queue: Queue, worker: Batches) -> None:
    expected = put(queue, 3, wait=3600)
    assert worker.take(10) == []

    worker.wait_no_more()
    worker.wait_no_more()

    assert sorted(ids_of(worker.take(10))) == expected


def test_a_job_put_while_running_is_due_after_a_clock_step(queue: Queue, worker: Batches) -> None:
    put(queue, 1)
    taken = worker.take(1)
    put(queue, 1, wait=3600)

    worker.wait_no_more()
    worker.end([Ended(job, answered=True) for job in taken])

    assert ids_of(worker.take(1)) == ids_of(taken)


def test_a_lease_is_shortened_after_the_clock_is_set_back(queue: Queue, make: Make, clock: Clock) -> None:
    clock.now += 3600
    put(queue, 1)
    make("dead").take(1)
    clock.now -= 3600
    worker = make("alive")

    worker.wait_no_more()

    assert worker.recover() == 0
    clock.now += LEASE + 1
    assert worker.recover() == 1


def test_a_success_between_failures_keeps_the_breaker_closed(queue: Queue, worker: Batches) -> None:
    fail(worker, queue, 2)
    put(queue, 1)
    worker.end([Ended(job, answered=True) for job in worker.take(1)])
    fail(worker, queue, 2)

    put(queue, 5, first=10)

    assert len(worker.take(10)) == 5


def test_jobs_without_a_call_do_not_open_the_breaker(queue: Queue, worker: Batches) -> None:
    for number in range(5):
        put(queue, 1, first=number)
        worker.end([Ended(job) for job in worker.take(1)])

    put(queue, 5, first=10)

    assert len(worker.take(10)) == 5


@pytest.mark.parametrize("waits", ["on the queue", "held"])
def test_one_probe_decides_whether_the_breaker_closes(queue: Queue, make: Make, clock: Clock, waits: str) -> None:
    one, other = make("one"), make("other")
    fail(one, queue, 3)
    expected = put(queue, 20)
    if waits == "held":
        assert one.take(20) == []
    clock.now += 31

    [probe] = one.take(20)
    clock.now += 1.5
    assert [*one.take(20), *other.take(20)] == []
    one.end([Ended(probe, answered=False)])
    clock.now += 29
    assert one.take(20) == []
    clock.now += 2
    [probe] = other.take(20)
    other.end([Ended(probe, answered=True)])

    assert ids_of(one.take(20)) == expected[2:7]


def test_a_lost_probe_is_followed_by_another(queue: Queue, make: Make, clock: Clock) -> None:
    fail(make("one"), queue, 3)
    put(queue, 20)
    clock.now += 31
    assert len(make("dies").take(20)) == 1

    clock.now += 64

    assert len(make("other").take(20)) == 1


def test_a_held_backlog_drains_within_the_limit(queue: Queue, worker: Batches, clock: Clock) -> None:
    fail(worker, queue, 3)
    expected = put(queue, 300)
    worker.take(300)
    clock.now += 31
    done = []

    while taken := worker.take(300):
        assert len(taken) <= 5
        worker.end([Ended(job, answered=True) for job in taken])
        done += ids_of(taken)

    assert done == expected


def test_a_stock_rq_worker_drains_waiting_jobs(
    connection: "redis.Redis",
    engines: Settings,
    queue: Queue,
    worker: Batches,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATAHOG_REDIS_URL", engines.redis_url)
    expected = put(queue, 12)

    rq.SimpleWorker([FETCH], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="ERROR")

    assert names(connection) == expected
    assert len(ran(connection)) == 12
    assert not leftovers(connection)
