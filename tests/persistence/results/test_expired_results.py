"""Expired results: parts are deleted within two days of their last use, and never while a record may need them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from persistence.errors import Conflict, Unavailable
from persistence.records.request import CloseReason
from persistence.records.retrieval import Retrieval
from persistence.results.store import PendingResult
from tests.persistence.test_retrievals import outcome
from tests.support.repositories import RETENTION, Repositories, incompressible_json

TEXT = incompressible_json(900_000)
DAY = timedelta(days=1)


def days_pass(repositories: Repositories, days: float) -> None:
    """Lets days pass, with four scans of the reconciler a day."""
    for _ in range(int(days * 4)):
        repositories.clock.advance(hours=6)
        repositories.expired.look()
        repositories.retrievals_expired.look()


def orphan(repositories: Repositories, request_id: str = "r1") -> PendingResult:
    """Stores all parts of a result for a worker that dies before it completes the job."""
    request = repositories.requests.get(request_id)
    pending = repositories.requests.pending_result(request.attempt(request.jobs[0]), TEXT)
    repositories.results.store(pending)
    return pending


@pytest.fixture
def request_id(repositories: Repositories) -> str:
    """An open request of two jobs, with a deadline in a month, and a result that nothing refers to."""
    deadline = repositories.clock() + timedelta(days=30)
    providers = [("p0", "http://p0"), ("p1", "http://p1")]
    repositories.requests.create("r1", providers, "http://client", deadline=deadline, content={})
    orphan(repositories)
    return "r1"


def test_the_expiry_item_is_written_before_the_first_part(repositories: Repositories) -> None:
    request = repositories.open_request()
    written: list[bytes] = []
    repositories.dynamodb.meta.events.register(
        "before-send.dynamodb.PutItem", lambda request, **_: written.append(request.body)
    )

    pending = repositories.requests.pending_result(request.attempt(request.jobs[0]), TEXT)
    repositories.results.store(pending)

    assert [b'"result#' in body for body in written] == [True, False, False]


def test_a_stored_result_is_kept_until_its_job_ends(repositories: Repositories, request_id: str) -> None:
    request = repositories.requests.get(request_id)
    attempt = request.attempt(request.jobs[0])
    # The worker has stored the whole result and pauses before it completes the job.
    stored = orphan(repositories)
    days_pass(repositories, 29)

    repositories.requests.finish_job(attempt, stored)

    assert repositories.requests.load_results(repositories.requests.get(request_id)) == {"p0": TEXT}


def ends_otherwise(repositories: Repositories) -> None:
    request = repositories.requests.get("r1")
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")


def fails(repositories: Repositories) -> None:
    request = repositories.requests.get("r1")
    repositories.requests.fail_job(request.attempt(request.jobs[0]), "HTTP 500")


def cancelled(repositories: Repositories) -> None:
    repositories.requests.close("r1", CloseReason.CANCELLED)


def retried(repositories: Repositories) -> None:
    request = repositories.requests.get("r1")
    for job in request.jobs:
        repositories.requests.fail_job(request.attempt(job), "HTTP 500")
    repositories.requests.retry("r1", deadline=repositories.clock() + timedelta(days=30))


@pytest.mark.parametrize("happens", [ends_otherwise, fails, cancelled, retried])
def test_an_unreferenced_result_is_deleted_within_two_days(
    repositories: Repositories, request_id: str, happens: Callable[[Repositories], None]
) -> None:
    happens(repositories)

    days_pass(repositories, 1)
    assert len(repositories.parts(request_id)) == 2
    days_pass(repositories, 1)

    assert repositories.parts(request_id) == []
    assert repositories.expiries.due(repositories.clock() + 99 * DAY, limit=10) == []


def test_a_result_is_kept_through_delivery_retry_and_redelivery(repositories: Repositories) -> None:
    request = repositories.ended_request(failed=1, result=TEXT)
    for _ in range(3):
        days_pass(repositories, 3)
        request = repositories.requests.get(request.request_id)
        repositories.deliveries.succeeded(request)
        days_pass(repositories, 6)
        repositories.deliveries.start_anew(request.request_id)
        days_pass(repositories, 3)
        request = repositories.requests.get(request.request_id)
        repositories.deliveries.attempt_failed(request, "HTTP 410", None)
        days_pass(repositories, 6)
        request = repositories.requests.retry(request.request_id, deadline=repositories.clock() + 10 * DAY)
        days_pass(repositories, 3)
        assert repositories.requests.load_results(request) == {"p0": TEXT}
        repositories.requests.fail_job(request.attempt(request.jobs[1]), "HTTP 500")

    repositories.deliveries.succeeded(repositories.requests.get(request.request_id))
    days_pass(repositories, RETENTION / 86_400 + 2)

    assert repositories.parts(request.request_id) == []


def test_a_read_just_before_expiry_gets_the_whole_result(repositories: Repositories) -> None:
    request = repositories.ended_request(result=TEXT)
    repositories.deliveries.succeeded(request)
    days_pass(repositories, RETENTION / 86_400 - 0.25)
    read = repositories.requests.get(request.request_id)

    days_pass(repositories, 0.5)

    assert repositories.requests.load_results(read) == {"p0": TEXT}


def test_a_result_is_checked_three_times_in_its_life(repositories: Repositories) -> None:
    request = repositories.ended_request(result=TEXT)
    repositories.deliveries.succeeded(request)
    scans = []

    for _ in range(40):
        repositories.clock.advance(hours=6)
        scans.append(repositories.expired.look())

    assert sum(scans) == 3
    assert repositories.parts(request.request_id) == []


def test_a_superseded_outcome_is_deleted_and_the_later_kept(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    texts = {revision: incompressible_json(500_000 + revision) for revision in (1, 2)}
    for revision, text in texts.items():
        said = outcome(retrieval, revision=revision)
        assert repositories.retrievals.receive(retrieval, said, {"gas": text})

    days_pass(repositories, 2)

    assert len(repositories.parts(retrieval.request_id)) == 1
    kept = repositories.retrievals.get(retrieval.request_id)
    assert repositories.retrievals.load_results(kept) == {"gas": texts[2]}


def test_results_of_a_failed_callback_are_kept_for_a_repeat(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    store_for(repositories, retrieval)
    days_pass(repositories, 6)

    assert repositories.retrievals.receive(retrieval, outcome(retrieval), {"gas": TEXT})

    kept = repositories.retrievals.get(retrieval.request_id)
    assert repositories.retrievals.load_results(kept) == {"gas": TEXT}


def store_for(repositories: Repositories, retrieval: Retrieval) -> None:
    """Lets a process store the result of a callback and die before it updates the record."""

    def die(request: Any, **_: object) -> None:
        if b'"retrieval"' in request.body:
            raise SystemExit

    events = repositories.dynamodb.meta.events
    events.register("before-send.dynamodb.UpdateItem", die)
    with pytest.raises(SystemExit):
        repositories.retrievals.receive(retrieval, outcome(retrieval), {"gas": TEXT})
    events.unregister("before-send.dynamodb.UpdateItem", die)


def test_a_late_store_after_the_deletion_leaves_no_part(repositories: Repositories, request_id: str) -> None:
    request = repositories.requests.get(request_id)
    pending = repositories.requests.pending_result(request.attempt(request.jobs[0]), incompressible_json(1_200_000))
    stop_after_one_part(repositories, pending)
    repositories.requests.close(request_id, CloseReason.CANCELLED)
    days_pass(repositories, 2)
    assert repositories.parts(request_id) == []

    with pytest.raises(Conflict):
        repositories.requests.finish_job(request.attempt(request.jobs[0]), pending)

    assert repositories.parts(request_id) == []


def stop_after_one_part(repositories: Repositories, pending: PendingResult) -> None:
    """Makes the engine refuse the second part."""
    refuse = refusing(lambda body: b"#0001" in body)
    events = repositories.dynamodb.meta.events
    events.register("before-send.dynamodb.PutItem", refuse)
    with pytest.raises(Unavailable):
        repositories.results.store(pending)
    events.unregister("before-send.dynamodb.PutItem", refuse)
    assert pending.stored == 1


def refusing(chosen: Callable[[bytes], bool]) -> Callable[..., None]:
    """Returns a botocore event handler that makes the engine refuse the chosen calls."""

    def refuse(request: Any, **_: object) -> None:
        if chosen(request.body):
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "any")

    return refuse


def test_one_failing_deletion_does_not_block_the_others(repositories: Repositories) -> None:
    requests = [repositories.ended_request(result=incompressible_json(400_000 + n)) for n in range(3)]
    for request in requests:
        repositories.deliveries.succeeded(request)
        repositories.clock.advance(seconds=1)
    days_pass(repositories, RETENTION / 86_400)
    refuse = refusing(lambda body: requests[0].request_id.encode() in body)
    repositories.dynamodb.meta.events.register("before-send.dynamodb.BatchWriteItem", refuse)

    days_pass(repositories, 2)

    assert [len(repositories.parts(request.request_id)) for request in requests] == [1, 0, 0]
    repositories.dynamodb.meta.events.unregister("before-send.dynamodb.BatchWriteItem", refuse)
    days_pass(repositories, 0.25)
    assert repositories.parts(requests[0].request_id) == []
