"""Fetch, on real engines and a stub provider: it records each outcome and enqueues the next step."""

import json
import random
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest

from datahog.bootstrap.wiring import Wiring
from outbound.http_client import Http
from persistence.errors import Unavailable
from persistence.records.job import Attempt, JobStatus
from persistence.records.request import CloseReason, Request, RequestStatus
from persistence.records.timestamps import from_text, to_text
from persistence.requests import Requests
from providers.model import Provider, Providers
from providers.retry_policy import RetryPolicy
from tests.support.engines.rq_state import DELIVER, FETCH, queued, scheduled
from tests.support.servers.stub import Meanwhile, RawServer, Reply, StubServer
from workers.deliver import Deliver
from workers.fetch import Fetch
from workers.queue import Queue, fetch_steps
from workers.rq_worker.running_job import running

Ask = Callable[[str, str], bool | None]
Make = Callable[..., Ask]
# The time of a job that is too old to trust, so that Fetch reads the record first.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Delivered(Deliver):
    """Records the requests whose first delivery is due, instead of delivering them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def first(self, request: Request) -> None:
        self.requests.append(request)


@pytest.fixture
def delivered() -> Delivered:
    return Delivered()


def utc_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def provider(stub: StubServer) -> Provider:
    """The gas provider: the stub, with retries after exactly 10, 20, 40 ... seconds."""
    return Provider(url=f"{stub.url}/gas", total_timeout=0.5, retry=RetryPolicy(initial_delay=10, jitter=0))


@pytest.fixture
def make(wiring: Wiring, provider: Provider, delivered: Delivered) -> Make:
    """Makes the job; `options` replace fields of the provider."""

    def make(
        *,
        providers: Providers | None = None,
        clock: Callable[[], datetime] = utc_now,
        result_limit: int = 1000,
        **options: Any,
    ) -> Ask:
        gas = provider.model_copy(update=options)
        fetch = Fetch(
            wiring.requests,
            wiring.queue,
            {"gas": gas, "water": gas} if providers is None else providers,
            Http(pool_size=2),
            delivered,
            result_limit=result_limit,
            rng=random.Random(1),
            clock=clock,
        )
        return lambda request_id, name: fetch(old_attempt(request_id, name), LONG_AGO)

    return make


def fetch_over(requests: Requests, queue: Queue, providers: Providers, delivered: Delivered) -> Fetch:
    """Returns the job over the test's own repository, queue, providers and deliveries."""
    return Fetch(requests, queue, providers, Http(pool_size=2), delivered, result_limit=1000, rng=random.Random(1))


def old_attempt(request_id: str, name: str) -> Attempt:
    return Attempt(request_id, name, index=7, made=7, revision=7, deadline=to_text(LONG_AGO))


@pytest.fixture
def create(wiring: Wiring) -> Callable[..., Request]:
    """Creates the request r1."""

    def request(*providers: str, deadline: timedelta = DAY) -> Request:
        named = [(name, f"http://recorded/{name}") for name in providers or ("gas",)]
        moment = utc_now() + deadline
        created, _ = wiring.requests.create("r1", named, "http://callback", deadline=moment, content={})
        return created

    return request


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (Reply(200, b'[{"amount": 22.27}]'), b'[{"amount": 22.27}]'),
        (Reply(201, b" 123456789012345678901234567890 "), b" 123456789012345678901234567890 "),
        (Reply(200, b"null"), b"null"),
        (Reply(204), b"null"),
        (Reply(200, b'"x"', {"Content-Type": "text/plain"}), b'"x"'),
    ],
)
def test_a_2xx_with_json_completes_the_job_with_its_text(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, reply: Reply, result: bytes
) -> None:
    create()
    stub.replies = [reply]

    assert make()("r1", "gas")

    request = wiring.requests.get("r1")
    [job] = request.jobs
    assert (job.status, job.attempts, job.last_error, job.next_attempt_at) == (JobStatus.DONE, 1, None, None)
    assert wiring.requests.load_results(request) == {"gas": result}
    assert request.status is RequestStatus.COMPLETE


def test_the_last_job_starts_the_delivery(
    wiring: Wiring, make: Make, create: Callable[..., Request], delivered: Delivered
) -> None:
    create("gas", "water")
    fetch = make()

    fetch("r1", "water")
    assert delivered.requests == []
    fetch("r1", "gas")

    assert delivered.requests == [wiring.requests.get("r1")]


