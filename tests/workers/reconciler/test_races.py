"""Races of workers and reconcilers on real engines: late and repeated writes count once."""

import json
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from rq.utils import import_attribute

import workers.reconciler.plans
from datahog import jobs
from datahog.bootstrap.wiring import Wiring
from outbound.egress_policy import LOOPBACK
from outbound.http_client import Http
from persistence.errors import Unavailable
from persistence.records.job import Attempt, Job, JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, Request, RequestStatus
from persistence.requests import Requests
from providers.model import Provider
from providers.retry_policy import RetryPolicy
from tests.support.engines.rq_state import DELIVER, FETCH, leftovers, queued, scheduled
from tests.support.repositories import at_once, conflicts
from tests.support.servers.stub import Asked, Meanwhile, Reply, StubServer
from tests.support.system import SECRET, eventually
from workers.fetch import Fetch
from workers.queue import QUEUES, fetch_steps
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew
from workers.rq_worker.leases import Batches, Ended
from workers.rq_worker.run_again import RunAgain

_WORKERS, _RECONCILERS = 20, 2
_PROVIDERS = tuple(f"p{number}" for number in range(10))
_REFUSALS = 2  # refused calls before each success
_DELIVERY_TIMEOUT = 15  # seconds


class _World(StubServer):
    """Providers that refuse `_REFUSALS` calls before each success, and a receiver that takes 0.3 s."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()

    def take(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            self._calls[asked.path] += 1
            calls = self._calls[asked.path]
        if asked.method == "POST":
            return Reply(204, after=0.3)
        return Reply(500, after=0.02) if calls % (1 + _REFUSALS) else Reply(200, b"1", after=0.02)


class _Crew:
    """Workers and reconcilers on threads while the block lasts; their wirings are those of several processes."""

    def __init__(self, wirings: list[Wiring], monkeypatch: pytest.MonkeyPatch) -> None:
        self.counted: Counter[Attempt] = Counter()
        """How often each failed attempt was recorded."""
        self._over = threading.Event()
        self._mine = threading.local()
        monkeypatch.setattr(jobs, "wiring", lambda: self._mine.wiring)
        for wiring in wirings:
            self._count(wiring)
        turns = [wirings[number % len(wirings)] for number in range(_WORKERS)]
        self._reconcilers = [wiring.reconciler() for wiring in wirings[:_RECONCILERS]]
        self._threads = [threading.Thread(target=self._work, args=turn) for turn in enumerate(turns)]
        self._threads += [threading.Thread(target=reconciler.run) for reconciler in self._reconcilers]

    def __enter__(self) -> "_Crew":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for reconciler in self._reconcilers:
            reconciler.stop()
        for thread in self._threads:
            thread.join(30)

    def _count(self, wiring: Wiring) -> None:
        record_failure = wiring.requests.record_failure

        def counting(attempt: Attempt, error: str, next_attempt_at: datetime) -> None:
            record_failure(attempt, error, next_attempt_at)
            self.counted[attempt] += 1

        setattr(wiring.requests, "record_failure", counting)  # noqa: B010 (mypy would not have it otherwise)

    def _work(self, number: int, wiring: Wiring) -> None:
        self._mine.wiring = wiring
        batches = Batches(wiring.redis, QUEUES, worker=f"w{number}", lease=20)
        while not self._over.is_set():
            taken = batches.take(1)
            for job in taken:
                function, _, args, _ = json.loads(zlib.decompress(job.data))
                returned = import_attribute(function)(*args)
                wait = returned.wait if isinstance(returned, RunAgain) else None
                batches.end([Ended(job, wait, answered=returned if isinstance(returned, bool) else None)])
            if not taken:
                time.sleep(0.01)


def test_two_reconcilers_and_twenty_workers_end_a_request_once(
    make_wiring: Callable[..., Wiring], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reconcilers scan all records all the time.
    monkeypatch.setattr(workers.reconciler.plans, "SOONEST", timedelta(milliseconds=1))
    monkeypatch.setattr(workers.reconciler.plans, "LATEST", timedelta(milliseconds=1))
    options = {"retry": {"initialDelay": 0.02, "jitter": 0}, "breaker": {"failures": 1000}}
    changes = {"heal_after": 0.001, "reconciler_period": 0.001, "delivery_timeout": _DELIVERY_TIMEOUT}
    with _World() as world:
        file = tmp_path / "providers.yaml"
        file.write_text(json.dumps({"providers": {n: options | {"url": f"{world.url}/{n}"} for n in _PROVIDERS}}))
        wirings = [
            make_wiring(providers_file=file, webhook_secrets=(SECRET,), outbound_networks=LOOPBACK, **changes)
            for _ in range(4)
        ]
        requests, connection = wirings[0].requests, wirings[0].redis
        with _Crew(wirings, monkeypatch) as crew:
            for number in range(5):
                request_id = f"r{number}"
                named = [(name, f"{world.url}/{name}") for name in _PROVIDERS]
                deadline = datetime.now(UTC) + timedelta(days=1)
                request, _ = requests.create(
                    request_id, named, f"{world.url}/{request_id}", deadline=deadline, content={}
                )
                wirings[0].queue.put(*fetch_steps(request, datetime.now(UTC)))
                for _ in range(10):
                    # The reconcilers enqueue running jobs again, so that two workers run the same job.
                    time.sleep(0.02)
                    connection.flushall()
                eventually(partial(_delivered, requests, request_id))
            eventually(lambda: not leftovers(connection))

        for number in range(5):
            ended = requests.get(f"r{number}")
            assert (ended.status, ended.delivery.attempts) == (RequestStatus.COMPLETE, 1)
            posted = [asked.headers["webhook-id"] for asked in world.asked if asked.path == f"/r{number}"]
            assert posted == [ended.delivery.webhook_id]
            for job in ended.jobs:
                failed = [a for a in crew.counted if (a.request_id, a.provider) == (ended.request_id, job.provider)]
                assert job.attempts == 1 + len(failed)
        assert set(crew.counted.values()) == {1}
        # There were more calls than counted attempts, so workers did race.
        asked = sum(asked.method == "GET" for asked in world.asked)
        assert asked > sum(job.attempts for number in range(5) for job in requests.get(f"r{number}").jobs)


def _delivered(requests: Requests, request_id: str) -> bool:
    return requests.get(request_id).delivery.status is DeliveryStatus.SUCCEEDED


@pytest.fixture
def create(wiring: Wiring) -> Callable[..., Request]:
    """Creates the request r1 with the URL's callback and a deadline in an hour."""

    def request(url: str, *providers: str) -> Request:
        named = [(name, f"http://{name}") for name in providers]
        deadline = datetime.now(UTC) + timedelta(hours=1)
        return wiring.requests.create("r1", named, f"{url}/callback", deadline=deadline, content={})[0]

    return request


