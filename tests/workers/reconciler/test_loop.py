"""The reconciler's loop on real engines: it enqueues each step that is due and missing, once, and no other."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

import workers.reconciler.healing
from datahog.bootstrap.wiring import Wiring
from persistence.errors import Unavailable
from persistence.records.request import DeliveryStatus, Request, RequestStatus
from persistence.records.timestamps import from_text, to_text
from persistence.retrievals import FIRST_DELIVERY
from tests.support.engines.rq_state import DELIVER, FETCH, SUBMIT, queued, scheduled
from tests.support.system import eventually
from workers.queue import QUEUES, Step, fetch_steps
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew
from workers.rq_worker.leases import Batches

HEAL_AFTER = 10  # seconds
DELIVERY_TIMEOUT = 15  # seconds
Make = Callable[..., Reconciler]
Create = Callable[..., Request]


@pytest.fixture
def make(wiring: Wiring) -> Make:
    """Makes a reconciler whose clock is `ahead` seconds in the future."""

    def reconciler(
        *, ahead: float = HEAL_AFTER + 1, period: float = 60, parts: Wiring = wiring, **options: Any
    ) -> Reconciler:
        return Reconciler(
            parts.requests,
            parts.retrievals,
            parts.due_index(parts._aggregator_table),
            parts.due_index(parts._client_table),
            parts.queue,
            parts.heartbeats,
            AllShards(),
            Crew(4),
            period=period,
            delivery_timeout=DELIVERY_TIMEOUT,
            heal_after=HEAL_AFTER,
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
            **options,
        )

    return reconciler


@pytest.fixture
def create(wiring: Wiring) -> Create:
    """Creates a request and puts nothing on the queue."""

    def request(request_id: str = "r1", *providers: str, deadline: float = 86_400) -> Request:
        named = [(name, f"http://{name}") for name in providers or ("gas", "water")]
        moment = datetime.now(UTC) + timedelta(seconds=deadline)
        return wiring.requests.create(request_id, named, "http://callback", deadline=moment, content={})[0]

    return request


@pytest.fixture
def retrieve(wiring: Wiring) -> None:
    """Creates the retrieval r1 and puts nothing on the queue."""
    wiring.retrievals.create("r1", ["gas"], deadline=datetime.now(UTC) + timedelta(days=1))


def test_a_new_request_is_not_healed_yet(make: Make, create: Create) -> None:
    create()

    assert make(ahead=0).look() == 0


def test_a_lost_enqueue_is_repeated(wiring: Wiring, make: Make, create: Create) -> None:
    create()

    assert make().look() == 2

    assert queued(wiring.redis, FETCH) == ["fetch-r1-0-1-0", "fetch-r1-1-1-0"]


def test_a_lost_attempt_is_enqueued_when_it_is_due(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas")
    at = datetime.now(UTC) + timedelta(seconds=100)
    wiring.requests.record_failure(request.attempt(request.jobs[0]), "HTTP 500", at)

    assert make().look() == 0
    assert make(ahead=100 + HEAL_AFTER + 1).look() == 1

    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]


def test_only_open_jobs_are_enqueued(wiring: Wiring, make: Make, create: Create) -> None:
    request = create()
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")

    make().look()

    assert queued(wiring.redis, FETCH) == ["fetch-r1-1-1-0"]


def test_a_lost_delivery_is_enqueued(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas")
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")

    assert make(ahead=DELIVERY_TIMEOUT + 1).look() == 1

    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]


def test_a_first_delivery_is_not_repeated_within_its_timeout(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas")
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")

    assert make(ahead=DELIVERY_TIMEOUT - 1).look() == 0
    assert make(ahead=DELIVERY_TIMEOUT + HEAL_AFTER + 1).look() == 1


def test_a_lost_delivery_attempt_is_enqueued_when_it_is_due(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas")
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")
    at = datetime.now(UTC) + timedelta(seconds=100)
    wiring.deliveries.attempt_failed(wiring.requests.get("r1"), "HTTP 500", at)

    assert make().look() == 0
    assert make(ahead=100 + HEAL_AFTER + 1).look() == 1

    assert scheduled(wiring.redis, DELIVER) == ["deliver-r1-1-1"]


@pytest.mark.usefixtures("retrieve")
def test_a_lost_submission_is_enqueued(wiring: Wiring, make: Make) -> None:
    assert make(ahead=0).look() == 0
    assert make().look() == 1

    assert queued(wiring.redis, SUBMIT) == ["submit-r1-0"]


@pytest.mark.usefixtures("retrieve")
def test_a_lost_submission_attempt_is_enqueued_when_it_is_due(wiring: Wiring, make: Make) -> None:
    at = datetime.now(UTC) + timedelta(seconds=20)
    wiring.retrievals.submission_failed(wiring.retrievals.get("r1"), "HTTP 503", at)

    assert make().look() == 0
    assert make(ahead=20 + HEAL_AFTER + 1).look() == 1

    assert scheduled(wiring.redis, SUBMIT) == ["submit-r1-1"]


@pytest.mark.usefixtures("retrieve")
def test_a_lost_cancellation_is_enqueued(wiring: Wiring, make: Make) -> None:
    wiring.retrievals.request_cancel("r1")

    assert make().look() == 1

    assert queued(wiring.redis, SUBMIT) == ["cancel-r1-0"]


@pytest.mark.parametrize("delivered", [True, False])
def test_a_request_with_an_ended_delivery_is_not_scanned_again(
    wiring: Wiring, make: Make, create: Create, delivered: bool
) -> None:
    request = create("r1", "gas")
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")
    request = wiring.requests.get("r1")
    if delivered:
        wiring.deliveries.succeeded(request)
    else:
        wiring.deliveries.attempt_failed(request, "HTTP 410", None)

    assert make(ahead=100_000).look() == 0

    assert wiring.due_index(wiring._aggregator_table).due(datetime.now(UTC) + timedelta(days=9), limit=9) == []


@pytest.mark.usefixtures("retrieve")
def test_an_accepted_request_is_checked_after_its_deadline(wiring: Wiring, make: Make) -> None:
    wiring.retrievals.accepted(wiring.retrievals.get("r1"))

    assert make(ahead=86_400 + FIRST_DELIVERY - 1).look() == 0
    assert make(ahead=86_400 + FIRST_DELIVERY + 1).look() == 1
    assert make(ahead=86_400 + 2 * FIRST_DELIVERY).look() == 0

    assert scheduled(wiring.redis, SUBMIT) == ["check-r1-0"]


@pytest.mark.usefixtures("retrieve")
def test_a_lost_check_is_enqueued(wiring: Wiring, make: Make) -> None:
    wiring.retrievals.cancel_came_late(wiring.retrievals.request_cancel("r1"))

    assert make(ahead=0).look() == 0
    assert make().look() == 1
    wiring.redis.flushall()
    assert make(ahead=400).look() == 1

    assert scheduled(wiring.redis, SUBMIT) == ["check-r1-0"]


def test_a_request_ends_at_its_deadline_and_is_delivered(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas", "water", deadline=-1)
    wiring.requests.finish_job(request.attempt(request.jobs[0]), b"[]")

    assert make().look() == 1

    request = wiring.requests.get("r1")
    assert request.status is RequestStatus.PARTIAL
    assert request.jobs[1].last_error == "deadline reached"
    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]


def test_the_next_check_is_at_a_near_deadline(wiring: Wiring, make: Make, create: Create) -> None:
    request = create("r1", "gas", deadline=15)

    make().look()

    due_at = wiring.requests.get("r1").due_at
    assert due_at == request.deadline


@pytest.mark.parametrize("late", [False, True])
def test_a_queued_step_is_not_enqueued_again(wiring: Wiring, make: Make, create: Create, late: bool) -> None:
    wiring.queue.put(*fetch_steps(create(), datetime.now(UTC)))

    assert make(ahead=1000 if late else HEAL_AFTER + 1).look() == 0

    assert len(queued(wiring.redis, FETCH)) == 2


@pytest.mark.usefixtures("retrieve")
def test_a_second_scan_enqueues_nothing(make: Make, create: Create) -> None:
    create()
    make().look()

    assert [make(ahead=ahead).look() for ahead in (12, 60, 600, 6000)] == [0, 0, 0, 0]


def test_the_next_check_is_scheduled_after_a_scan(wiring: Wiring, make: Make, create: Create) -> None:
    create()

    make().look()

    due_at = from_text(wiring.requests.get("r1").due_at or "")
    assert 35 < (due_at - datetime.now(UTC)).total_seconds() < 45


def test_all_steps_are_enqueued_after_redis_is_emptied(wiring: Wiring, make: Make, create: Create) -> None:
    for number in range(20):
        wiring.queue.put(*fetch_steps(create(f"r{number}"), datetime.now(UTC)))
    wiring.redis.flushall()

    assert make().look() == 40

    assert len(queued(wiring.redis, FETCH)) == 40


def test_concurrent_scans_enqueue_each_step_once(wiring: Wiring, make: Make, create: Create) -> None:
    for number in range(20):
        create(f"r{number}")
    together = threading.Barrier(2)

    def look(reconciler: Reconciler) -> None:
        together.wait()
        reconciler.look()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, [make(), make()]))

    taken = Batches(wiring.redis, QUEUES, worker="w", lease=60).take(200)
    assert len(taken) == len({job.job_id for job in taken}) == 40


def test_concurrent_scans_close_a_request_once(wiring: Wiring, make: Make, create: Create) -> None:
    create("r1", "gas", deadline=-1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda reconciler: reconciler.look(), [make() for _ in range(4)]))

    request = wiring.requests.get("r1")
    assert (request.status, request.delivery.status) == (RequestStatus.FAILED, DeliveryStatus.PENDING)
    assert set(queued(wiring.redis, DELIVER)) == {"deliver-r1-1-0"}


def test_an_unreadable_record_does_not_block_others(
    wiring: Wiring, make: Make, create: Create, caplog: pytest.LogCaptureFixture
) -> None:
    table = wiring._aggregator_table
    table.put({"pk": "broken", "sk": "request", "dueShard": "open#0", "dueAt": to_text(datetime.now(UTC))})
    create()

    assert make().look() == 2

    assert "broken: cannot be reconciled" in caplog.text


def test_a_batch_of_unreadable_records_does_not_block_others(
    wiring: Wiring, make: Make, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.reconciler.healing, "_BATCH", 3)
    for number in range(3):
        facts = {"pk": f"broken-{number}", "sk": "request", "dueShard": "open#0", "dueAt": to_text(datetime.now(UTC))}
        wiring._aggregator_table.put(facts)
    create()

    assert make().look() == 2
    assert wiring.due_index(wiring._aggregator_table).due(datetime.now(UTC) + timedelta(seconds=30), limit=9) == []


def test_a_batch_of_expired_records_does_not_block_others(
    wiring: Wiring, make: Make, create: Create, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.reconciler.healing, "_BATCH", 3)
    now = datetime.now(UTC)
    for table, kind in ((wiring._aggregator_table, "request"), (wiring._client_table, "retrieval")):
        for number in range(3):
            due = {"dueShard": "open#0", "dueAt": to_text(now), "expiresAt": int(now.timestamp())}
            table.put({"pk": f"gone-{number}", "sk": kind, **due})
    create()

    assert make().look() == 2
    assert wiring.due_index(wiring._client_table).due(now + timedelta(seconds=HEAL_AFTER + 1), limit=9) == []
    assert not caplog.text


@pytest.mark.parametrize(
    ("away", "error"),
    [
        ({"redis_url": "redis://127.0.0.1:1/0"}, redis.RedisError),
        ({"dynamodb_endpoint_url": "http://127.0.0.1:1"}, Unavailable),
    ],
)
def test_a_record_stays_due_while_an_engine_is_away(
    wiring: Wiring,
    make_wiring: Callable[..., Wiring],
    make: Make,
    create: Create,
    away: dict[str, str],
    error: type[Exception],
) -> None:
    create()

    with pytest.raises(error):
        make(parts=make_wiring(**away)).look()

    assert make().look() == 2


@pytest.mark.usefixtures("retrieve")
def test_a_submission_stays_due_until_it_is_on_the_queue(
    wiring: Wiring, make_wiring: Callable[..., Wiring], make: Make
) -> None:
    with pytest.raises(redis.RedisError):
        make(parts=make_wiring(redis_url="redis://127.0.0.1:1/0")).look()

    assert make().look() == 1
    assert queued(wiring.redis, SUBMIT) == ["submit-r1-0"]


class Running:
    """Runs a reconciler on a thread while the block lasts, and stops it at the end."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self.thread = threading.Thread(target=reconciler.run, daemon=True)

    def __enter__(self) -> "Running":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reconciler.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


