"""Rate limits and quotas: a refused caller is told how long to wait, and that wait is long enough."""

import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

import specs
from datahog.bootstrap.wiring import Wiring
from handlers.access.rate_limiter import WINDOW
from specs.operations import scopes
from tests.contract.api import Api, check_problem
from tests.support.servers.receiver import Receiver
from tests.support.system import System, eventually, system_settings
from workers.redis_breaker import PAUSE

# Calls a second per key, and open requests per tenant.
_RATE, _QUOTA = 2, 3
# Calls of one key in a window.
_CALLS = _RATE * WINDOW


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with low limits, and without a worker, so that requests stay open."""
    directory: Path = tmp_path_factory.mktemp("limited")
    with System(system_settings(directory, rate_limit=_RATE, open_requests=_QUOTA)) as running:
        running.start("dynamodb", "redis", "tables", "aggregator", "client")
        yield running


@pytest.fixture
def apis(limited: System) -> list[Api]:
    """Both APIs."""
    return [Api(specs.AGGREGATOR, limited.aggregator), Api(specs.CLIENT, limited.client)]


@pytest.fixture
def tenant() -> str:
    """A tenant that only this test uses."""
    return f"tenant-{uuid.uuid4().hex[:8]}"


def _key(limited: System, tenant: str, *, unlimited: bool = False) -> str:
    return Wiring(limited.settings, {}).api_keys.create("tests", scopes(), tenant=tenant, unlimited=unlimited)


def _create(api: Api, key: str, request_id: str = "") -> requests.Response:
    body: dict[str, object] = {"providers": ["gas"]}
    if api.name == specs.AGGREGATOR:
        body |= {"callbackUrl": "http://127.0.0.1:9999/"} | ({"requestId": request_id} if request_id else {})
    return api.call("createRequest", key=key, json=body)


def _statuses(api: Api, key: str, count: int) -> list[int]:
    return [api.call("getRequest", "missing", key=key).status_code for _ in range(count)]


def test_a_caller_over_the_rate_limit_passes_after_retry_after(limited: System, apis: list[Api], tenant: str) -> None:
    key, colleagues = _key(limited, tenant), _key(limited, tenant)
    waits = []

    for api in apis:
        # Each API has its own window; calls to the other do not count.
        assert _statuses(api, key, _CALLS) == [404] * _CALLS
        refused = api.call("getRequest", "missing", key=key)
        assert refused.status_code == 429
        assert check_problem(refused)["type"].endswith(":too-many-requests")
        waits.append(time.monotonic() + int(refused.headers["Retry-After"]))
        assert _statuses(api, key, 2) == [429, 429]
        assert _statuses(api, colleagues, 1) == [404]

    for api, until in zip(apis, waits, strict=True):
        assert until - time.monotonic() <= WINDOW + 1
        time.sleep(max(0.0, until - time.monotonic()))
        assert _statuses(api, key, 1) == [404]


def test_a_full_quota_refuses_until_a_request_ends(limited: System, apis: list[Api], tenant: str) -> None:
    for api in apis:
        made = [_create(api, _key(limited, tenant)) for _ in range(_QUOTA)]
        assert [response.status_code for response in made] == [202] * _QUOTA
        colleague = _key(limited, tenant)

        refused = _create(api, colleague)

        assert refused.status_code == 429
        assert check_problem(refused)["type"].endswith(":too-many-open-requests")
        wait = int(refused.headers["Retry-After"])
        # Reads, and other tenants, are not affected.
        request_id = made[0].json()["requestId"]
        assert api.call("getRequest", request_id, key=colleague).status_code == 200
        assert _create(api, _key(limited, f"{tenant}-2")).status_code == 202
        time.sleep(wait)
        assert _create(api, colleague).status_code == 429
        if api.name == specs.AGGREGATOR:
            assert api.call("cancelRequest", request_id, key=colleague).status_code == 200
            time.sleep(wait)
            assert [_create(api, colleague).status_code for _ in range(2)] == [202, 429]


def test_an_open_request_may_be_sent_again_at_a_full_quota(limited: System, apis: list[Api], tenant: str) -> None:
    aggregator, key = apis[0], _key(limited, tenant)
    ids = [uuid.uuid4().hex for _ in range(_QUOTA)]
    assert [_create(aggregator, key, request_id).status_code for request_id in ids] == [202] * _QUOTA

    refused = uuid.uuid4().hex

    assert _create(aggregator, key, refused).status_code == 429
    assert _create(aggregator, key, ids[0]).status_code == 202
    assert aggregator.call("getRequest", refused, key=key).status_code == 404


def test_an_ended_request_may_be_sent_again_at_a_full_quota(limited: System, apis: list[Api], tenant: str) -> None:
    aggregator, key = apis[0], _key(limited, tenant)
    request_id = uuid.uuid4().hex
    assert _create(aggregator, key, request_id).status_code == 202
    assert aggregator.call("cancelRequest", request_id, key=key).status_code == 200
    # An ended request keeps its place until the quota is full.
    assert [_create(aggregator, key).status_code for _ in range(_QUOTA - 1)] == [202] * (_QUOTA - 1)
    eventually(lambda: _create(aggregator, _key(limited, tenant)).status_code == 202, pause=1)

    assert _create(aggregator, key, uuid.uuid4().hex).status_code == 429
    assert _create(aggregator, key, request_id).status_code == 202
    assert _create(aggregator, _key(limited, f"{tenant}-2"), request_id).status_code == 409


def test_retrying_counts_as_opening(limited: System, apis: list[Api], tenant: str) -> None:
    aggregator, key = apis[0], _key(limited, tenant)
    request_id = _create(aggregator, key).json()["requestId"]
    outcome = {"provider": "gas", "status": "FAILED"}
    assert aggregator.call("updateJob", key=key, params={"id": request_id}, json=outcome).status_code == 200
    assert [_create(aggregator, key).status_code for _ in range(_QUOTA - 1)] == [202] * (_QUOTA - 1)

    # An ended request keeps its place until the quota is full.
    assert aggregator.call("retryRequest", request_id, key=key).status_code == 202
    assert aggregator.call("updateJob", key=key, params={"id": request_id}, json=outcome).status_code == 200
    eventually(lambda: _create(aggregator, _key(limited, tenant)).status_code == 202, pause=1)

    refused = aggregator.call("retryRequest", request_id, key=key)
    assert refused.status_code == 429
    assert check_problem(refused)["type"].endswith(":too-many-open-requests")


def test_an_unlimited_key_passes_every_limit(limited: System, apis: list[Api], tenant: str) -> None:
    key = _key(limited, tenant, unlimited=True)

    for api in apis:
        assert {_create(api, key).status_code for _ in range(_CALLS + 1)} == {202}


def test_calls_pass_without_redis_and_the_log_says_so_once(
    limited: System, apis: list[Api], tenant: str, receiver: Receiver
) -> None:
    key = _key(limited, tenant)
    limited.kill("redis")
    try:
        for api in apis:
            assert {_create(api, key).status_code for _ in range(_CALLS + 1)} == {202}
    finally:
        limited.mend()

    for name in ("aggregator", "client"):
        log = limited.log(name)
        assert log.count("so no rate limit holds") == log.count("so no quota of open requests holds") == 1
    time.sleep(PAUSE)
    for api in apis:
        eventually(lambda api=api: 429 in _statuses(api, key, _CALLS + 1))  # type: ignore[misc]
        assert "Traceback" not in limited.log(api.name)


def test_a_frozen_redis_delays_calls_only_briefly(limited: System, apis: list[Api], tenant: str) -> None:
    key = _key(limited, tenant)

    def call(api: Api) -> tuple[int, float, list[int], float]:
        started = time.monotonic()
        created = _create(api, key).status_code
        then = time.monotonic()
        read = _statuses(api, key, 10)
        return created, then - started, read, time.monotonic() - then

    limited.kill("redis", signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as both:
            called = list(both.map(call, apis))
    finally:
        limited.kill("redis", signal.SIGCONT)

    for created, seconds_to_create, read, seconds_to_read in called:
        assert created == 202
        # The rate limit, the quota and the queue each time out after two seconds, one after the other.
        assert seconds_to_create < 15
        # The circuit breaker then skips the rate limit; otherwise each read would take two seconds.
        assert read == [404] * 10
        assert seconds_to_read < 10
