"""Retrying requests: the failed jobs run again under a new revision; done jobs stay done."""

import json
from datetime import timedelta

import pytest

from persistence.errors import Conflict, NotFound
from persistence.records.job import JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, Request, RequestStatus
from persistence.records.timestamps import to_text
from tests.support.repositories import RETENTION, Repositories, at_once, conflicts, incompressible_json


def retry(repositories: Repositories, request: Request) -> Request:
    return repositories.requests.retry(request.request_id, deadline=repositories.clock() + timedelta(hours=2))


def test_a_retry_reopens_only_the_failed_jobs(repositories: Repositories) -> None:
    ended = repositories.ended_request(done=2, failed=2)
    repositories.clock.advance(minutes=1)

    request = retry(repositories, ended)

    assert request == repositories.requests.get(ended.request_id)
    assert request.jobs[:2] == ended.jobs[:2]
    for job in request.jobs[2:]:
        assert (job.status, job.attempts, job.last_error, job.ended_at) == (JobStatus.INIT, 0, None, None)
    assert [job.url for job in request.jobs] == [job.url for job in ended.jobs]
    assert (request.status, request.open_jobs, request.ended_at) == (RequestStatus.OPEN, 2, None)
    assert request.deadline == to_text(repositories.clock() + timedelta(hours=2))


def test_a_retried_request_ends_with_old_and_new_results(repositories: Repositories) -> None:
    kept = incompressible_json(9000)
    ended = repositories.ended_request(done=1, failed=2, result=kept)
    request = retry(repositories, ended)

    told = [repositories.requests.finish_job(request.attempt(job), b"2") for job in request.jobs[1:]]

    request = repositories.requests.get(request.request_id)
    assert told == [None, request]
    assert request.status is RequestStatus.COMPLETE
    assert repositories.requests.load_results(request) == {"p0": kept, "p1": b"2", "p2": b"2"}


def test_a_retried_request_is_delivered_as_a_new_revision(repositories: Repositories) -> None:
    ended = repositories.ended_request(failed=1)
    repositories.deliveries.attempt_failed(ended, "HTTP 410", None)

    request = retry(repositories, ended)

    assert (request.revision, request.delivery.status, request.delivery.attempts) == (2, DeliveryStatus.PENDING, 0)
    assert request.delivery.last_error is None
    assert request.delivery.webhook_id != ended.delivery.webhook_id
    assert request.expires_at is None


def test_a_retried_request_is_open_in_the_due_index(repositories: Repositories) -> None:
    ended = repositories.ended_request(failed=1)
    repositories.deliveries.attempt_failed(ended, "HTTP 410", None)

    retry(repositories, ended)

    later = repositories.clock.advance(seconds=10)
    assert repositories.due_ids(later, limit=10) == [ended.request_id]
    assert repositories.due.undelivered(later - timedelta(days=1), limit=10) == []


@pytest.mark.parametrize("done", [0, 1])
def test_a_retry_reopens_jobs_that_the_deadline_ended(repositories: Repositories, done: int) -> None:
    request = repositories.open_request(3)
    for job in request.jobs[:done]:
        repositories.requests.finish_job(request.attempt(job), b"1")
    repositories.clock.advance(hours=1)
    repositories.requests.close(request.request_id, CloseReason.DEADLINE)

    again = retry(repositories, request)

    assert [job.status for job in again.jobs] == [JobStatus.DONE] * done + [JobStatus.INIT] * (3 - done)
    told = [repositories.requests.finish_job(again.attempt(job), b"1") for job in again.jobs[done:]]
    ended = repositories.requests.get(request.request_id)
    assert told == [None] * (2 - done) + [ended]
    assert ended.status is RequestStatus.COMPLETE


def test_a_request_can_be_retried_repeatedly(repositories: Repositories) -> None:
    request = repositories.ended_request(done=1, failed=1)

    for revision in range(2, 5):
        request = retry(repositories, request)
        repositories.requests.fail_job(request.attempt(request.jobs[1]), "HTTP 500")
        request = repositories.requests.get(request.request_id)

        assert (request.revision, request.status) == (revision, RequestStatus.PARTIAL)


def test_one_write_reopens_fifty_failed_jobs(repositories: Repositories) -> None:
    # DynamoDB limits update expressions to 4 KB and 300 operators.
    sent: list[str] = []
    repositories.dynamodb.meta.events.register(
        "before-send.dynamodb.UpdateItem",
        lambda request, **_: sent.append(json.loads(request.body)["UpdateExpression"]),
    )
    ended = repositories.ended_request(done=0, failed=50)
    sent.clear()

    request = retry(repositories, ended)

    assert {job.status for job in request.jobs} == {JobStatus.INIT}
    assert len(sent) == 1
    assert len(sent[0]) <= 4096


def test_results_are_kept_past_the_new_deadline(repositories: Repositories) -> None:
    text = incompressible_json(400_000)
    ended = repositories.ended_request(failed=1, result=text)
    repositories.deliveries.succeeded(ended)
    repositories.expired.look()
    deadline = repositories.clock.advance(seconds=RETENTION - 1) + timedelta(days=20)

    repositories.requests.retry(ended.request_id, deadline=deadline)

    for _ in range(20):
        repositories.clock.advance(days=1)
        repositories.expired.look()
    request = repositories.requests.get(ended.request_id)
    assert repositories.requests.load_results(request) == {"p0": text}


@pytest.mark.parametrize("status", [RequestStatus.OPEN, RequestStatus.COMPLETE, RequestStatus.CANCELLED])
def test_a_request_without_failed_jobs_is_not_retried(repositories: Repositories, status: RequestStatus) -> None:
    request = repositories.open_request(2)
    if status is RequestStatus.COMPLETE:
        for job in request.jobs:
            repositories.requests.finish_job(request.attempt(job), b"1")
    if status is RequestStatus.CANCELLED:
        repositories.requests.close(request.request_id, CloseReason.CANCELLED)
    before = repositories.requests.get(request.request_id)

    with pytest.raises(Conflict, match=f"is {status}"):
        retry(repositories, request)

    assert repositories.requests.get(request.request_id) == before


def test_an_unknown_request_cannot_be_retried(repositories: Repositories) -> None:
    with pytest.raises(NotFound):
        repositories.requests.retry("nobody", deadline=repositories.clock())


def test_concurrent_retries_reopen_a_request_once(repositories: Repositories) -> None:
    ended = repositories.ended_request(done=1, failed=3)

    outcomes = at_once([lambda: retry(repositories, ended)] * 20)

    assert conflicts(outcomes) == 19
    request = repositories.requests.get(ended.request_id)
    assert (request.revision, request.open_jobs) == (2, 3)