def test_the_reconciler_scans_periodically_until_stopped(wiring: Wiring, make: Make, create: Create) -> None:
    with Running(make(period=0.05)):
        for name in ("r1", "r2"):
            create(name, "gas")
            eventually(lambda name=name: f"fetch-{name}-0-1-0" in queued(wiring.redis, FETCH))  # type: ignore[misc]


def test_the_reconciler_stops_at_once_with_a_long_period(make: Make) -> None:
    began = time.monotonic()

    with Running(make(period=3600)):
        time.sleep(0.1)

    assert time.monotonic() - began < 2


def test_the_reconciler_survives_the_loss_of_an_engine(
    make_wiring: Callable[..., Wiring], wiring: Wiring, make: Make, create: Create, caplog: pytest.LogCaptureFixture
) -> None:
    create()

    with Running(make(period=0.05, parts=make_wiring(redis_url="redis://127.0.0.1:1/0"))) as running:
        eventually(lambda: caplog.text.count("an engine is away") >= 2)

        assert running.thread.is_alive()


def test_more_than_a_batch_of_lost_steps_is_enqueued_at_once(
    wiring: Wiring, make: Make, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.reconciler.healing, "_BATCH", 3)
    for number in range(10):
        create(f"r{number}", "gas")

    with Running(make(period=3600)):
        eventually(lambda: len(queued(wiring.redis, FETCH)) == 10, 10)


