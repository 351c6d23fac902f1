"""Retention: every item of an ended request expires, and counts as gone from that moment on."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from persistence.dynamodb.table import Item, Table
from persistence.errors import NotFound
from persistence.records.request import CloseReason, Request
from persistence.records.retrieval import KIND, Retrieval
from persistence.results.expired import ExpiredResults
from tests.support.repositories import RETENTION, HandClock, Repositories, incompressible_json

# A result that is stored in a part, and one that is stored inline.
_LARGE, _SMALL = incompressible_json(9000), b"1"

Retentions = Callable[[float], Repositories]


@pytest.fixture
def keeping(dynamodb: Any) -> Retentions:
    """Makes repositories with a retention in seconds."""
    return lambda retention: Repositories(dynamodb, retention=retention)


def items(table: Table, repositories: Repositories) -> list[dict[str, Any]]:
    """All stored items of a table, also expired ones."""
    found: list[dict[str, Any]] = repositories.dynamodb.scan(TableName=table.name, ConsistentRead=True)["Items"]
    return found


def results(table: Table, repositories: Repositories) -> list[dict[str, Any]]:
    """The items of a table that store results: parts and expiry items."""
    return [item for item in items(table, repositories) if item["sk"]["S"].startswith(("part", "result#"))]


def looked_for(expired: ExpiredResults[Any], clock: HandClock, *, seconds: float) -> None:
    """Lets the reconciler scan every six hours for `seconds`."""
    end = clock() + timedelta(seconds=seconds)
    while clock() < end:
        expired.look()
        clock.advance(hours=6)
    expired.look()


def outcome(revision: int = 1) -> Item:
    jobs = [{"provider": "gas", "url": "http://x", "status": "DONE", "attempts": 1}]
    return {"status": "COMPLETE", "revision": revision, "jobs": jobs, "endedAt": "2026-01-01T00:00:00.000Z"}


def acknowledged(repositories: Repositories, request: Request) -> None:
    repositories.deliveries.succeeded(request)


def given_up(repositories: Repositories, request: Request) -> None:
    repositories.deliveries.attempt_failed(request, "HTTP 410", None)


@pytest.mark.parametrize("retention", [60, RETENTION])
@pytest.mark.parametrize("deliver", [acknowledged, given_up])
@pytest.mark.parametrize("cancelled", [False, True])
def test_all_items_of_an_ended_request_expire(
    keeping: Retentions, retention: float, deliver: Callable[[Repositories, Request], None], cancelled: bool
) -> None:
    repositories = keeping(retention)
    claim = repositories.keys.claim("k", {}, "r1")
    request = repositories.open_request(4, request_id="r1")
    repositories.keys.answered(claim, {"requestId": "r1"})
    repositories.requests.finish_job(request.attempt(request.jobs[0]), _SMALL)
    repositories.requests.finish_job(request.attempt(request.jobs[1]), _LARGE)
    repositories.requests.fail_job(request.attempt(request.jobs[2]), "HTTP 500")
    if cancelled:
        repositories.requests.close("r1", CloseReason.CANCELLED)
    else:
        repositories.requests.finish_job(request.attempt(request.jobs[3]), _LARGE)

    deliver(repositories, repositories.requests.get("r1"))

    kept = items(repositories.aggregator_table, repositories)
    assert {item["sk"]["S"].partition("#")[0] for item in kept} == {"request", "result", "part", "key"}
    expires_at = {item["sk"]["S"]: int(item["expiresAt"]["N"]) for item in kept if "expiresAt" in item}
    now = repositories.clock().timestamp()
    assert sorted(expires_at.values()) == sorted([now + retention, now + 86_400])
    assert expires_at["request"] == now + retention
    # The results are deleted within two days after the request.
    looked_for(repositories.expired, repositories.clock, seconds=retention + 2 * 86_400)
    assert not results(repositories.aggregator_table, repositories)


def received(repositories: Repositories, retrieval: Retrieval) -> None:
    assert repositories.retrievals.receive(retrieval, outcome(), {"gas": _LARGE})


def received_after_all(repositories: Repositories, retrieval: Retrieval) -> None:
    repositories.retrievals.accepted(retrieval)
    received(repositories, repositories.retrievals.get("r1"))


def refused(repositories: Repositories, retrieval: Retrieval) -> None:
    repositories.retrievals.refused(retrieval, "HTTP 422")


def cancelled(repositories: Repositories, retrieval: Retrieval) -> None:
    repositories.retrievals.cancelled(repositories.retrievals.request_cancel("r1"))


@pytest.mark.parametrize("retention", [60, RETENTION])
@pytest.mark.parametrize("end", [received, received_after_all, refused, cancelled])
def test_all_client_items_of_an_ended_request_expire(
    keeping: Retentions, retention: float, end: Callable[[Repositories, Retrieval], None]
) -> None:
    repositories = keeping(retention)
    retrieval = repositories.retrieval(request_id="r1")

    end(repositories, retrieval)

    now = repositories.clock().timestamp()
    [record] = [item for item in items(repositories.client_table, repositories) if item["sk"]["S"] == KIND]
    assert int(record["expiresAt"]["N"]) == now + retention
    assert len(results(repositories.client_table, repositories)) == (2 if "received" in end.__name__ else 0)
    looked_for(repositories.retrievals_expired, repositories.clock, seconds=retention + 2 * 86_400)
    assert not results(repositories.client_table, repositories)


def accepted(repositories: Repositories, retrieval: Retrieval) -> None:
    repositories.retrievals.accepted(retrieval)


def cancel_came_late(repositories: Repositories, _: Retrieval) -> None:
    repositories.retrievals.cancel_came_late(repositories.retrievals.request_cancel("r1"))


def asked_about(repositories: Repositories, retrieval: Retrieval) -> None:
    repositories.retrievals.accepted(retrieval)
    for _ in range(3):
        repositories.retrievals.check_again(repositories.retrievals.get("r1"), repositories.clock())


@pytest.mark.parametrize("wait", [accepted, cancel_came_late, asked_about])
def test_a_retrieval_without_a_callback_expires(
    repositories: Repositories, wait: Callable[[Repositories, Retrieval], None]
) -> None:
    wait(repositories, repositories.retrieval(request_id="r1"))

    [item] = items(repositories.client_table, repositories)
    last_delivery = repositories.clock() + timedelta(hours=1, days=7)
    assert int(item["expiresAt"]["N"]) == last_delivery.timestamp() + RETENTION


def test_a_rerun_request_is_kept_until_it_ends(repositories: Repositories) -> None:
    retrieval = repositories.retrieval(request_id="r1")
    accepted(repositories, retrieval)
    anew = repositories.clock.advance(days=8) + timedelta(days=3)

    repositories.retrievals.check_again(repositories.retrievals.get("r1"), repositories.clock(), anew)

    [item] = items(repositories.client_table, repositories)
    assert int(item["expiresAt"]["N"]) == (anew + timedelta(days=7)).timestamp() + RETENTION


def test_an_expired_record_is_not_found_before_its_deletion(keeping: Retentions) -> None:
    repositories = keeping(60)
    deadline = repositories.clock() + timedelta(hours=1)
    request = repositories.ended_request(1, failed=1, result=_LARGE)
    given_up(repositories, request)
    retrieval = repositories.retrieval(request_id=request.request_id)
    received(repositories, retrieval)
    there = len(items(repositories.aggregator_table, repositories))

    repositories.clock.advance(seconds=60)

    request_id = request.request_id
    calls: list[Callable[[], object]] = [
        lambda: repositories.requests.get(request_id),
        lambda: repositories.requests.retry(request_id, deadline=deadline),
        lambda: repositories.requests.close(request_id, CloseReason.CANCELLED),
        lambda: repositories.requests.fail_job(request.attempt(request.jobs[1]), "late"),
        lambda: repositories.deliveries.start_anew(request_id),
        lambda: repositories.deliveries.succeeded(request),
        lambda: repositories.retrievals.get(request_id),
        lambda: repositories.retrievals.request_cancel(request_id),
        lambda: repositories.retrievals.receive(retrieval, outcome(2), {}),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert repositories.retrievals.newest(limit=10, cursor=None) == ([], None)
    assert len(items(repositories.aggregator_table, repositories)) == there
