"""Submit, on real engines and a stub aggregator: it hands over requests and their cancellations, and retries."""

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
from persistence.errors import Unavailable
from persistence.records.retrieval import Retrieval, Submission, SubmissionStatus
from persistence.records.timestamps import from_text, to_text
from tests.support.engines.rq_state import SUBMIT, queued, scheduled
from tests.support.servers.stub import Meanwhile, Reply, StubServer, json_reply
from workers.rq_worker.running_job import running
from workers.submit import Submit

NOW = datetime.now(UTC)
Make = Callable[..., Submit]


def aggregators(status: str = "OPEN") -> dict[str, Any]:
    """The aggregator's document of the request r1."""
    now = to_text(NOW)
    return {
        "requestId": "r1",
        "status": status,
        "jobs": [{"provider": "gas", "url": "http://gas", "status": "INIT", "attempts": 0}],
        "callbackUrl": "http://client.test/api/v1/callbacks/r1",
        "openJobs": 1,
        "deadline": now,
        "delivery": {"status": "PENDING", "attempts": 0, "webhookId": "msg_r1_1"},
        "revision": 1,
        "createdAt": now,
        "updatedAt": now,
    }


def problem(status: int, detail: str = "because") -> Reply:
    slug = {404: "not-found", 409: "conflict", 422: "unprocessable", 503: "unavailable"}.get(status, "bad-request")
    document = {"type": f"urn:datahog:problem:{slug}", "title": slug, "status": status, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return json_reply(document, status, "application/problem+json", headers=headers)


BARE = "/api/v1/requests/r1?results=false"
LOCATION = {"Location": "/api/v1/requests/r1"}
ACCEPTED = json_reply(aggregators(), 202, headers=LOCATION)
CANCELLED = json_reply(aggregators("CANCELLED"))


# Parsing a spec takes a fifth of a second, so each is parsed once.
read_once = functools.cache(specs.read)


@pytest.fixture
def make(wiring: Wiring, stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the job; its clock is `ahead` seconds in the future."""
    monkeypatch.setattr(specs, "read", read_once)
    http = Http(pool_size=2)

    def submit(*, ahead: float = 0, url: str = "") -> Submit:
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


@pytest.fixture
def created(wiring: Wiring) -> Retrieval:
    """The retrieval r1, not submitted yet, with a deadline in an hour."""
    return wiring.retrievals.create("r1", ["gas"], deadline=datetime.now(UTC) + timedelta(hours=1))


def submission(wiring: Wiring) -> Submission:
    return wiring.retrievals.get("r1").submission


def test_a_submission_holds_the_id_callback_and_deadline(
    wiring: Wiring, make: Make, created: Retrieval, stub: StubServer
) -> None:
    stub.replies = [ACCEPTED]

    assert make()("r1") is None

    [asked] = stub.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/requests")
    assert orjson.loads(asked.body) == {
        "requestId": "r1",
        "providers": ["gas"],
        "callbackUrl": "http://client.test/api/v1/callbacks/r1",
        "deadline": created.deadline,
    }
    assert (submission(wiring).status, submission(wiring).attempts) == (SubmissionStatus.ACCEPTED, 1)


@pytest.mark.usefixtures("created")
def test_an_accepted_request_is_not_submitted_again(make: Make, stub: StubServer) -> None:
    stub.replies = [ACCEPTED]

    for _ in range(2):
        make()("r1")

    assert len(stub.asked) == 1


@pytest.mark.parametrize("status", [400, 409, 413, 422])
@pytest.mark.usefixtures("created")
def test_a_permanent_refusal_ends_the_submission(wiring: Wiring, make: Make, stub: StubServer, status: int) -> None:
    stub.replies = [problem(status, "unknown provider")]

    make()("r1")

    retrieval = wiring.retrievals.get("r1")
    assert retrieval.submission.status is SubmissionStatus.REFUSED
    assert retrieval.submission.last_error == f"HTTP {status} unknown provider"
    assert retrieval.status == "FAILED"
    assert scheduled(wiring.redis, SUBMIT) == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (problem(503, "try again soon"), "HTTP 503 try again soon"),
        (problem(500), "HTTP 500 because"),
        (problem(401, "not known"), "HTTP 401 not known"),
        (
            Reply(502, b"bad gateway"),
            "createRequest answered HTTP 502 bad gateway, which its document does not",
        ),
        (json_reply(aggregators(), 202), "createRequest answered 202 with no Location"),
        (json_reply({}, 202, headers=LOCATION), "createRequest answered 202 with a wrong "),
        (Reply(202, b"[", ACCEPTED.headers), "createRequest answered 202 with broken JSON"),
        (
            json_reply(aggregators(), 202, "x" * 1000, headers=LOCATION),
            "createRequest answered 202 with Content-Type xxx",
        ),
        (Reply(202, after=0.8), "timeout: nothing came for 0.5 s"),
    ],
)
@pytest.mark.usefixtures("created")
def test_a_failing_aggregator_is_retried(
    wiring: Wiring, make: Make, stub: StubServer, reply: Reply, error: str
) -> None:
    stub.replies = [reply]

    make()("r1")

    found = submission(wiring)
    assert (found.status, found.attempts) == (SubmissionStatus.PENDING, 1)
    assert (found.last_error or "").startswith(error)
    assert len(found.last_error or "") < 300
    assert scheduled(wiring.redis, SUBMIT) == ["submit-r1-1"]


@pytest.mark.usefixtures("created")
def test_an_absent_aggregator_only_delays_the_submission(wiring: Wiring, make: Make, stub: StubServer) -> None:
    for ahead in (0, 10, 30):
        make(url="http://127.0.0.1:1", ahead=ahead)("r1")
    assert submission(wiring).attempts == 3

    stub.replies = [ACCEPTED]
    make(ahead=90)("r1")

    assert (submission(wiring).status, submission(wiring).attempts) == (SubmissionStatus.ACCEPTED, 4)


@pytest.mark.usefixtures("created")
def test_delays_grow_to_half_a_minute(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503)]
    ahead, delays = 0.0, []

    for _ in range(12):
        make(ahead=ahead)("r1")
        due = (from_text(submission(wiring).next_attempt_at or "") - datetime.now(UTC)).total_seconds()
        delays.append(due - ahead)
        ahead = due + 0.1

    assert 0.3 < delays[0] < 0.8
    assert 25 < delays[-1] <= 45


@pytest.mark.usefixtures("created")
def test_a_job_before_its_time_makes_no_attempt(make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503)]
    make()("r1")

    wait = make()("r1")

    assert wait is not None
    assert 0 < wait < 0.8
    assert len(stub.asked) == 1


@pytest.mark.usefixtures("created")
def test_an_attempt_is_made_after_the_clock_is_set_back(make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503)]
    make()("r1")

    make(ahead=-3600)("r1")

    assert len(stub.asked) == 2


@pytest.mark.usefixtures("created")
def test_at_the_deadline_it_fails_with_the_last_reason(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503, "away")]
    make(ahead=3590)("r1")

    make(ahead=3601)("r1")

    retrieval = wiring.retrievals.get("r1")
    assert retrieval.status == "FAILED"
    assert retrieval.submission.last_error == "deadline reached; HTTP 503 away"
    assert [asked.method for asked in stub.asked] == ["POST", "GET"]


@pytest.mark.parametrize(("ahead", "then"), [(3601, []), (3595, [problem(422, "unknown provider")])])
@pytest.mark.usefixtures("created")
def test_a_request_with_a_lost_response_is_found_accepted(
    wiring: Wiring, make: Make, stub: StubServer, ahead: float, then: list[Reply]
) -> None:
    stub.replies = [problem(503, "lost"), *then, json_reply(aggregators())]
    make(ahead=3590)("r1")

    make(ahead=ahead)("r1")

    assert (submission(wiring).status, stub.asked[-1].path) == (SubmissionStatus.ACCEPTED, BARE)
    assert wiring.retrievals.get("r1").status == "OPEN"


@pytest.mark.usefixtures("created")
def test_at_the_deadline_an_absent_aggregator_is_not_waited_for(wiring: Wiring, make: Make) -> None:
    make(ahead=3601, url="http://127.0.0.1:1")("r1")

    assert wiring.retrievals.get("r1").status == "FAILED"


@pytest.mark.usefixtures("created")
def test_the_last_attempt_is_right_after_the_deadline(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503)]

    for ahead in (3000, 3060, 3120, 3180, 3240, 3300, 3360, 3420, 3590):
        make(ahead=ahead)("r1")

    due = from_text(submission(wiring).next_attempt_at or "") - from_text(wiring.retrievals.get("r1").deadline)
    assert 0 < due.total_seconds() < 1


def test_a_missing_request_is_ignored(make: Make, stub: StubServer) -> None:
    assert make()("r1") is None
    assert stub.asked == []


@pytest.mark.parametrize("reply", [CANCELLED, problem(404)])
@pytest.mark.usefixtures("created")
def test_a_cancellation_is_sent_to_the_aggregator(wiring: Wiring, make: Make, stub: StubServer, reply: Reply) -> None:
    stub.replies = [reply]
    wiring.retrievals.request_cancel("r1")

    make()("r1")

    assert [asked.path for asked in stub.asked] == ["/api/v1/requests/r1/cancel"]
    assert wiring.retrievals.get("r1").status == "CANCELLED"


@pytest.mark.usefixtures("created")
def test_a_late_cancellation_schedules_a_check(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [ACCEPTED, problem(409)]
    make()("r1")
    wiring.retrievals.request_cancel("r1")

    make()("r1")

    retrieval = wiring.retrievals.get("r1")
    assert (retrieval.status, retrieval.cancel_requested_at) == ("OPEN", None)
    assert scheduled(wiring.redis, SUBMIT) == ["check-r1-0"]


@pytest.mark.usefixtures("created")
def test_a_cancellation_is_repeated_until_it_is_accepted(wiring: Wiring, make: Make, stub: StubServer) -> None:
    stub.replies = [problem(503), CANCELLED]
    wiring.retrievals.request_cancel("r1")

    make()("r1")
    assert wiring.retrievals.get("r1").status == "OPEN"
    assert scheduled(wiring.redis, SUBMIT) == ["cancel-r1-1"]
    make(ahead=5)("r1")

    assert wiring.retrievals.get("r1").status == "CANCELLED"


@pytest.mark.usefixtures("created")
def test_a_cancellation_backs_off_after_the_deadline(wiring: Wiring, make: Make) -> None:
    wiring.retrievals.request_cancel("r1")
    ahead = 7200.0

    for _ in range(12):
        make(url="http://127.0.0.1:1", ahead=ahead)("r1")
        ahead += 60

    due = from_text(submission(wiring).next_attempt_at or "") - datetime.now(UTC)
    assert due.total_seconds() - (ahead - 60) > 20


@pytest.mark.parametrize("reply", [ACCEPTED, problem(422), problem(503), Reply(200, b"?")])
@pytest.mark.usefixtures("created")
def test_a_cancellation_during_a_submission_is_enqueued(wiring: Wiring, make: Make, reply: Reply) -> None:
    with Meanwhile(lambda: wiring.retrievals.request_cancel("r1"), reply) as aggregator:
        assert make(url=aggregator.url)("r1") is None

    assert queued(wiring.redis, SUBMIT) == ["cancel-r1-0"]
    assert wiring.retrievals.get("r1").submission.status is SubmissionStatus.PENDING


@pytest.mark.usefixtures("created")
def test_a_cancellation_during_submission_reaches_the_aggregator(wiring: Wiring, make: Make) -> None:
    def cancel() -> None:
        wiring.retrievals.cancelled(wiring.retrievals.request_cancel("r1"))

    with Meanwhile(cancel, ACCEPTED, CANCELLED) as aggregator:
        make(url=aggregator.url)("r1")

    assert [asked.path for asked in aggregator.asked] == ["/api/v1/requests", "/api/v1/requests/r1/cancel"]
    assert wiring.retrievals.get("r1").status == "CANCELLED"


@pytest.mark.usefixtures("created")
def test_a_callback_before_the_acceptance_ends_the_retrieval(wiring: Wiring, make: Make) -> None:
    outcome = {"requestId": "r1", "status": "FAILED", "revision": 1, "jobs": [], "endedAt": to_text(NOW)}

    def call_back() -> None:
        wiring.retrievals.receive(wiring.retrievals.get("r1"), outcome, {})

    with Meanwhile(call_back, ACCEPTED) as aggregator:
        assert make(url=aggregator.url)("r1") is None

    assert wiring.retrievals.get("r1").status == "FAILED"
    assert submission(wiring).status is SubmissionStatus.ACCEPTED


@pytest.mark.usefixtures("created")
@pytest.mark.parametrize(
    ("reply", "write", "status"),
    [
        (ACCEPTED, "accepted", SubmissionStatus.ACCEPTED),
        (problem(422), "refused", SubmissionStatus.REFUSED),
        (problem(503), "submission_failed", SubmissionStatus.PENDING),
    ],
)
def test_a_refused_write_is_repeated_without_a_second_submission(
    reply: Reply,
    write: str,
    status: SubmissionStatus,
    wiring: Wiring,
    make: Make,
    stub: StubServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.replies = [reply, problem(404)]
    refusals = iter([Unavailable("throttled")] * 2)
    real = getattr(wiring.retrievals, write)

    def refuse(*arguments: Any) -> None:
        for refusal in refusals:
            raise refusal
        real(*arguments)

    monkeypatch.setattr(wiring.retrievals, write, refuse)

    with running(lambda _: None, begun_before=False, stopping=lambda: False):
        make()("r1")

    assert [asked.method for asked in stub.asked].count("POST") == 1
    assert (submission(wiring).status, submission(wiring).attempts) == (status, 1)