@pytest.fixture
def make_wiring_of_receivers(make_wiring: Callable[..., Wiring]) -> Wiring:
    """A wiring whose egress policy allows this machine."""
    return make_wiring(webhook_secrets=(SECRET,), outbound_networks=LOOPBACK)


def reconciler(wiring: Wiring, ahead: float) -> Reconciler:
    """Returns a reconciler whose clock is `ahead` seconds in the future."""
    return Reconciler(
        wiring.requests,
        wiring.retrievals,
        wiring.due_index(wiring._aggregator_table),
        wiring.due_index(wiring._client_table),
        wiring.queue,
        wiring.heartbeats,
        AllShards(),
        Crew(1),
        period=60,
        delivery_timeout=_DELIVERY_TIMEOUT,
        clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
    )


def test_many_scans_do_not_repeat_a_delivery_under_way(
    make_wiring_of_receivers: Wiring, wiring: Wiring, create: Callable[..., Request]
) -> None:
    found: list[int] = []

    def look() -> None:
        for ahead in range(_DELIVERY_TIMEOUT):
            # The record becomes due at once.
            wiring.requests.look_again(wiring.requests.get("r1"), datetime.now(UTC))
            found.append(reconciler(wiring, ahead - 1).look())

    with Meanwhile(look, Reply(204)) as receiver:
        request = create(receiver.url, "gas")
        ended = wiring.requests.finish_job(request.attempt(request.jobs[0]), b"1")
        assert ended

        make_wiring_of_receivers.deliver.first(ended)

        assert len(receiver.asked) == 1
    assert found == [0] * _DELIVERY_TIMEOUT
    assert queued(wiring.redis, DELIVER) == scheduled(wiring.redis, DELIVER) == []
    assert wiring.requests.get("r1").delivery.status is DeliveryStatus.SUCCEEDED