def test_the_call_uses_the_url_and_headers_of_the_providers_file(
    make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()

    make(headers={"Authorization": "Bearer t"})("r1", "gas")

    [asked] = stub.asked
    assert (asked.method, asked.path) == ("GET", "/gas")
    assert asked.headers["authorization"] == "Bearer t"
    assert asked.headers["accept"] == "application/json"


def test_an_error_response_is_stored_redacted(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    create()
    url = f"{stub.url}/gas?type=a&key=in-the-query-1"
    stub.replies = [Reply(401, b"x" * 190 + b" no: Bearer in-the-header-1, in-the-query-1 a")]

    make(url=url, headers={"Authorization": "Bearer in-the-header-1"})("r1", "gas")

    assert wiring.requests.get("r1").jobs[0].last_error == "HTTP 401 " + "x" * 190 + " no: ***,"
    assert "in-the" not in caplog.text


def test_an_invalid_response_is_stored_redacted(wiring: Wiring, make: Make, create: Callable[..., Request]) -> None:
    create()
    with RawServer(lambda connection: connection.sendall(b"no: Bearer in-the-header-1\r\n")) as server:
        make(url=server.url, headers={"Authorization": "Bearer in-the-header-1"})("r1", "gas")

    assert wiring.requests.get("r1").jobs[0].last_error == "the answer is not HTTP/1: no: ***"


def test_a_redirect_is_followed(wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer) -> None:
    create()
    stub.replies = [Reply(307, b"", {"Location": "/moved"}), Reply(200, b"[1]")]

    make()("r1", "gas")

    assert wiring.requests.load_results(wiring.requests.get("r1")) == {"gas": b"[1]"}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500, b"#fail", {"Content-Type": "text/plain"}), "HTTP 500 #fail"),
        (Reply(404, b""), "HTTP 404"),
        (Reply(401, b"no\nway"), "HTTP 401 no way"),
        (Reply(304, b""), "HTTP 304"),
        (Reply(200, b"#fail"), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b""), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b"[1"), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b"[NaN]"), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b'["\xff"]'), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b"[" * 5000, {}), "HTTP 200 with a body that is not JSON: "),
        (Reply(200, b"[" * 501 + b"]" * 501), "HTTP 200 with a body that is nested more than 500 levels deep"),
        (Reply(200, b"[]", after=0.7), "timeout: no complete answer within 0.5 s"),
        (Reply(302, b"", {"Location": "/gas"}), "more than 5 redirects"),
    ],
)
def test_any_other_response_is_recorded_and_retried(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, reply: Reply, error: str
) -> None:
    create()
    stub.replies = [reply]

    make(result_limit=10_000)("r1", "gas")

    request = wiring.requests.get("r1")
    [job] = request.jobs
    assert (job.status, job.attempts) == (JobStatus.INIT, 1)
    assert (job.last_error or "").startswith(error)
    assert request.status is RequestStatus.OPEN
    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]


