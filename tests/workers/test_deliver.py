"""Deliver, on real engines and a stub receiver: it signs results, repeats them by the schedule, and stops."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

import specs
from datahog.bootstrap.wiring import Wiring
from handlers.problems import Problem
from outbound.http_client import Http, Timeouts
from outbound.openapi_caller import Operations
from outbound.webhook_signer import Signer
from persistence.errors import Unavailable
from persistence.index.shards import Shards
from persistence.records.request import CloseReason, Delivery, DeliveryStatus, Request
from persistence.records.timestamps import from_text, to_text
from persistence.results.expired import ExpiredResults, needed_by_request
from tests.support.engines.rq_state import DELIVER, queued, scheduled
from tests.support.repositories import HandClock, incompressible_json
from tests.support.servers.stub import Meanwhile, Reply, StubServer
from tests.support.system import SECRET
from workers.deliver import Deliver
from workers.queue import deliver_step
from workers.rq_worker.running_job import running

SCHEDULE = (0, 100, 200)  # seconds before each attempt
OTHER_SECRET = "whsec_" + "b3RoZXIgdGVzdHMsIGd1YXJkcyBub3RoaW5nIGF0IGFsbA=="
Make = Callable[..., Deliver]
Rewind = Callable[[float], None]


@pytest.fixture
def make(wiring: Wiring) -> Make:
    """Makes the job; its clock is `ahead` seconds in the future."""

    def deliver(
        *, schedule: Sequence[float] = SCHEDULE, secrets: Sequence[str] = (SECRET,), ahead: float = 0
    ) -> Deliver:
        return Deliver(
            wiring.requests,
            wiring.deliveries,
            wiring.queue,
            Signer(secrets),
            Operations(specs.AGGREGATOR, "http://nobody", Http(pool_size=2), timeouts=Timeouts(0.5, 0.5, 0.5)),
            schedule=schedule,
            rng=random.Random(1),
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
        )

    return deliver


@pytest.fixture
def ended(wiring: Wiring, stub: StubServer) -> None:
    """The request r1, ended with a result, to be delivered to the stub."""
    deadline = datetime.now(UTC) + timedelta(days=1)
    providers = [("gas", "http://gas"), ("water", "http://water")]
    request, _ = wiring.requests.create("r1", providers, f"{stub.url}/callback", deadline=deadline, content={})
    gas, water = request.jobs
    wiring.requests.finish_job(request.attempt(gas), b'[ {"amount": 22.270} ]')
    wiring.requests.fail_job(request.attempt(water), "HTTP 500 #fail")


@pytest.fixture
def large(wiring: Wiring, stub: StubServer) -> Request:
    """The request r1, ended with a result of three megabytes."""
    deadline = datetime.now(UTC) + timedelta(days=1)
    request, _ = wiring.requests.create(
        "r1", [("gas", "http://gas")], f"{stub.url}/callback", deadline=deadline, content={}
    )
    wiring.requests.finish_job(request.attempt(request.jobs[0]), incompressible_json(3_000_000))
    return wiring.requests.get("r1")


def delivery(wiring: Wiring) -> Delivery:
    return wiring.requests.get("r1").delivery


@pytest.mark.usefixtures("ended")
def test_the_result_is_posted_to_the_callback_url(wiring: Wiring, make: Make, stub: StubServer) -> None:
    assert make()("r1") is None

    [asked] = stub.asked
    request = wiring.requests.get("r1")
    assert (asked.method, asked.path, asked.headers["content-type"]) == ("POST", "/callback", "application/json")
    assert orjson.loads(asked.body) == {
        "requestId": "r1",
        "status": "PARTIAL",
        "revision": 1,
        "callbackUrl": request.callback_url,
        "createdAt": request.created_at,
        "endedAt": request.ended_at,
        "jobs": [
            {
                "provider": "gas",
                "url": "http://gas",
                "status": "DONE",
                "attempts": 1,
                "endedAt": request.jobs[0].ended_at,
                "result": [{"amount": 22.27}],
            },
            {
                "provider": "water",
                "url": "http://water",
                "status": "FAILED",
                "attempts": 1,
                "lastError": "HTTP 500 #fail",
                "endedAt": request.jobs[1].ended_at,
            },
        ],
    }
    assert b'[ {"amount": 22.270} ]' in asked.body


@pytest.mark.parametrize("secrets", [(SECRET,), (OTHER_SECRET, SECRET)])
@pytest.mark.usefixtures("ended")
def test_the_receivers_own_library_verifies_the_signature(
    make: Make, stub: StubServer, secrets: tuple[str, ...]
) -> None:
    make(secrets=secrets)("r1")

    [asked] = stub.asked
    assert Webhook(SECRET).verify(asked.body, dict(asked.headers))["requestId"] == "r1"


@pytest.mark.parametrize("reply", [Reply(200), Reply(202, b"thanks"), Reply(204), Reply(200, b"x" * 1_000_000)])
@pytest.mark.usefixtures("ended")
def test_any_2xx_acknowledges(wiring: Wiring, make: Make, stub: StubServer, reply: Reply) -> None:
    stub.replies = [reply]

    make()("r1")

    found = delivery(wiring)
    assert (found.status, found.attempts, found.last_error) == (DeliveryStatus.SUCCEEDED, 1, None)
    assert scheduled(wiring.redis, DELIVER) == []
    request = wiring.requests.get("r1")
    assert request.due_at is None
    assert request.expires_at is not None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500, b"oops"), "HTTP 500 oops"),
        (Reply(404), "HTTP 404 []"),
        (Reply(302, b"", {"Location": "/elsewhere"}), "HTTP 302"),
        (Reply(301, b"", {}), "HTTP 301"),
        (Reply(200, after=0.7), "timeout: no complete answer within 0.5 s"),
    ],
)
@pytest.mark.usefixtures("ended")
def test_any_other_response_is_recorded_and_repeated(
    wiring: Wiring, make: Make, stub: StubServer, reply: Reply, error: str
) -> None:
    stub.replies = [reply]
    before = datetime.now(UTC)

    make()("r1")

    found = delivery(wiring)
    assert (found.status, found.attempts, found.last_error) == (DeliveryStatus.PENDING, 1, error)
    assert 100 <= (from_text(found.next_attempt_at or "") - before).total_seconds() < 112
    assert scheduled(wiring.redis, DELIVER) == ["deliver-r1-1-1"]
    assert len(stub.asked) == 1


_DETAIL = 'body at jobs/0/url: the value is not a "uri"'


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.usefixtures("ended")
def test_a_permanent_refusal_of_the_result_raises_an_alarm(
    wiring: Wiring, make: Make, stub: StubServer, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    problem = Problem("bad-request", _DETAIL).document
    stub.replies = [Reply(status, orjson.dumps(problem))]

    make()("r1")

    found = delivery(wiring)
    assert (found.status, found.attempts, found.last_error) == (DeliveryStatus.PENDING, 1, f"HTTP {status} {_DETAIL}")
    assert scheduled(wiring.redis, DELIVER) == ["deliver-r1-1-1"]
    [alarm] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert alarm.message.startswith(f"r1: the receiver refuses the result as it is: HTTP {status} {_DETAIL}; look at ")


@pytest.mark.parametrize("reply", [Reply(404), Reply(408), Reply(410), Reply(429), Reply(500), Reply(503)])
@pytest.mark.usefixtures("ended")
def test_a_transient_refusal_raises_no_alarm(
    make: Make, stub: StubServer, caplog: pytest.LogCaptureFixture, reply: Reply
) -> None:
    stub.replies = [reply]

    make()("r1")

    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("body", [b"[1]", b'{"detail": 1}', b'{"detail": "a\nb"}', b'{"detail": "%s"}' % (b"x" * 5000)])
@pytest.mark.usefixtures("ended")
def test_the_receivers_error_is_recorded_as_a_short_line(
    wiring: Wiring, make: Make, stub: StubServer, body: bytes
) -> None:
    stub.replies = [Reply(400, body)]

    make()("r1")

    error = delivery(wiring).last_error or ""
    assert error.startswith("HTTP 400 ")
    assert error.isprintable()
    assert len(error) < 250


def test_a_large_result_has_a_longer_timeout(wiring: Wiring, make: Make, stub: StubServer, large: Request) -> None:
    stub.replies = [Reply(204, after=0.7)]

    make()(large.request_id)

    assert delivery(wiring).status is DeliveryStatus.SUCCEEDED


@pytest.mark.usefixtures("ended")
def test_a_receiver_that_is_down_is_tried_again(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.hang_up()

    make()("r1")

    assert (delivery(wiring).status, delivery(wiring).attempts) == (DeliveryStatus.PENDING, 1)
    assert (delivery(wiring).last_error or "").startswith("connection failed: ")


@pytest.mark.usefixtures("ended")
def test_a_410_response_ends_the_delivery(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(410, b"gone")]

    make()("r1")

    found = delivery(wiring)
    assert (found.status, found.attempts, found.last_error) == (DeliveryStatus.FAILED, 1, "HTTP 410 gone")
    assert scheduled(wiring.redis, DELIVER) == []


@pytest.mark.parametrize(
    ("asked", "at_least", "below"), [("3600", 3600, 3980), ("5", 100, 112), ("1000000", 86_400, 95_100)]
)
@pytest.mark.usefixtures("ended")
def test_retry_after_is_a_floor_of_at_most_a_day(
    wiring: Wiring, make: Make, stub: StubServer, asked: str, at_least: float, below: float
) -> None:
    stub.replies = [Reply(429, b"", {"Retry-After": asked})]
    before = datetime.now(UTC)

    make()("r1")

    wait = (from_text(delivery(wiring).next_attempt_at or "") - before).total_seconds()
    assert at_least <= wait < below


@pytest.mark.usefixtures("ended")
def test_a_retry_after_in_the_far_future_counts_the_attempt(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(503, b"", {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"})]

    make()("r1")

    assert delivery(wiring).attempts == 1


class Latest(random.Random):
    """A source of randomness that makes each wait as long as possible."""

    def random(self) -> float:
        return 1.0


@pytest.mark.parametrize("retention", [1, 604_800])
@pytest.mark.parametrize(
    ("schedule", "retry_after"),
    [
        ((0, 5, 300, 1800, 7200, 18000, 36000, 36000), "86400"),
        ((0, *[3600] * 20), "86400"),
        ((0, 302_400, 302_400), "0"),
        ((604_800,), "0"),
    ],
)
def test_records_and_results_are_kept_until_the_last_attempt(
    make_wiring: Callable[..., Wiring],
    stub: StubServer,
    retention: float,
    schedule: Sequence[float],
    retry_after: str,
) -> None:
    wiring, clock = make_wiring(retention=retention, delivery_schedule=schedule), HandClock()
    for items in (wiring._request_items, wiring._retrieval_items):
        setattr(items, "clock", clock)  # noqa: B010
    deadline = clock() + timedelta(hours=1)
    wiring.retrievals.accepted(wiring.retrievals.create("r1", ["gas"], deadline=deadline))
    request, _ = wiring.requests.create("r1", [("gas", "http://gas")], stub.url, deadline=deadline, content={})
    clock.advance(hours=1)
    wiring.requests.finish_job(request.attempt(request.jobs[0]), incompressible_json(5000))
    stub.replies = [Reply(429, b"", {"Retry-After": retry_after})] * len(schedule)
    deliver = Deliver(
        wiring.requests,
        wiring.deliveries,
        wiring.queue,
        wiring.signer,
        wiring._receivers(),
        schedule=schedule,
        rng=Latest(),
        clock=clock,
    )

    table = wiring._aggregator_table
    expired = ExpiredResults(table, Shards(table, 1), "request", Request.from_item, needed_by_request, clock=clock)

    while delivery(wiring).status is DeliveryStatus.PENDING:
        clock.advance(seconds=deliver("r1") or 0)
        expired.look()
        assert wiring.requests.load_results(wiring.requests.get("r1")) == {"gas": incompressible_json(5000)}
        wiring.retrievals.get("r1")

    assert len(stub.asked) == len(schedule)


@pytest.mark.usefixtures("ended")
def test_the_delivery_fails_at_the_end_of_the_schedule(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(500, b"1"), Reply(500, b"2"), Reply(500, b"3")]

    for ahead in (0, 200, 500):
        make(ahead=ahead)("r1")

    found = delivery(wiring)
    assert (found.status, found.attempts, found.last_error) == (DeliveryStatus.FAILED, 3, "HTTP 500 3")
    assert found.next_attempt_at is None
    assert len(stub.asked) == 3


@pytest.mark.usefixtures("ended")
def test_attempts_share_the_webhook_id_and_not_the_timestamp(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(500)]

    for ahead in (0, 200):
        make(ahead=ahead)("r1")
    wiring.deliveries.start_anew("r1")
    make(ahead=400)("r1")

    assert {asked.headers["webhook-id"] for asked in stub.asked} == {"msg_r1_1"}
    assert len({asked.headers["webhook-timestamp"] for asked in stub.asked}) == 3


@pytest.mark.usefixtures("ended")
def test_a_job_before_its_time_makes_no_attempt(make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(500)]
    make()("r1")

    wait = make()("r1")

    assert wait == pytest.approx(105, abs=7)
    assert len(stub.asked) == 1


@pytest.mark.usefixtures("ended")
def test_an_attempt_is_made_after_the_clock_is_set_back(make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(500)]
    make()("r1")

    make(ahead=-3600)("r1")

    assert len(stub.asked) == 2


def test_a_future_end_time_does_not_delay_the_delivery(wiring: Wiring, make: Make, stub: StubServer) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    providers = [("gas", "http://gas"), ("water", "http://water")]
    request, _ = wiring.requests.create("r1", providers, f"{stub.url}/callback", deadline=deadline, content={})
    gas, water = request.jobs
    wiring.requests.finish_job(request.attempt(gas), b"1")
    ended = wiring.requests.finish_job(request.attempt(water), b"2")
    assert ended
    earlier_job_ended_later = replace(ended, ended_at=to_text(datetime.now(UTC) + timedelta(hours=1)))

    make().first(earlier_job_ended_later)

    assert len(stub.asked) == 1


@pytest.mark.usefixtures("ended")
def test_the_first_wait_of_the_schedule_is_kept(make: Make, stub: StubServer) -> None:
    assert make(schedule=(30, 5))("r1") == pytest.approx(30, abs=2)
    assert stub.asked == []

    make(schedule=(30, 5), ahead=31)("r1")

    assert len(stub.asked) == 1


@pytest.mark.usefixtures("ended")
def test_a_delivered_request_is_not_delivered_again(make: Make, stub: StubServer) -> None:
    for _ in range(2):
        make()("r1")

    assert len(stub.asked) == 1


@pytest.mark.usefixtures("ended")
def test_a_restarted_delivery_repeats_its_schedule(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [Reply(410), Reply(500), Reply(200)]
    make()("r1")

    wiring.deliveries.start_anew("r1")
    make()("r1")
    assert delivery(wiring).attempts == 1
    make(ahead=200)("r1")

    assert (delivery(wiring).status, delivery(wiring).attempts) == (DeliveryStatus.SUCCEEDED, 2)


def test_an_open_request_is_not_delivered(wiring: Wiring, make: Make, stub: StubServer) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    wiring.requests.create("r1", [("gas", "http://gas")], stub.url, deadline=deadline, content={})

    assert make()("r1") is None

    assert stub.asked == []


def test_a_cancelled_request_is_delivered_as_such(wiring: Wiring, make: Make, stub: StubServer) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    wiring.requests.create("r1", [("gas", "http://gas")], stub.url, deadline=deadline, content={})
    wiring.requests.close("r1", CloseReason.CANCELLED)

    make()("r1")

    assert orjson.loads(stub.asked[0].body)["status"] == "CANCELLED"


def test_a_missing_request_is_ignored(make: Make) -> None:
    assert make()("r1") is None


@pytest.mark.parametrize("status", [200, 500])
def test_an_attempt_of_an_earlier_round_does_not_count(wiring: Wiring, make: Make, status: int) -> None:
    with Meanwhile(lambda: wiring.requests.retry("r1", deadline=deadline), Reply(status)) as server:
        deadline = datetime.now(UTC) + timedelta(days=1)
        request, _ = wiring.requests.create("r1", [("gas", "http://gas")], server.url, deadline=deadline, content={})
        wiring.requests.fail_job(request.attempt(request.jobs[0]), "HTTP 500")

        assert make()("r1") is None

    assert (delivery(wiring).status, delivery(wiring).attempts) == (DeliveryStatus.PENDING, 0)
    assert scheduled(wiring.redis, DELIVER) == []


def test_a_lost_result_ends_the_delivery(wiring: Wiring, make: Make, stub: StubServer) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    request, _ = wiring.requests.create("r1", [("gas", "http://gas")], stub.url, deadline=deadline, content={})
    wiring.requests.finish_job(request.attempt(request.jobs[0]), orjson.dumps(random.Random(1).randbytes(5000).hex()))
    reference = wiring.requests.get("r1").jobs[0].result or {}
    wiring._request_results.discard("r1", reference)

    assert make()("r1") is None

    assert delivery(wiring).status is DeliveryStatus.FAILED
    assert "parts of a result" in (delivery(wiring).last_error or "")
    assert stub.asked == []


def test_a_delivery_without_dynamodb_raises_unavailable(make_wiring: Callable[..., Wiring]) -> None:
    make_wiring()

    with pytest.raises(Unavailable):
        make_wiring(dynamodb_endpoint_url="http://127.0.0.1:1").deliver("r1")


@pytest.mark.usefixtures("ended")
def test_without_redis_the_reconciler_enqueues_the_next_attempt(
    make_wiring: Callable[..., Wiring], wiring: Wiring, stub: StubServer
) -> None:
    stub.replies = [Reply(500)]

    make_wiring(redis_url="redis://127.0.0.1:1/0").deliver("r1")

    assert delivery(wiring).attempts == 1
    assert queued(wiring.redis, DELIVER) == []


@pytest.mark.usefixtures("ended")
def test_the_first_delivery_is_made_at_once(wiring: Wiring, make: Make, stub: StubServer) -> None:
    make().first(wiring.requests.get("r1"))

    assert len(stub.asked) == 1
    assert delivery(wiring).status is DeliveryStatus.SUCCEEDED


def test_a_large_first_delivery_is_left_to_a_job(wiring: Wiring, make: Make, stub: StubServer, large: Request) -> None:
    make().first(large)

    assert stub.asked == []
    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]
    assert wiring.queue.put_missing([deliver_step(large)]) == 0


@pytest.mark.usefixtures("ended")
def test_the_first_delivery_waits_for_the_schedule(wiring: Wiring, make: Make, stub: StubServer) -> None:
    make(schedule=(60, 5)).first(wiring.requests.get("r1"))

    assert stub.asked == []
    due = wiring.redis.zscore(f"rq:scheduled:{DELIVER}", "deliver-r1-1-0") or 0
    assert 55 < due - time.time() <= 60


@pytest.mark.usefixtures("ended")
def test_an_unrecorded_first_delivery_is_left_to_a_job(
    wiring: Wiring, make_wiring: Callable[..., Wiring], stub: StubServer
) -> None:
    lonely = make_wiring(dynamodb_endpoint_url="http://127.0.0.1:1")
    deliver = Deliver(
        lonely.requests,
        lonely.deliveries,
        wiring.queue,
        Signer((SECRET,)),
        Operations(specs.AGGREGATOR, "http://nobody", Http(pool_size=2), timeouts=Timeouts(0.5, 0.5, 0.5)),
        schedule=SCHEDULE,
        rng=random.Random(1),
    )

    deliver.first(wiring.requests.get("r1"))

    assert len(stub.asked) == 1
    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(
    ("reply", "status"),
    [(Reply(204), "SUCCEEDED"), (Reply(429, headers={"Retry-After": "3600"}), "PENDING"), (Reply(410), "FAILED")],
    ids=["acknowledged", "Retry-After", "gone"],
)
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "its response lost"])
def test_a_job_records_an_outcome_that_was_not_written(
    lost: bool, reply: Reply, status: str, wiring: Wiring, make: Make, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.replies = [reply]
    deliver, put = make(), []
    monkeypatch.setattr(wiring.queue, "put", lambda *steps: put.extend(steps))
    for name in ("succeeded", "attempt_failed"):
        real = getattr(wiring.deliveries, name)

        def refuse(*arguments: Any, write: Callable[..., None] = real) -> None:
            if lost:
                write(*arguments)
            raise Unavailable("throttled")

        monkeypatch.setattr(wiring.deliveries, name, refuse)
    deliver.first(wiring.requests.get("r1"))
    monkeypatch.undo()

    [step] = put
    assert step.job_id == deliver_step(wiring.requests.get("r1"), attempts=0).job_id
    assert deliver(*step.args) is None

    assert len(stub.asked) == 1
    assert (delivery(wiring).status, delivery(wiring).attempts) == (status, 1)
    assert len(scheduled(wiring.redis, DELIVER)) == (status == "PENDING")


@pytest.mark.usefixtures("ended")
def test_a_first_delivery_in_a_full_group_is_left_to_a_job(wiring: Wiring, make: Make, stub: StubServer) -> None:
    shares: list[str] = []

    def is_full(share: str) -> bool:
        shares.append(share)
        return False

    with running(lambda _: None, begun_before=False, move=is_full):
        make().first(wiring.requests.get("r1"))

    assert (shares, stub.asked) == ([DELIVER], [])
    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]
