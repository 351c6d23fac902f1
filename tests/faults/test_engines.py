"""Engines that die: the reconciler heals a lost queue; without DynamoDB all jobs wait, and none is lost."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import redis

import specs
from tests.support.leftovers import open_records, queued
from tests.support.load import assert_complete_and_accepted_once, some_under_way
from tests.support.system import System, eventually

T = TypeVar("T")

# Seconds. The reconciler heals a lost step ten seconds after it was written, or half a minute after its last check.
HEALED = 60


def test_requests_are_accepted_and_complete_when_redis_is_killed(fragile: System) -> None:
    asked = some_under_way(fragile, 10)

    fragile.kill("redis")
    while_away = [timed(lambda: fragile.ask("gas", "water")) for _ in range(3)]
    fragile.start("redis")

    assert max(seconds for _, seconds in while_away) < 2
    assert_complete_and_accepted_once(fragile, asked + [request_id for request_id, _ in while_away], HEALED)
    eventually(lambda: not open_records(fragile))
    eventually(lambda: not queued(fragile))


def test_two_reconcilers_heal_a_redis_emptied_in_mid_run(fragile: System) -> None:
    another = fragile.start_another("reconciler")
    asked = some_under_way(fragile, 15)

    with redis.Redis.from_url(fragile.settings.redis_url) as connection:
        connection.flushall()

    assert_complete_and_accepted_once(fragile, asked, HEALED)
    assert fragile.exit_code(another) is None
    fragile.kill(another)
    eventually(lambda: not queued(fragile))


def test_a_killed_dynamodb_holds_jobs_and_loses_nothing(fragile: System) -> None:
    asked = some_under_way(fragile, 10)

    fragile.kill("dynamodb")
    eventually(lambda: ": held for " in fragile.log("worker"))
    fragile.start("dynamodb")

    assert_complete_and_accepted_once(fragile, asked, 30)
    for name in ("worker", "reconciler", "client", "aggregator"):
        assert fragile.exit_code(name) is None


@pytest.fixture
def without_dynamodb(fragile: System) -> System:
    fragile.kill("dynamodb")
    return fragile


ASKED = {"providers": ["gas"]}
HANDED_OVER = ASKED | {"callbackUrl": "http://127.0.0.1:9/nobody"}


@pytest.mark.parametrize(
    ("api", "operation_id", "arguments", "body"),
    [
        (specs.CLIENT, "createRequest", {}, ASKED),
        (specs.CLIENT, "listRequests", {}, None),
        (specs.CLIENT, "getRequest", {"requestId": "some", "wait": 10}, None),
        (specs.CLIENT, "cancelRequest", {"requestId": "some"}, None),
        (specs.AGGREGATOR, "createRequest", {}, HANDED_OVER),
        (specs.AGGREGATOR, "getRequest", {"requestId": "some", "wait": 10}, None),
        (specs.AGGREGATOR, "retryRequest", {"requestId": "some"}, None),
        (specs.AGGREGATOR, "createRecord", {"id": "some"}, HANDED_OVER),
        (specs.AGGREGATOR, "updateJob", {"id": "some"}, {"provider": "gas", "status": "DONE"}),
        (specs.AGGREGATOR, "getRecord", {"id": "some"}, None),
    ],
)
def test_without_dynamodb_the_apis_quickly_respond_503(
    api: str, operation_id: str, arguments: dict[str, Any], body: dict[str, Any] | None, without_dynamodb: System
) -> None:
    answer, seconds = timed(lambda: without_dynamodb.call(api, operation_id, arguments, json=body, timeout=10))

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert seconds < 3


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Call, and return the result and the seconds it took."""
    started = time.monotonic()
    returned = call()
    return returned, time.monotonic() - started