def test_an_unreachable_provider_is_retried(wiring: Wiring, make: Make, create: Callable[..., Request]) -> None:
    create()

    make(url="http://127.0.0.1:1/gas")("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    assert (job.attempts, job.last_error) == (1, "connection failed: [Errno 111] Connection refused")


def test_delays_grow_with_the_failures(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    stub.replies = [Reply(500)]
    times = [utc_now()]
    fetch = make(clock=lambda: times[-1])

    for _ in range(3):
        fetch("r1", "gas")
        times.append(from_text(wiring.requests.get("r1").jobs[0].next_attempt_at or ""))

    delays = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert delays == pytest.approx([10, 20, 40], abs=0.01)


def test_a_retry_is_scheduled_at_the_time_in_the_record(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    stub.replies = [Reply(500)]

    make()("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    due = wiring.redis.zscore(f"rq:scheduled:{FETCH}", "fetch-r1-0-1-1")
    assert due == from_text(job.next_attempt_at or "").timestamp()


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_waits_for_retry_after(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, status: int, form: str
) -> None:
    create()
    floor = utc_now() + timedelta(seconds=3600)
    value = "3600" if form == "seconds" else format_datetime(floor, usegmt=True)
    stub.replies = [Reply(status, b"", {"Retry-After": value})]

    make()("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    allowed = floor if form == "seconds" else floor.replace(microsecond=0)
    assert allowed <= from_text(job.next_attempt_at or "") < allowed + timedelta(seconds=5)


def test_a_retry_after_past_the_deadline_fails_the_job(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, delivered: Delivered
) -> None:
    create(deadline=timedelta(hours=1))
    stub.replies = [Reply(429, b"#busy", {"Retry-After": "3601"})]

    make()("r1", "gas")

    request = wiring.requests.get("r1")
    [job] = request.jobs
    assert job.status is JobStatus.FAILED
    assert job.last_error == "HTTP 429 #busy; its Retry-After is past the deadline"
    assert delivered.requests == [request]


def test_a_job_before_its_time_makes_no_attempt(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    stub.replies = [Reply(500)]
    fetch = make()
    fetch("r1", "gas")

    wiring.redis.flushall()
    assert fetch("r1", "gas") is None

    assert len(stub.asked) == 1
    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]
    due = wiring.redis.zscore(f"rq:scheduled:{FETCH}", "fetch-r1-0-1-1") or 0
    assert 8 < due - time.time() < 12


def test_an_attempt_is_made_after_the_clock_is_set_back(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    stub.replies = [Reply(500)]
    make()("r1", "gas")

    make(clock=lambda: utc_now() - timedelta(hours=1))("r1", "gas")

    assert len(stub.asked) == 2


def test_a_result_over_the_limit_fails_the_job_with_the_reason(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, delivered: Delivered
) -> None:
    create("gas", "water")
    stub.replies = [Reply(200, b'"' + b"x" * 1000 + b'"'), Reply()]
    fetch = make(result_limit=1000)

    fetch("r1", "gas")
    fetch("r1", "water")

    request = wiring.requests.get("r1")
    gas, _ = request.jobs
    assert (gas.status, gas.last_error) == (JobStatus.FAILED, "the body is larger than 1000 bytes")
    assert request.status is RequestStatus.PARTIAL
    assert delivered.requests == [wiring.requests.get("r1")]


def test_the_last_attempt_fails_the_job_and_starts_the_delivery(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, delivered: Delivered
) -> None:
    create()
    stub.replies = [Reply(500, b"#fail")]

    make(retry=RetryPolicy(maximum_attempts=1))("r1", "gas")

    request = wiring.requests.get("r1")
    [job] = request.jobs
    assert (job.status, job.attempts, job.last_error) == (JobStatus.FAILED, 1, "HTTP 500 #fail")
    assert request.status is RequestStatus.FAILED
    assert delivered.requests == [wiring.requests.get("r1")]


def test_a_retry_past_the_deadline_fails_the_job(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create(deadline=timedelta(seconds=5))
    stub.replies = [Reply(500, b"#fail")]

    make()("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    assert (job.status, job.last_error) == (JobStatus.FAILED, "HTTP 500 #fail")


def test_after_the_deadline_the_request_closes_without_a_call(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, delivered: Delivered
) -> None:
    create("gas", "water", deadline=timedelta(seconds=-1))

    make()("r1", "gas")

    request = wiring.requests.get("r1")
    assert [job.status for job in request.jobs] == [JobStatus.FAILED, JobStatus.FAILED]
    assert [job.last_error for job in request.jobs] == ["deadline reached", "deadline reached"]
    assert delivered.requests == [wiring.requests.get("r1")]
    assert stub.asked == []


def test_a_provider_missing_in_the_file_is_retried(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()

    make(providers={})("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    assert (job.status, job.attempts) == (JobStatus.INIT, 1)
    assert job.last_error == "the provider is not in the providers' file"
    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]
    assert stub.asked == []


@pytest.mark.parametrize(("request_id", "name"), [("other", "gas"), ("r1", "internet")])
def test_a_missing_request_or_job_is_ignored(
    make: Make, create: Callable[..., Request], stub: StubServer, request_id: str, name: str
) -> None:
    create()

    assert make()(request_id, name) is None
    assert stub.asked == []


def test_a_job_that_has_ended_is_not_fetched_again(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    fetch = make()
    fetch("r1", "gas")

    fetch("r1", "gas")

    assert len(stub.asked) == 1
    assert wiring.requests.get("r1").jobs[0].attempts == 1


@pytest.mark.parametrize("reply", [Reply(200, b"[]", after=0.2), Reply(500, b"", after=0.2)])
def test_a_response_after_the_end_changes_nothing(
    wiring: Wiring, make: Make, create: Callable[..., Request], reply: Reply
) -> None:
    create()
    with Meanwhile(lambda: wiring.requests.close("r1", CloseReason.CANCELLED), reply) as server:
        assert make(url=server.url)("r1", "gas") is None

    request = wiring.requests.get("r1")
    assert request.status is RequestStatus.CANCELLED
    assert wiring.requests.load_results(request) == {}
    assert scheduled(wiring.redis, FETCH) == []


def test_the_same_attempt_made_twice_counts_once(wiring: Wiring, make: Make, create: Callable[..., Request]) -> None:
    create()
    twin = make(url="http://127.0.0.1:1/")
    with Meanwhile(lambda: twin("r1", "gas"), Reply(500)) as server:
        make(url=server.url)("r1", "gas")

    [job] = wiring.requests.get("r1").jobs
    assert job.attempts == 1
    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]


def test_without_redis_an_attempt_is_made_and_recorded(
    make_wiring: Callable[..., Wiring],
    wiring: Wiring,
    create: Callable[..., Request],
    provider: Provider,
    delivered: Delivered,
) -> None:
    create()
    lonely = make_wiring(redis_url="redis://127.0.0.1:1/0")
    fetch = fetch_over(lonely.requests, lonely.queue, {"gas": provider}, delivered)

    fetch(old_attempt("r1", "gas"), LONG_AGO)

    assert wiring.requests.get("r1").status is RequestStatus.COMPLETE


def test_an_attempt_without_dynamodb_raises_unavailable(
    make_wiring: Callable[..., Wiring], wiring: Wiring, delivered: Delivered
) -> None:
    lonely = make_wiring(dynamodb_endpoint_url="http://127.0.0.1:1")
    fetch = fetch_over(lonely.requests, wiring.queue, {}, delivered)

    with pytest.raises(Unavailable):
        fetch(old_attempt("r1", "gas"), LONG_AGO)


def test_a_large_result_is_stored_whole(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    body = orjson.dumps([random.Random(1).randbytes(750_000).hex()])
    stub.replies = [Reply(200, body)]

    make(result_limit=5_242_880, total_timeout=10)("r1", "gas")

    assert wiring.requests.load_results(wiring.requests.get("r1")) == {"gas": body}


@pytest.fixture
def direct(wiring: Wiring, provider: Provider, delivered: Delivered) -> Fetch:
    """The job over a repository that can write and not read."""
    unreadable = Requests(wiring._request_items, wiring._request_results)
    unreadable.get = unexpected
    providers = {"gas": provider, "water": provider}
    return fetch_over(unreadable, wiring.queue, providers, delivered)


def unexpected(request_id: str, tenant: str | None = None) -> Request:
    raise AssertionError(f"the record of {request_id} is read, whose tenant is {tenant}")


def test_a_fresh_attempt_does_not_read_the_record(
    wiring: Wiring, direct: Fetch, create: Callable[..., Request], delivered: Delivered
) -> None:
    request = create("gas", "water")

    answered = [direct(request.attempt(job), utc_now()) for job in request.jobs]

    assert answered == [True, True]
    ended = wiring.requests.get("r1")
    assert (ended.status, ended.version) == (RequestStatus.COMPLETE, 3)
    assert delivered.requests == [wiring.requests.get("r1")]


def test_a_retry_carries_the_recorded_attempt(
    wiring: Wiring, direct: Fetch, create: Callable[..., Request], stub: StubServer
) -> None:
    request = create()
    stub.replies = [Reply(500)]

    assert direct(request.attempt(request.jobs[0]), utc_now()) is False

    recorded = wiring.requests.get("r1")
    data = wiring.redis.hget("rq:job:fetch-r1-0-1-1", "data")
    assert isinstance(data, bytes)
    function, _, args, _ = json.loads(zlib.decompress(data))
    assert function == "datahog.jobs.fetch"
    assert Attempt(*args[:-1]) == recorded.attempt(recorded.jobs[0])


def test_an_old_attempt_reads_the_record_first(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer, delivered: Delivered
) -> None:
    request = create()
    wiring.requests.close("r1", CloseReason.CANCELLED)
    fetch = fetch_over(wiring.requests, wiring.queue, {"gas": Provider(url=stub.url)}, delivered)

    assert fetch(request.attempt(request.jobs[0]), utc_now() - timedelta(minutes=11)) is None

    assert stub.asked == []


def test_an_attempt_begun_before_reads_the_record_first(
    wiring: Wiring, direct: Fetch, create: Callable[..., Request], stub: StubServer
) -> None:
    request = create()

    with (
        running(lambda _: None, begun_before=True),
        pytest.raises(AssertionError, match="the record of r1 is read"),
    ):
        direct(request.attempt(request.jobs[0]), utc_now())

    assert stub.asked == []


def test_a_job_of_an_ended_request_enqueues_its_delivery(
    wiring: Wiring, make: Make, create: Callable[..., Request], stub: StubServer
) -> None:
    create()
    make()("r1", "gas")
    wiring.redis.flushall()

    make()("r1", "gas")

    assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]
    assert len(stub.asked) == 1


def test_an_attempt_counted_before_schedules_the_next(
    wiring: Wiring, create: Callable[..., Request], stub: StubServer, provider: Provider, delivered: Delivered
) -> None:
    request = create("gas", "water")
    first = request.attempt(request.jobs[0])
    wiring.requests.record_failure(first, "HTTP 500", utc_now() + timedelta(seconds=10))
    fetch = fetch_over(wiring.requests, wiring.queue, {"gas": provider}, delivered)
    stub.replies = [Reply(500)]

    assert fetch(first, utc_now()) is None

    assert scheduled(wiring.redis, FETCH) == ["fetch-r1-0-1-1"]
    assert wiring.requests.get("r1").jobs[0].attempts == 1


def test_closing_a_request_removes_its_jobs_from_the_queue(
    wiring: Wiring, make: Make, create: Callable[..., Request]
) -> None:
    request = create("gas", "water", deadline=timedelta(seconds=-1))
    wiring.queue.put(*fetch_steps(request, utc_now()))

    make()("r1", "gas")

    assert not list(wiring.redis.scan_iter("rq:job:fetch-*"))
