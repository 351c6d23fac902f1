"""Deliveries: each attempt counts once, in its own round; a delivery succeeds, fails, or is restarted."""

from datetime import timedelta
from functools import partial

import pytest

from persistence.errors import Conflict, NotFound
from persistence.records.request import DeliveryStatus, Request
from persistence.records.timestamps import to_text
from tests.support.repositories import RETENTION, Repositories, at_once, conflicts, incompressible_json


def reread(repositories: Repositories, request: Request) -> Request:
    return repositories.requests.get(request.request_id)


def given_up(repositories: Repositories) -> Request:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "HTTP 410", None)
    return reread(repositories, request)


def test_an_acknowledgement_ends_the_delivery_and_sets_expiry(repositories: Repositories) -> None:
    request = repositories.ended_request()

    repositories.deliveries.succeeded(request)

    request = reread(repositories, request)
    assert (request.delivery.status, request.delivery.attempts) == (DeliveryStatus.SUCCEEDED, 1)
    assert request.expires_at == repositories.clock().timestamp() + RETENTION
    assert request.due_at is None
    assert repositories.indexed("aggregator") == set()


def test_a_failed_attempt_counts_and_schedules_the_next(repositories: Repositories) -> None:
    request = repositories.ended_request()
    later = repositories.clock() + timedelta(minutes=5)

    repositories.deliveries.attempt_failed(request, "HTTP 500", later)

    delivery = reread(repositories, request).delivery
    assert (delivery.status, delivery.attempts, delivery.last_error) == (DeliveryStatus.PENDING, 1, "HTTP 500")
    assert delivery.next_attempt_at == to_text(later)
    assert repositories.due_ids(later, limit=10) == []
    assert repositories.due_ids(later + timedelta(seconds=10), limit=10) == [request.request_id]


def test_success_clears_the_last_error_and_keeps_the_count(repositories: Repositories) -> None:
    request = repositories.ended_request()
    for _ in range(3):
        repositories.deliveries.attempt_failed(request, "HTTP 500", repositories.clock())
        request = reread(repositories, request)

    repositories.deliveries.succeeded(request)

    delivery = reread(repositories, request).delivery
    assert (delivery.attempts, delivery.last_error, delivery.next_attempt_at) == (4, None, None)


def test_a_failed_delivery_is_listed_and_expires(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "HTTP 500", repositories.clock())
    now = repositories.clock.advance(minutes=5)

    repositories.deliveries.attempt_failed(reread(repositories, request), "HTTP 410", None)

    request = reread(repositories, request)
    assert (request.delivery.status, request.delivery.attempts) == (DeliveryStatus.FAILED, 2)
    assert (request.delivery.last_error, request.delivery.next_attempt_at) == ("HTTP 410", None)
    assert request.expires_at == now.timestamp() + RETENTION
    assert repositories.due_ids(now + timedelta(days=1), limit=10) == []
    assert repositories.due.undelivered(now, limit=10) == [request.request_id]
    assert repositories.due.undelivered(now + timedelta(milliseconds=1), limit=10) == []


def test_concurrent_reports_of_an_attempt_count_once(repositories: Repositories) -> None:
    request = repositories.ended_request()
    fail = partial(repositories.deliveries.attempt_failed, request, "HTTP 500", repositories.clock())

    outcomes = at_once([fail] * 20)

    assert conflicts(outcomes) == 19
    assert reread(repositories, request).delivery.attempts == 1


def test_concurrent_acknowledgements_count_once(repositories: Repositories) -> None:
    request = repositories.ended_request()

    outcomes = at_once([lambda: repositories.deliveries.succeeded(request)] * 20)

    assert conflicts(outcomes) == 19
    assert reread(repositories, request).delivery.attempts == 1