@pytest.mark.parametrize("first", [True, False], ids=["by the last job", "by its own job"])
def test_an_unrecorded_acknowledgement_repeats_the_webhook_id(
    make_wiring_of_receivers: Wiring, wiring: Wiring, create: Callable[..., Request], first: bool
) -> None:
    deliver = make_wiring_of_receivers.deliver
    away: list[bool] = []

    def fail(**_: object) -> None:
        if away:
            raise EndpointConnectionError(endpoint_url="DynamoDB")

    make_wiring_of_receivers.dynamodb.meta.events.register_first("before-send.dynamodb.UpdateItem", fail)
    with Meanwhile(lambda: away.append(True), Reply(200)) as receiver:
        request = create(receiver.url, "gas")
        ended = wiring.requests.finish_job(request.attempt(request.jobs[0]), b"1")
        assert ended

        if first:
            deliver.first(ended)
            assert queued(wiring.redis, DELIVER) == ["deliver-r1-1-0"]
        else:
            # A worker repeats a job that raises this.
            with pytest.raises(Unavailable):
                deliver("r1")
        assert wiring.requests.get("r1").delivery.status is DeliveryStatus.PENDING
        away.clear()
        deliver("r1")
        deliver("r1")

        assert [asked.headers["webhook-id"] for asked in receiver.asked] == ["msg_r1_1"] * 2
    delivery = wiring.requests.get("r1").delivery
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.SUCCEEDED, 1)


def test_simultaneous_failures_get_separate_retries(
    wiring: Wiring, create: Callable[..., Request], stub: StubServer
) -> None:
    names = [f"p{number:02}" for number in range(20)]
    request = create(stub.url, *names)
    now = datetime.now(UTC).replace(microsecond=0)
    policy = RetryPolicy(initial_delay=10, jitter=0)
    provider = Provider(url=stub.url, retry=policy)

    def fetch(attempt: Attempt) -> bool | None:
        http = Http(pool_size=20)
        limits = dict.fromkeys(names, provider)
        job = Fetch(
            wiring.requests,
            wiring.queue,
            limits,
            http,
            wiring.deliver,
            result_limit=1000,
            rng=random.Random(1),
            clock=lambda: now,
        )
        return job(attempt, now)

    stub.replies = [Reply(500)]
    outcomes = at_once(partial(fetch, request.attempt(job)) for job in request.jobs)

    failed = wiring.requests.get("r1")
    assert outcomes == [False] * len(names)
    assert {(job.attempts, job.status) for job in failed.jobs} == {(1, JobStatus.INIT)}
    assert len({job.next_attempt_at for job in failed.jobs}) == 1
    assert scheduled(wiring.redis, FETCH) == sorted(f"fetch-r1-{index}-1-1" for index in range(len(names)))
    assert wiring.redis.zrange(f"rq:scheduled:{FETCH}", 0, -1, withscores=True)[0][1] == now.timestamp() + 10
    for job in failed.jobs:
        data = wiring.redis.hget(f"rq:job:fetch-r1-{job.index}-1-1", "data")
        assert isinstance(data, bytes)
        assert Attempt(*json.loads(zlib.decompress(data))[2][:-1]) == failed.attempt(job)


def test_late_writes_never_fail_a_done_job(wiring: Wiring, create: Callable[..., Request], stub: StubServer) -> None:
    request = create(stub.url, "gas", "water")
    attempt = request.attempt(request.jobs[0])
    wiring.requests.finish_job(attempt, b'"first"')
    done = wiring.requests.get("r1").jobs[0]
    hasty = Provider(url=stub.url, retry=RetryPolicy(maximum_attempts=1))
    fetch = Fetch(
        wiring.requests,
        wiring.queue,
        {"gas": hasty},
        Http(pool_size=20),
        wiring.deliver,
        result_limit=4,
        rng=random.Random(1),
    )
    stub.replies = [Reply(500), Reply(200, b'"too large"'), Reply(200, b"2"), Reply(204)]
    requests, soon = wiring.requests, datetime.now(UTC)

    def come_late() -> None:
        writes: list[Callable[[], object]] = [
            partial(requests.fail_job, attempt, "late"),
            partial(requests.record_failure, attempt, "late", soon),
            partial(requests.finish_job, attempt, b'"second"'),
        ]
        assert conflicts(at_once(writes * 3)) == 9
        assert at_once([partial(fetch, attempt, datetime.now(UTC))] * 4) == [None] * 4
        assert gas() == done

    def gas() -> Job:
        return requests.get("r1").jobs[0]

    come_late()
    # Three reconcilers scan at once after the deadline.
    setattr(wiring._request_items, "clock", lambda: datetime.now(UTC) + timedelta(hours=2))  # noqa: B010
    at_once([reconciler(wiring, 7200).look] * 3)
    assert [job.status for job in requests.get("r1").jobs] == [JobStatus.DONE, JobStatus.FAILED]
    come_late()
    # The other job is open again after a retry.
    requests.retry("r1", deadline=datetime.now(UTC) + timedelta(hours=3))
    come_late()
    requests.close("r1", CloseReason.CANCELLED)
    come_late()
    assert wiring.requests.load_results(requests.get("r1")) == {"gas": b'"first"'}
