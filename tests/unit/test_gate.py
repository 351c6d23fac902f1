"""The gate before a provider, on a real Redis: its limit and its breaker hold over threads and over processes."""

import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import redis

from workers.gate import Closed, Gate
from workers.providers import BreakerPolicy, Provider


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_gate(connection: "redis.Redis", clock: Clock) -> Callable[[], Gate]:
    return lambda: Gate(connection, rng=random.Random(1), clock=clock)


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    return make_gate()


def provider(**options: object) -> Provider:
    return Provider.model_validate({"url": "http://gas.example.com"} | options)


def attempt(gate: Gate, policy: Provider, *, answered: bool, name: str = "gas") -> None:
    with gate.visit(name, policy) as visit:
        visit.answered = answered


def refusal(gate: Gate, policy: Provider) -> float:
    with pytest.raises(Closed) as caught, gate.visit("gas", policy):
        pass
    return caught.value.wait


def broken(gate: Gate, policy: Provider) -> None:
    """Let the provider fail until its breaker opens."""
    for _ in range(policy.breaker.failures):
        attempt(gate, policy, answered=False)


def test_no_more_than_the_limit_are_with_a_provider_over_threads_and_processes(connection: "redis.Redis") -> None:
    policy = provider(concurrency=5)
    inside, peak = 0, 0
    lock = threading.Lock()

    def visit(gate: Gate) -> None:
        nonlocal inside, peak
        while True:
            try:
                with gate.visit("gas", policy) as one:
                    with lock:
                        inside += 1
                        peak = max(peak, inside)
                    time.sleep(0.01)
                    with lock:
                        inside -= 1
                    one.answered = True
                return
            except Closed:
                time.sleep(0.005)

    gates = [Gate(connection, rng=random.Random(seed)) for seed in range(2)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(visit, gates * 50))

    assert peak == 5
    assert connection.zcard("datahog:places:gas") == 0


def test_who_finds_no_place_is_told_to_come_soon(gate: Gate) -> None:
    policy = provider(concurrency=1)

    with gate.visit("gas", policy):
        waits = [refusal(gate, policy) for _ in range(50)]

    assert 0.2 <= min(waits) < max(waits) <= 0.45
    assert len(set(waits)) == 50


def test_each_provider_has_its_own_places(gate: Gate) -> None:
    policy = provider(concurrency=1)

    with gate.visit("gas", policy), gate.visit("water", policy) as visit:
        visit.answered = True


def test_a_place_is_given_back_by_an_attempt_that_raises(gate: Gate) -> None:
    policy = provider(concurrency=1)

    with pytest.raises(ZeroDivisionError), gate.visit("gas", policy):
        _ = 1 / 0

    attempt(gate, policy, answered=True)


def test_a_place_comes_back_when_its_lease_ends(gate: Gate, clock: Clock) -> None:
    policy = provider(concurrency=1, totalTimeout=60, connectTimeout=3)

    with ExitStack() as died:
        died.enter_context(gate.visit("gas", policy))
        clock.now += 67
        refusal(gate, policy)
        clock.now += 2

        attempt(gate, policy, answered=True)


def test_failures_in_a_row_open_the_breaker_for_all(make_gate: Callable[[], Gate]) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3, open_seconds=30))
    broken(make_gate(), policy)

    wait = refusal(make_gate(), policy)

    assert 30 <= wait <= 33


def test_fewer_failures_do_not_open_the_breaker(gate: Gate) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3))

    for _ in range(2):
        attempt(gate, policy, answered=False)

    attempt(gate, policy, answered=True)


def test_a_success_begins_the_count_of_failures_anew(gate: Gate) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3))

    for answered in (False, False, True, False, False):
        attempt(gate, policy, answered=answered)

    attempt(gate, policy, answered=True)


def test_an_attempt_that_raises_counts_as_a_failure(gate: Gate) -> None:
    policy = provider(breaker=BreakerPolicy(failures=1))

    with pytest.raises(ZeroDivisionError), gate.visit("gas", policy):
        _ = 1 / 0

    refusal(gate, policy)


def test_the_breaker_of_one_provider_does_not_hold_back_another(gate: Gate) -> None:
    policy = provider(breaker=BreakerPolicy(failures=1))
    broken(gate, policy)

    attempt(gate, policy, answered=True, name="water")


def test_a_half_open_breaker_lets_one_probe_through(make_gate: Callable[[], Gate], clock: Clock) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3, open_seconds=30))
    broken(make_gate(), policy)
    clock.now += 29
    refusal(make_gate(), policy)
    clock.now += 2

    with make_gate().visit("gas", policy):
        waits = [refusal(make_gate(), policy) for _ in range(3)]

    assert all(1 <= wait <= 1.25 for wait in waits)


def test_of_many_at_once_one_is_the_probe(connection: "redis.Redis", clock: Clock) -> None:
    policy = provider(breaker=BreakerPolicy(failures=1, open_seconds=30))
    gate = Gate(connection, rng=random.Random(1), clock=clock)
    broken(gate, policy)
    clock.now += 31
    together = threading.Barrier(16)

    def probe(_: int) -> bool:
        together.wait()
        try:
            with gate.visit("gas", policy) as visit:
                time.sleep(0.3)
                visit.answered = True
        except Closed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(probe, range(16))) == 1


def test_a_probe_that_succeeds_closes_the_breaker(gate: Gate, clock: Clock) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3, open_seconds=30))
    broken(gate, policy)
    clock.now += 31

    attempt(gate, policy, answered=True)

    with gate.visit("gas", policy), gate.visit("gas", policy) as visit:
        visit.answered = True


def test_a_probe_that_fails_opens_the_breaker_again(gate: Gate, clock: Clock) -> None:
    policy = provider(breaker=BreakerPolicy(failures=3, open_seconds=30))
    broken(gate, policy)
    clock.now += 31

    attempt(gate, policy, answered=False)

    assert refusal(gate, policy) >= 30
    clock.now += 31
    attempt(gate, policy, answered=True)


def test_a_probe_that_never_comes_back_makes_way_for_another(gate: Gate, clock: Clock) -> None:
    policy = provider(totalTimeout=60, connectTimeout=3, breaker=BreakerPolicy(failures=1, open_seconds=30))
    broken(gate, policy)
    clock.now += 31

    with ExitStack() as died:
        died.enter_context(gate.visit("gas", policy))
        refusal(gate, policy)
        clock.now += 69

        attempt(gate, policy, answered=True)


def test_nothing_is_kept_in_redis_for_ever(connection: "redis.Redis", gate: Gate) -> None:
    with gate.visit("gas", provider()):
        pass
    with gate.visit("gas", provider()):
        keys = list(connection.scan_iter("datahog:*"))

        assert len(keys) == 2
        assert all(connection.ttl(key) > 0 for key in keys)


def test_without_redis_all_are_let_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gate = Gate(redis.Redis(connection_pool=redis.ConnectionPool(port=port)), rng=random.Random(1))
    policy = provider(concurrency=1)

    with gate.visit("gas", policy), gate.visit("gas", policy):
        pass