def test_a_failure_after_success_is_a_conflict(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.succeeded(request)
    before = reread(repositories, request)

    for next_attempt_at in (None, repositories.clock()):
        with pytest.raises(Conflict):
            repositories.deliveries.attempt_failed(before, "HTTP 500", next_attempt_at)

    assert reread(repositories, request) == before


def test_an_acknowledgement_counts_after_a_failed_attempt(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "timeout", repositories.clock())

    repositories.deliveries.succeeded(request)

    assert reread(repositories, request).delivery.status is DeliveryStatus.SUCCEEDED


def test_an_acknowledgement_counts_after_the_delivery_failed(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "HTTP 500", None)
    now = repositories.clock.advance(hours=1)

    repositories.deliveries.succeeded(request)

    request = reread(repositories, request)
    delivery = request.delivery
    assert (delivery.status, delivery.attempts, delivery.last_error) == (DeliveryStatus.SUCCEEDED, 2, None)
    assert request.expires_at == now.timestamp() + RETENTION
    assert repositories.indexed("aggregator") == set()


@pytest.mark.parametrize("given_up_before", [True, False])
def test_a_restarted_delivery_repeats_its_schedule_under_its_id(
    repositories: Repositories, given_up_before: bool
) -> None:
    if given_up_before:
        before = given_up(repositories)
    else:
        request = repositories.ended_request()
        repositories.deliveries.succeeded(request)
        before = reread(repositories, request)
    now = repositories.clock.advance(hours=1)

    request = repositories.deliveries.start_anew(before.request_id)

    assert request == reread(repositories, before)
    assert (request.delivery.status, request.delivery.attempts) == (DeliveryStatus.PENDING, 0)
    assert (request.delivery.last_error, request.delivery.next_attempt_at) == (None, None)
    assert request.delivery.webhook_id == before.delivery.webhook_id
    assert request.expires_at is None
    assert repositories.due_ids(now + timedelta(seconds=10), limit=10) == [request.request_id]
    assert repositories.due.undelivered(now - timedelta(days=1), limit=10) == []


@pytest.mark.parametrize("given_up_before", [True, False])
def test_an_attempt_of_an_earlier_round_is_a_conflict(repositories: Repositories, given_up_before: bool) -> None:
    earlier = given_up(repositories) if given_up_before else repositories.ended_request()
    anew = repositories.deliveries.start_anew(earlier.request_id)

    with pytest.raises(Conflict):
        repositories.deliveries.attempt_failed(earlier, "HTTP 500", repositories.clock())
    with pytest.raises(Conflict):
        repositories.deliveries.attempt_failed(earlier, "HTTP 410", None)
    with pytest.raises(Conflict):
        repositories.deliveries.succeeded(earlier)

    assert reread(repositories, earlier) == anew


def test_an_attempt_from_before_a_retry_is_a_conflict(repositories: Repositories) -> None:
    earlier = repositories.ended_request(done=1, failed=1)
    retried = repositories.requests.retry(earlier.request_id, deadline=repositories.clock() + timedelta(hours=1))

    with pytest.raises(Conflict):
        repositories.deliveries.succeeded(earlier)
    with pytest.raises(Conflict):
        repositories.deliveries.attempt_failed(earlier, "HTTP 500", repositories.clock())

    assert reread(repositories, earlier) == retried


def test_a_pending_delivery_can_be_restarted(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "HTTP 500", repositories.clock() + timedelta(hours=10))

    delivery = repositories.deliveries.start_anew(request.request_id).delivery

    assert (delivery.attempts, delivery.next_attempt_at) == (0, None)


def test_the_delivery_of_an_open_request_cannot_be_restarted(repositories: Repositories) -> None:
    request = repositories.open_request()

    with pytest.raises(Conflict, match="is open"):
        repositories.deliveries.start_anew(request.request_id)

    assert reread(repositories, request) == request


def test_the_delivery_of_an_unknown_request_is_not_found(repositories: Repositories) -> None:
    with pytest.raises(NotFound):
        repositories.deliveries.start_anew("nobody")


def test_the_delivery_of_an_expired_request_is_not_found(repositories: Repositories) -> None:
    # DynamoDB may delete the record and its results only days later.
    request = given_up(repositories)
    repositories.clock.advance(seconds=RETENTION)

    with pytest.raises(NotFound):
        repositories.deliveries.start_anew(request.request_id)
    with pytest.raises(NotFound):
        reread(repositories, request)


def test_results_are_kept_through_restarted_deliveries(repositories: Repositories) -> None:
    text = incompressible_json(400_000)
    request = repositories.ended_request(result=text)
    for _ in range(5):
        repositories.deliveries.attempt_failed(reread(repositories, request), "HTTP 410", None)
        repositories.expired.look()
        repositories.clock.advance(days=6)
        repositories.expired.look()
        repositories.deliveries.start_anew(request.request_id)

    repositories.clock.advance(days=2)
    repositories.expired.look()
    repositories.deliveries.succeeded(reread(repositories, request))

    assert repositories.requests.load_results(reread(repositories, request)) == {"p0": text}