def test_healthy_records_do_not_delay_a_lost_step(
    wiring: Wiring, make: Make, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.reconciler.healing, "_BATCH", 3)
    for number in range(10):
        wiring.queue.put(*fetch_steps(create(f"r{number}", "gas"), datetime.now(UTC)))
    create("lost", "gas")

    with Running(make(period=3600)):
        eventually(lambda: "fetch-lost-0-1-0" in queued(wiring.redis, FETCH), 10)


def test_an_entry_of_unknown_kind_does_not_block_others(
    wiring: Wiring, make: Make, create: Create, caplog: pytest.LogCaptureFixture
) -> None:
    due = {"dueShard": "open#0", "dueAt": to_text(datetime.now(UTC))}
    wiring._aggregator_table.put({"pk": "b", "sk": "unknown#3", **due})
    create()

    assert make().look() == 2

    assert "b: cannot be reconciled" in caplog.text
    index = wiring.due_index(wiring._aggregator_table)
    assert index.due(datetime.now(UTC) + timedelta(seconds=30), limit=9) == []
    assert len(index.due(datetime.now(UTC) + timedelta(days=1), limit=9)) == 2


def test_unneeded_results_are_not_collected_in_every_scan(make: Make) -> None:
    looks: list[int] = []

    class Collector:
        def look(self) -> int:
            looks.append(1)
            return 1

    reconciler = make(collectors=[Collector()])
    reconciler.look()
    reconciler.look()

    assert len(looks) == 1


def test_a_scan_enqueues_the_batch_of_a_shard_in_one_call(
    wiring: Wiring, make: Make, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        create(f"r{number}", "gas")
    calls: list[int] = []
    put_missing = wiring.queue.put_missing

    def counted(steps: list[Step]) -> int:
        calls.append(len(steps))
        return put_missing(steps)

    monkeypatch.setattr(wiring.queue, "put_missing", counted)

    assert make().look() == 30

    # One for each shard.
    assert len(calls) <= 4
    assert sum(calls) == 30


def test_a_stopped_reconciler_enqueues_nothing(wiring: Wiring, make: Make, create: Create) -> None:
    create()
    reconciler = make()

    reconciler.stop()

    assert reconciler.look() == 0
    reconciler.run()
