"""The repositories on moto, in memory and without concurrency: a quick first check of a change."""

from collections.abc import Iterator
from datetime import timedelta

import boto3
import pytest
from moto import mock_aws

from persistence.errors import Conflict, KeyReused, KeyUnderWay, NotFound
from persistence.idempotency_keys import Claim
from persistence.records.job import JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, RequestStatus
from tests.support.repositories import RETENTION, Repositories, incompressible_json


@pytest.fixture
def repositories() -> Iterator[Repositories]:
    """The repositories over tables in memory, which the end of the test discards."""
    with mock_aws():
        client = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        yield Repositories(client)


def test_a_request_is_created_once_and_found_by_its_id(repositories: Repositories) -> None:
    request = repositories.open_request(2, request_id="r1")

    assert repositories.requests.get("r1") == request == repositories.open_request(2, request_id="r1")
    with pytest.raises(Conflict):
        repositories.open_request(3, request_id="r1")
    with pytest.raises(NotFound):
        repositories.requests.get("r2")


@pytest.mark.parametrize(
    ("done", "failed", "status"),
    [(2, 0, RequestStatus.COMPLETE), (1, 1, RequestStatus.PARTIAL), (0, 2, RequestStatus.FAILED)],
)
def test_the_request_status_follows_from_the_job_statuses(
    repositories: Repositories, done: int, failed: int, status: RequestStatus
) -> None:
    request = repositories.ended_request(done, failed)

    assert (request.status, request.ended) == (status, True)
    with pytest.raises(Conflict):
        repositories.requests.fail_job(request.attempt(request.jobs[0]), "late")


def test_a_result_in_several_parts_is_loaded_whole(repositories: Repositories) -> None:
    text = incompressible_json(1_200_000)

    request = repositories.ended_request(result=text)

    assert len(repositories.parts(request.request_id)) == 3
    assert repositories.requests.load_results(request) == {"p0": text}


def test_a_failed_attempt_is_counted_once(repositories: Repositories) -> None:
    request = repositories.open_request()
    repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())

    with pytest.raises(Conflict):
        repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())

    assert repositories.requests.get(request.request_id).jobs[0].attempts == 1


def test_a_retry_reopens_jobs_that_the_deadline_ended(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
    now = repositories.clock.advance(hours=1)
    repositories.requests.close(request.request_id, CloseReason.DEADLINE)

    retried = repositories.requests.retry(request.request_id, deadline=now + timedelta(hours=1))

    assert [job.status for job in retried.jobs] == [JobStatus.DONE, JobStatus.INIT]
    assert retried.revision == 2


def test_a_failed_delivery_is_restarted_and_succeeds(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.attempt_failed(request, "HTTP 410", None)
    undelivered = repositories.due.undelivered(repositories.clock(), limit=10)
    anew = repositories.deliveries.start_anew(request.request_id)

    repositories.deliveries.succeeded(anew)

    assert undelivered == [request.request_id]
    assert repositories.requests.get(request.request_id).delivery.status is DeliveryStatus.SUCCEEDED
    assert repositories.indexed("aggregator") == set()
    repositories.clock.advance(seconds=RETENTION)
    with pytest.raises(NotFound):
        repositories.requests.get(request.request_id)


def test_records_are_due_oldest_first(repositories: Repositories) -> None:
    ids = []
    for _ in range(8):
        ids.append(repositories.open_request().request_id)
        repositories.clock.advance(seconds=1)

    assert repositories.due_ids(repositories.clock.advance(minutes=1), limit=5) == ids[:5]


def test_a_repeated_key_returns_the_stored_response(repositories: Repositories) -> None:
    claim = repositories.keys.claim("k", {"a": 1}, "r1")
    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", {"a": 1}, "r2")
    repositories.keys.answered(claim, {"requestId": "r1"})

    assert repositories.keys.claim("k", {"a": 1}, "r2") == Claim("k", "r1", {"requestId": "r1"})
    with pytest.raises(KeyReused):
        repositories.keys.claim("k", {"a": 2}, "r2")


def test_retrievals_are_listed_in_pages_newest_first(repositories: Repositories) -> None:
    ids = []
    for _ in range(5):
        ids.append(repositories.retrieval().request_id)
        repositories.clock.advance(seconds=1)

    first, cursor = repositories.retrievals.newest(limit=3, cursor=None)
    second, end = repositories.retrievals.newest(limit=3, cursor=cursor)

    assert [retrieval.request_id for retrieval in first + second] == ids[::-1]
    assert end is None
