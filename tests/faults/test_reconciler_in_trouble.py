"""A record or a shard is throttled, or Redis is away: the reconciler heals all other records nevertheless."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

import workers.reconciler.healing
from datahog.bootstrap.wiring import Wiring
from datahog.local import stack
from datahog.settings import Settings
from persistence.errors import Unavailable
from persistence.records.request import DeliveryStatus, Request, RequestStatus
from persistence.records.timestamps import from_text, to_text
from tests.support.engines.proxy import THROTTLED, Proxy
from tests.support.engines.rq_state import FETCH, SUBMIT, queued
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew

# Seconds that the reconciler's clock is ahead, so that new records are due.
AHEAD = 11
REDIS_AWAY = "redis://127.0.0.1:1/0"
Make = Callable[..., Reconciler]


@pytest.fixture
def proxy(engines: Settings) -> Iterator[Proxy]:
    """A proxy in front of the shared DynamoDB."""
    port = int((engines.dynamodb_endpoint_url or "").rpartition(":")[2])
    with Proxy(port, seed="reconciler") as proxy:
        yield proxy


@pytest.fixture
def behind(wiring: Wiring, make_wiring: Callable[..., Wiring], proxy: Proxy) -> Callable[..., Wiring]:
    """Makes the wiring of a process that reaches DynamoDB through the proxy, over the same tables."""
    url = stack.url("127.0.0.1", proxy.port)
    return lambda **changes: make_wiring(dynamodb_endpoint_url=url, **changes)


@pytest.fixture
def make(behind: Callable[..., Wiring]) -> Make:
    """Makes a reconciler behind the proxy, whose clock is `ahead` by so many seconds."""

    def reconciler(ahead: float = AHEAD, **changes: object) -> Reconciler:
        parts = behind(**changes)
        return Reconciler(
            parts.requests,
            parts.retrievals,
            parts.due_index(parts._aggregator_table),
            parts.due_index(parts._client_table),
            parts.queue,
            parts.heartbeats,
            AllShards(),
            Crew(4),
            period=60,
            delivery_timeout=15,
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
        )

    return reconciler


def create(wiring: Wiring, *ids: str, deadline: float = 3600) -> list[Request]:
    """Create requests of gas, due one after the other, with nothing on the queue."""
    moment = datetime.now(UTC) + timedelta(seconds=deadline)
    named = [("gas", "http://gas")]
    return [wiring.requests.create(name, named, "http://callback", deadline=moment, content={})[0] for name in ids]


def fetches(*ids: str) -> list[str]:
    return [f"fetch-{name}-0-1-0" for name in ids]


def due_in(wiring: Wiring, request_id: str) -> float:
    """Seconds until the request is due."""
    return (from_text(wiring.requests.get(request_id).due_at or "") - datetime.now(UTC)).total_seconds()


def test_a_throttled_record_does_not_stop_the_healing_of_others(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    ids = [f"r{number}" for number in range(9)]
    create(wiring, "throttled", *ids)
    proxy.throttled = frozenset({"throttled"})

    assert make().look() == len(ids)

    assert sorted(queued(wiring.redis, FETCH)) == fetches(*ids)
    assert proxy.faults[THROTTLED, "BatchGetItem"]


def test_a_throttled_record_is_healed_once_it_can_be_read(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, "throttled", "r1")
    proxy.throttled = frozenset({"throttled"})
    make().look()
    proxy.calm()

    assert make().look() == 1

    assert sorted(queued(wiring.redis, FETCH)) == fetches("r1", "throttled")


def test_retrievals_are_healed_if_the_only_request_is_throttled(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, "throttled")
    wiring.retrievals.create("r1", ["gas"], deadline=datetime.now(UTC) + timedelta(days=1))
    proxy.throttled = frozenset({"throttled"})

    assert make().look() == 1

    assert queued(wiring.redis, SUBMIT) == ["submit-r1-0"]


def test_the_next_scan_skips_a_record_whose_deferral_failed(
    wiring: Wiring, make: Make, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(wiring, "throttled")
    proxy.throttled = frozenset({"throttled"})
    reconciler = make()
    reconciler.look()
    assert proxy.faults[THROTTLED, "UpdateItem"], "it was to be deferred"
    before = proxy.faults.total()

    reconciler.look()

    assert proxy.faults.total() == before
    # The reconciler skips it for ten seconds.
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    proxy.calm()
    assert reconciler.look() == 1


def test_a_record_whose_next_check_is_unwritten_stays_due(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, "r1", "r2")
    proxy.disturb(THROTTLED, operations=("UpdateItem",))

    assert make().look() == 2

    assert all(due_in(wiring, name) < AHEAD for name in ("r1", "r2"))
    proxy.calm()
    # A step on the queue is not enqueued again.
    assert make().look() == 0
    assert all(due_in(wiring, name) > AHEAD for name in ("r1", "r2"))


def test_a_refused_deadline_write_delays_no_other_deadline(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, "throttled", "r1", "r2", deadline=-1)

    plain = proxy.refused_keys
    setattr(  # noqa: B010
        proxy, "refused_keys", lambda operation, body: (body, {}) if "Get" in operation else plain(operation, body)
    )
    proxy.throttled = frozenset({"throttled"})

    assert make().look() == 2

    statuses = {name: wiring.requests.get(name).status for name in ("throttled", "r1", "r2")}
    assert statuses == {"throttled": RequestStatus.OPEN, "r1": RequestStatus.FAILED, "r2": RequestStatus.FAILED}
    proxy.calm()
    make().look()
    assert wiring.requests.get("throttled").status is RequestStatus.FAILED


def test_a_throttled_shard_does_not_stop_the_healing_of_others(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, *[f"r{number}" for number in range(20)])
    plain = proxy.fault_of
    refused: list[str] = []

    def fault_of(operation: str) -> object:
        # The first query of the scan, and its repetition.
        if operation == "Query" and len(refused) < 2:
            refused.append(operation)
            return THROTTLED
        return plain(operation)

    setattr(proxy, "fault_of", fault_of)  # noqa: B010

    found = make().look()

    assert 0 < found < 20
    assert make().look() == 20 - found


def test_a_scan_ends_when_dynamodb_refuses_two_queries(wiring: Wiring, make: Make, proxy: Proxy) -> None:
    create(wiring, "r1")
    proxy.disturb(THROTTLED, operations=("Query",))

    with pytest.raises(Unavailable):
        make().look()

    # Two queries, each made twice.
    assert proxy.faults[THROTTLED, "Query"] == 4
    proxy.calm()
    assert make().look() == 1


def test_without_redis_a_request_ends_at_its_deadline(wiring: Wiring, make: Make) -> None:
    create(wiring, "r1", "r2")
    create(wiring, "late", deadline=-1)

    with pytest.raises(redis.RedisError):
        make(redis_url=REDIS_AWAY).look()

    late = wiring.requests.get("late")
    assert (late.status, late.delivery.status) == (RequestStatus.FAILED, DeliveryStatus.PENDING)
    # A step that is not on the queue stays due.
    assert all(due_in(wiring, name) < AHEAD for name in ("r1", "r2", "late"))
    # 30 s later, since the delivery might be under way before.
    assert make(ahead=30).look() == 3


def test_without_redis_a_waiting_request_is_not_checked_sooner(wiring: Wiring, make: Make) -> None:
    (request,) = create(wiring, "r1")
    at = datetime.now(UTC) + timedelta(seconds=600)
    wiring.requests.record_failure(request.attempt(request.jobs[0]), "HTTP 500", at)

    make(redis_url=REDIS_AWAY).look()

    assert due_in(wiring, "r1") > AHEAD


def test_without_redis_a_deadline_behind_many_records_is_kept(
    wiring: Wiring, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.reconciler.healing, "_BATCH", 3)
    create(wiring, *[f"r{number}" for number in range(20)])
    create(wiring, "late", deadline=-1)
    # Due after all the others.
    key, values = {"pk": "late", "sk": "request"}, {"due": to_text(datetime.now(UTC) + timedelta(seconds=10.5))}
    wiring._aggregator_table.update(key, "SET #dueAt = :due", condition="attribute_exists(#pk)", values=values)

    with pytest.raises(redis.RedisError):
        make(redis_url=REDIS_AWAY).look()

    assert wiring.requests.get("late").status is RequestStatus.FAILED
