"""A Redis that hangs: every operation of the APIs is as fast as before."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles

import pytest
import requests

import specs
from datahog.bootstrap.wiring import Wiring
from specs.operations import scopes
from tests.support.system import System, eventually, system_settings

# Threads.
CALLERS = 8


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of this module's own, because most of its requests are never delivered."""
    with System(system_settings(tmp_path_factory.mktemp("frozen"), worker_grace=3)) as running:
        running.start()
        yield running


@dataclass(frozen=True)
class Pace:
    """How fast the API served callers: seconds of each create and each read, over `period` seconds."""

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
        """The 95th percentile of the reads, in seconds."""
        return quantiles(self.reads, n=20)[-1]


def pace(system: System, name: str, key: str, seconds: float) -> Pace:
    """Let callers create requests and read them, one after the other, at the API `name` for `seconds`."""
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
def test_a_frozen_redis_slows_neither_creates_nor_reads(system: System, name: str) -> None:
    # Rate limit and quota count this key's calls and requests, unlike those of the local key.
    key = Wiring(system.settings, {}).api_keys.create("tests", scopes(), tenant=f"frozen-{name}", unlimited=False)
    pace(system, name, key, 1)
    # Workers stop using the CPU while they wait for Redis; the APIs would get faster by that.
    system.kill("worker", signal.SIGSTOP)
    try:
        before = pace(system, name, key, 5)
        with frozen(system):
            first = pace(system, name, key, 2.5)
            during = pace(system, name, key, 12)
        after = pace(system, name, key, 5)
    finally:
        system.kill("worker", signal.SIGCONT)
    print(f"{name}: before {before}; first {first}; during {during}; after {after}")

    assert max(first.creates + first.reads) < 4
    # On an idle machine it is the same as before; if each caller waited for Redis, there would be a few a second.
    assert during.creates_a_second >= 0.5 * before.creates_a_second
    assert median(during.reads) <= 3 * median(before.reads)
    assert during.slow_read <= max(3 * before.slow_read, 0.1)
    assert after.creates_a_second >= 0.3 * before.creates_a_second


def test_a_frozen_redis_delays_no_other_operation(system: System) -> None:
    at_client, at_aggregator = system.ask("gas"), system.hand_over("gas", callback_url="http://127.0.0.1:9/")

    def seconds_of_many_calls() -> float:
        began = time.monotonic()
        for _ in range(10):
            system.read(at_client, wait=0)
            system.call(specs.CLIENT, "cancelRequest", {"requestId": at_client})
            system.order(at_aggregator, "cancel")
            system.order(at_aggregator, "redeliver")
            since = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
            system.call(specs.AGGREGATOR, "redeliverFailed", json={"since": since})
        return time.monotonic() - began

    before = seconds_of_many_calls()
    with frozen(system):
        system.ask("gas")
        system.hand_over("gas", callback_url="http://127.0.0.1:9/")
        during = seconds_of_many_calls()
        for name in (specs.CLIENT, specs.AGGREGATOR):
            ready = system.call(name, "getReadiness")
            assert (ready.status_code, ready.json()["checks"]["redis"]) == (503, "failed")

    # At least twenty of these calls would each wait for two seconds; with the breaker, one in five seconds does at
    # each API.
    assert during < 2 * before + 15
    eventually(lambda: system.call(specs.CLIENT, "getReadiness").status_code == 200)


@contextmanager
def frozen(system: System) -> Iterator[None]:
    """Freeze Redis during this block."""
    system.kill("redis", signal.SIGSTOP)
    try:
        yield
    finally:
        system.kill("redis", signal.SIGCONT)
