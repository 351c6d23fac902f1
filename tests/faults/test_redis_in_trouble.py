"""Redis in trouble without being gone: frozen, full, or empty after a restart. It is a hint: nothing waits for it."""

import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles

import pytest
import redis
import requests

import specs
from datahog.wiring import Wiring
from specs.operations import scopes
from tests.faults.leftovers import open_records, queued
from tests.faults.load import assert_complete_and_accepted_once, some_under_way
from tests.system import System, eventually, system_settings

# What is lost from the queue is looked for after HEAL_AFTER, or half a minute after the last look.
HEAL_AFTER = 2
HEALED = 60
FROZEN = 30.0
# Seconds in which a request must be accepted, on a machine that does much else.
QUICKLY = 8.0
CALLERS = 8


@pytest.fixture(scope="module")
def _fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that is quick to look for what was lost."""
    with System(system_settings(tmp_path_factory.mktemp("redis"), worker_grace=3, heal_after=HEAL_AFTER)) as system:
        system.start()
        yield system


def test_redis_frozen_for_half_a_minute_keeps_no_request_from_being_accepted(fragile: System) -> None:
    asked = some_under_way(fragile, 10)
    fragile.kill("redis", signal.SIGSTOP)
    try:
        thaws = time.monotonic() + FROZEN
        longest, meanwhile = 0.0, []
        while (began := time.monotonic()) < thaws:
            meanwhile.append(fragile.ask("gas", "water"))
            longest = max(longest, time.monotonic() - began)
            time.sleep(1)
    finally:
        fragile.kill("redis", signal.SIGCONT)

    assert longest < QUICKLY
    assert_complete_and_accepted_once(fragile, asked + meanwhile, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


@dataclass(frozen=True)
class Pace:
    """How fast callers were served: seconds of each create and each read, over `period` seconds."""

    creates: list[float]
    reads: list[float]
    period: float

    @property
    def creates_a_second(self) -> float:
        return len(self.creates) / self.period

    def __str__(self) -> str:
        return (
            f"{self.creates_a_second:.0f} creates/s, reads: median {median(self.reads) * 1000:.1f} ms, "
            f"p95 {self.slow_read * 1000:.1f} ms, longest {max(self.reads) * 1000:.0f} ms"
        )

    @property
    def slow_read(self) -> float:
        """The 95th percentile of the reads."""
        return quantiles(self.reads, n=20)[-1]


def pace(system: System, name: str, key: str, seconds: float) -> Pace:
    """Have callers create requests and read them, one after the other, at the API `name` for so long."""
    ends = time.monotonic() + seconds
    body: dict[str, object] = {"providers": ["gas"]}
    if name == specs.AGGREGATOR:
        body |= {"callbackUrl": "http://127.0.0.1:9/"}
    url = f"{system.aggregator if name == specs.AGGREGATOR else system.client}/requests"
    creates: list[float] = []
    reads: list[float] = []

    def call(_: int) -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {key}"
            while (began := time.monotonic()) < ends:
                answer = session.post(url, json=body, timeout=30)
                created = time.monotonic()
                assert answer.status_code == 202, answer.text
                assert session.get(f"{url}/{answer.json()['requestId']}", timeout=30).status_code == 200
                creates.append(created - began)
                reads.append(time.monotonic() - created)

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(call, range(CALLERS)))
    return Pace(creates, reads, seconds)


@pytest.mark.parametrize("name", [specs.CLIENT, specs.AGGREGATOR])
def test_a_frozen_redis_slows_neither_creates_nor_reads(fragile: System, name: str) -> None:
    # Its calls and its requests are counted, unlike those of the key that opens everything.
    key = Wiring(fragile.settings, {}).api_keys.create("tests", scopes(), tenant=f"frozen-{name}", unlimited=False)
    pace(fragile, name, key, 1)
    # Without workers, which would leave the more to the APIs while they wait for Redis.
    fragile.kill("worker", signal.SIGSTOP)
    try:
        before = pace(fragile, name, key, 5)
        with frozen(fragile):
            first = pace(fragile, name, key, 2.5)
            during = pace(fragile, name, key, 12)
        after = pace(fragile, name, key, 5)
    finally:
        fragile.kill("worker", signal.SIGCONT)
    print(f"{name}: before {before}; first {first}; during {during}; after {after}")

    assert max(first.creates + first.reads) < 4
    # The same as before on an idle machine; callers that each wait for Redis make a few a second.
    assert during.creates_a_second >= 0.5 * before.creates_a_second
    assert median(during.reads) <= 3 * median(before.reads)
    assert during.slow_read <= max(3 * before.slow_read, 0.1)
    assert after.creates_a_second >= 0.3 * before.creates_a_second


def test_with_a_frozen_redis_nothing_else_waits_for_it(fragile: System) -> None:
    at_client, at_aggregator = fragile.ask("gas"), fragile.hand_over("gas", callback_url="http://127.0.0.1:9/")

    def seconds_of_many_calls() -> float:
        began = time.monotonic()
        for _ in range(10):
            fragile.read(at_client, wait=0)
            fragile.call(specs.CLIENT, "cancelRequest", {"requestId": at_client})
            fragile.order(at_aggregator, "cancel")
            fragile.order(at_aggregator, "redeliver")
            since = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
            fragile.call(specs.AGGREGATOR, "redeliverFailed", json={"since": since})
        return time.monotonic() - began

    before = seconds_of_many_calls()
    with frozen(fragile):
        fragile.ask("gas")
        fragile.hand_over("gas", callback_url="http://127.0.0.1:9/")
        during = seconds_of_many_calls()
        for name in (specs.CLIENT, specs.AGGREGATOR):
            ready = fragile.call(name, "getReadiness")
            assert (ready.status_code, ready.json()["checks"]["redis"]) == (503, "failed")

    # Twenty of these at least would each wait for two seconds; as it is, one in five seconds does at each API.
    assert during < 2 * before + 15
    eventually(lambda: fragile.call(specs.CLIENT, "getReadiness").status_code == 200)


@contextmanager
def frozen(system: System) -> Iterator[None]:
    """Redis hangs in this block."""
    system.kill("redis", signal.SIGSTOP)
    try:
        yield
    finally:
        system.kill("redis", signal.SIGCONT)


def test_a_full_redis_refuses_new_work_and_no_request_is_refused_for_it(fragile: System) -> None:
    asked = some_under_way(fragile, 10)
    logged = len(fragile.log("worker"))
    with full(fragile):
        meanwhile = [fragile.ask("gas", "water") for _ in range(3)]
        eventually(lambda: "Redis is full" in fragile.log("worker")[logged:])
        eventually(lambda: "maxmemory" in fragile.log("reconciler"))

    assert_complete_and_accepted_once(fragile, asked + meanwhile, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


def test_a_full_redis_is_worked_empty(fragile: System) -> None:
    fragile.kill("worker", signal.SIGTERM)
    asked = [fragile.ask("gas") for _ in range(5)]
    assert waiting(fragile) >= len(asked)
    with full(fragile):
        fragile.start("worker")
        eventually(lambda: not waiting(fragile))

    assert_complete_and_accepted_once(fragile, asked, HEALED)


def test_redis_started_empty_is_healed(fragile: System) -> None:
    asked = some_under_way(fragile, 10)

    fragile.kill("redis")
    shutil.rmtree(fragile.settings.data_dir / "redis")
    fragile.start("redis")

    assert_complete_and_accepted_once(fragile, asked, HEALED)
    assert_all_alive(fragile)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


@contextmanager
def full(system: System) -> Iterator[None]:
    """Redis has no memory for anything more in this block."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        connection.config_set("maxmemory", 1)
        try:
            yield
        finally:
            connection.config_set("maxmemory", 0)


def waiting(system: System) -> int:
    """How many jobs are on the queues, begun by nobody."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        return sum(connection.llen(key) for key in connection.scan_iter("rq:queue:*", count=1000))


def assert_all_alive(system: System) -> None:
    for name in ("worker", "reconciler", "client", "aggregator"):
        assert system.exit_code(name) is None, name
    assert "ended with" not in system.log("worker")
