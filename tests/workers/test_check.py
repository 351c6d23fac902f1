"""Check: it replaces a missing callback after any response of the aggregator, and counts the outcome once."""

import functools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

import specs
from datahog.bootstrap.wiring import Wiring
from outbound.http_client import Http, Timeouts
from outbound.openapi_caller import Operations
from persistence.records.retrieval import Retrieval
from persistence.records.timestamps import from_text, to_text
from persistence.retrievals import FIRST_DELIVERY
from tests.support.engines.rq_state import SUBMIT, queued, scheduled
from tests.support.repositories import incompressible_json
from tests.support.servers.stub import Meanwhile, Reply, StubServer, json_reply
from workers import check
from workers.submit import Submit

NOW = datetime.now(UTC)
# Seconds from now to just after the first check of r1, whose deadline is in an hour.
DUE = 3600 + FIRST_DELIVERY + 1
TEXT = b'{"n": 1.0000000000000000001, "n": -0, "e": 1e-400}'
Make = Callable[..., Submit]

read_once = functools.cache(specs.read)


@pytest.fixture
def make(wiring: Wiring, stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the job; its clock is `ahead` seconds in the future, by default at the time of the first check."""
    monkeypatch.setattr(specs, "read", read_once)
    http = Http(pool_size=2)

    def submit(*, ahead: float = DUE, url: str = "") -> Submit:
        timeouts = Timeouts(0.5, 0.5, 1)
        return Submit(
            wiring.retrievals,
            wiring.queue,
            Operations(specs.CLIENT, "http://client.test", http, timeouts=timeouts),
            Operations(specs.AGGREGATOR, url or stub.url, http, timeouts=timeouts),
            rng=random.Random(1),
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
        )

    return submit


@pytest.fixture(autouse=True)
def accepted(wiring: Wiring) -> Retrieval:
    """The retrieval r1, which the aggregator has accepted."""
    retrieval = wiring.retrievals.create("r1", ["gas", "water"], deadline=datetime.now(UTC) + timedelta(hours=1))
    wiring.retrievals.accepted(retrieval)
    return wiring.retrievals.get("r1")


def said(status: str = "PARTIAL", *, ended: float = 3600, revision: int = 1, **delivery: Any) -> dict[str, Any]:
    """The aggregator's document of r1, which ended `ended` seconds from NOW."""
    now = to_text(NOW + timedelta(seconds=ended))
    job = {"url": "http://providers.test", "attempts": 2, "endedAt": now}
    return {
        "requestId": "r1",
        "status": status,
        "jobs": [
            {"provider": "gas", "status": "DONE", **job},
            {"provider": "water", "status": "FAILED", "lastError": "HTTP 500", **job},
        ],
        "callbackUrl": "http://client.test/api/v1/callbacks/r1",
        "openJobs": 0,
        "deadline": now,
        "delivery": {"status": "FAILED", "attempts": 3, "webhookId": "msg_r1_1", **delivery},
        "revision": revision,
        "createdAt": now,
        "updatedAt": now,
        **({} if status == "OPEN" else {"endedAt": now}),
    }


def with_result(text: bytes = TEXT, **members: Any) -> Reply:
    """The aggregator's response with that document and the result of its first job."""
    document = said(**members)
    document["jobs"][0]["result"] = orjson.Fragment(text)
    return json_reply(document)


def gone(detail: str = "no request r1") -> Reply:
    document = {"type": "urn:datahog:problem:not-found", "title": "x", "status": 404, "detail": detail}
    return json_reply(document, 404, "application/problem+json")


def at(seconds: float) -> str:
    return to_text(NOW + timedelta(seconds=seconds))


def open_for(wiring: Wiring, ahead: float) -> float:
    """Seconds from the clock of the job until the next check of r1, which is open."""
    retrieval = wiring.retrievals.get("r1")
    assert (retrieval.status, retrieval.submission.attempts) == ("OPEN", 1)
    assert retrieval.submission.last_error is None
    return (from_text(retrieval.next_check_at or "") - datetime.now(UTC)).total_seconds() - ahead


@pytest.mark.parametrize(
    "text", [TEXT, b"null", b'"\\u0000"', incompressible_json(400_000)], ids=["numbers", "null", "NUL", "in parts"]
)
def test_a_fetched_result_is_stored_as_its_text(wiring: Wiring, make: Make, stub: StubServer, text: bytes) -> None:
    stub.replies = [json_reply(said()), with_result(text)]

    assert make()("r1") is None

    retrieval = wiring.retrievals.get("r1")
    assert [asked.path for asked in stub.asked] == [f"/api/v1/requests/r1?results={each}" for each in ("false", "true")]
    assert retrieval.status == "PARTIAL"
    assert wiring.retrievals.load_results(retrieval) == {"gas": text}
    assert (retrieval.outcome or {})["jobs"][1]["lastError"] == "HTTP 500"
    assert retrieval.ended_at == said()["endedAt"]
    assert make()("r1") is None
    assert len(stub.asked) == 2


def test_a_check_before_its_time_makes_no_call(make: Make, stub: StubServer) -> None:
    assert make(ahead=0)("r1") is None
    assert make(ahead=DUE - 10)("r1") == pytest.approx(9, abs=1)
    assert stub.asked == []


def test_a_callback_during_a_check_counts_once(wiring: Wiring, make: Make, accepted: Retrieval) -> None:
    outcome = said("COMPLETE")
    call_back = functools.partial(wiring.retrievals.receive, accepted, outcome, {"gas": b"1"})

    with Meanwhile(call_back, json_reply(said()), with_result()) as aggregator:
        make(url=aggregator.url)("r1")

    retrieval = wiring.retrievals.get("r1")
    assert retrieval.status == "COMPLETE"
    assert wiring.retrievals.load_results(retrieval) == {"gas": b"1"}


@pytest.mark.parametrize(("revision", "counts"), [(1, False), (2, True)])
def test_only_a_later_revision_counts_after_a_check(
    wiring: Wiring, make: Make, stub: StubServer, revision: int, counts: bool
) -> None:
    stub.replies = [json_reply(said()), with_result()]
    make()("r1")

    assert wiring.retrievals.receive(wiring.retrievals.get("r1"), said("COMPLETE", revision=revision), {}) is counts


def test_a_check_stores_the_later_revision_of_a_rerun_request(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [json_reply(said("COMPLETE", revision=2)), with_result(status="COMPLETE", revision=2)]
    make()("r1")

    assert not wiring.retrievals.receive(wiring.retrievals.get("r1"), said(revision=1), {})
    assert wiring.retrievals.get("r1").status == "COMPLETE"


def test_checks_of_an_open_request_back_off(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [json_reply(said("OPEN"))]
    ahead, waits = float(DUE), []

    for _ in range(7):
        make(ahead=ahead)("r1")
        waits.append(open_for(wiring, ahead))
        ahead += waits[-1] + 1

    assert 29 < waits[0] < 37
    assert waits[1] > 55
    assert 249 < waits[-1] <= 301
    assert len(stub.asked) == 7
    assert scheduled(wiring.redis, SUBMIT) == []


@pytest.mark.parametrize(
    "replies",
    [
        [json_reply({"type": "about:blank", "title": "x", "status": 503}, 503, "application/problem+json")],
        [Reply(502, b"bad gateway")],
        [Reply(200, b"[")],
        [json_reply(said()), Reply(200, b'{"jobs": [}')],
        [json_reply(said()), with_result(b"[" * 501 + b"]" * 501)],
        [json_reply(said()), Reply(200, after=0.8), Reply(200, b"?")],
        [json_reply(said()), json_reply(said("OPEN"))],
    ],
    ids=["503", "502", "no JSON", "no JSON then", "too deep", "slow", "run again"],
)
def test_a_failing_aggregator_is_checked_again(
    wiring: Wiring, make: Make, stub: StubServer, replies: list[Reply]
) -> None:
    stub.replies = replies

    assert make()("r1") is None

    assert 29 < open_for(wiring, DUE) < 37


def test_an_absent_aggregator_is_checked_until_it_is_back(wiring: Wiring, make: Make, stub: StubServer) -> None:
    ahead = float(DUE)
    for _ in range(20):
        make(url="http://127.0.0.1:1", ahead=ahead)("r1")
        ahead += 301
    assert open_for(wiring, ahead) < 0

    stub.replies = [json_reply(said()), with_result()]
    make(ahead=ahead)("r1")

    assert wiring.retrievals.get("r1").status == "PARTIAL"


@pytest.mark.parametrize(
    "replies", [[gone()], [json_reply(said()), gone("2 of 3 parts of a result of r1 are there")]], ids=["all", "parts"]
)
def test_a_request_lost_by_the_aggregator_fails(
    wiring: Wiring, make: Make, stub: StubServer, replies: list[Reply]
) -> None:
    stub.replies = replies

    make()("r1")

    retrieval = wiring.retrievals.get("r1")
    assert (retrieval.status, retrieval.submission.attempts) == ("FAILED", 1)
    assert "no more" in (retrieval.submission.last_error or "")


@pytest.mark.parametrize(
    ("document", "taken"),
    [
        (said(ended=-1, status="OPEN"), False),
        (said(ended=-1), True),
        (said(ended=-1, status="SUCCEEDED"), True),
        (said(ended=-1, attempts=0), False),
        (said(ended=-290, attempts=0), False),
        (said(ended=-310, attempts=0), True),
        (said(ended=-310, nextAttemptAt=at(-1)), False),
        (said(ended=-310, nextAttemptAt=at(2)), False),
        (said(ended=-310, nextAttemptAt=at(30)), True),
        (said(ended=-900, nextAttemptAt=at(-310)), True),
    ],
)
def test_a_result_with_a_likely_delivery_is_not_fetched(document: dict[str, Any], taken: bool) -> None:
    delivery = document["delivery"]
    if delivery["attempts"] == 0 or "nextAttemptAt" in delivery:
        delivery["status"] = "PENDING"

    assert check.is_to_be_taken(document, NOW) is taken


def test_results_are_fetched_one_at_a_time(wiring: Wiring, make: Make) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    wiring.retrievals.accepted(wiring.retrievals.create("r2", ["gas"], deadline=deadline))
    waits = []

    class Slow(StubServer):
        def take(self, asked: Any) -> Reply:
            if asked.path == "/api/v1/requests/r1?results=true":
                waits.append(submit("r2"))
            return super().take(asked)

    with Slow() as aggregator:
        aggregator.replies = [json_reply(said()), json_reply(said()), with_result()]
        submit = make(url=aggregator.url)
        assert submit("r1") is None

    assert len(waits) == 1
    assert 0 < (waits[0] or 0) < 30
    assert wiring.retrievals.get("r2").status == "OPEN"


def test_a_late_cancellation_ends_with_the_result(wiring: Wiring, make: Make, stub: StubServer) -> None:
    conflict = {"type": "urn:datahog:problem:conflict", "title": "x", "status": 409, "detail": "has ended"}
    stub.replies = [json_reply(conflict, 409, "application/problem+json"), json_reply(said(ended=-9)), with_result()]
    wiring.retrievals.request_cancel("r1")

    make(ahead=0)("r1")
    assert scheduled(wiring.redis, SUBMIT) == ["check-r1-0"]
    make(ahead=0)("r1")

    assert wiring.retrievals.get("r1").status == "PARTIAL"


def test_a_cancellation_during_a_check_is_enqueued(wiring: Wiring, make: Make) -> None:
    cancel = functools.partial(wiring.retrievals.request_cancel, "r1")

    with Meanwhile(cancel, json_reply(said("OPEN"))) as aggregator:
        assert make(url=aggregator.url)("r1") is None

    assert queued(wiring.redis, SUBMIT) == ["cancel-r1-1"]
