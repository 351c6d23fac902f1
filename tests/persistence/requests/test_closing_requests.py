"""Closing requests: one write ends the request and its open jobs."""

from datetime import timedelta

import pytest

from persistence.errors import Conflict, NotFound
from persistence.records.job import JobStatus
from persistence.records.request import CloseReason, RequestStatus
from persistence.records.timestamps import to_text
from tests.support.repositories import Repositories, at_once, conflicts


def test_cancelling_keeps_done_jobs_and_cancels_the_others(repositories: Repositories) -> None:
    request = repositories.open_request(3)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
    repositories.requests.record_failure(request.attempt(request.jobs[1]), "timeout", repositories.clock())
    now = repositories.clock.advance(minutes=1)

    repositories.requests.close(request.request_id, CloseReason.CANCELLED)

    closed = repositories.requests.get(request.request_id)
    assert (closed.status, closed.open_jobs, closed.ended_at) == (RequestStatus.CANCELLED, 0, to_text(now))
    assert [job.status for job in closed.jobs] == [JobStatus.DONE, JobStatus.CANCELLED, JobStatus.CANCELLED]
    assert [job.last_error for job in closed.jobs] == [None, "timeout", None]
    assert [job.next_attempt_at for job in closed.jobs] == [None, None, None]
    assert {job.ended_at for job in closed.jobs[1:]} == {to_text(now)}
    assert repositories.requests.load_results(closed) == {"p0": b"1"}


@pytest.mark.parametrize(("done", "status"), [(0, RequestStatus.FAILED), (1, RequestStatus.PARTIAL)])
def test_open_jobs_fail_at_the_deadline_with_that_reason(
    repositories: Repositories, done: int, status: RequestStatus
) -> None:
    request = repositories.open_request(3)
    for job in request.jobs[:done]:
        repositories.requests.finish_job(request.attempt(job), b"1")
    repositories.requests.record_failure(request.attempt(request.jobs[1]), "timeout", repositories.clock())
    now = repositories.clock.advance(hours=1)

    repositories.requests.close(request.request_id, CloseReason.DEADLINE)

    closed = repositories.requests.get(request.request_id)
    assert (closed.status, closed.open_jobs, closed.ended_at) == (status, 0, to_text(now))
    assert [job.status for job in closed.jobs] == [JobStatus.DONE] * done + [JobStatus.FAILED] * (3 - done)
    assert [job.last_error for job in closed.jobs[1:]] == ["deadline reached; timeout", "deadline reached"]


def test_a_request_is_not_closed_before_its_deadline(repositories: Repositories) -> None:
    # A worker that saw an earlier deadline pass must not close a request that has a new one.
    request = repositories.open_request()
    repositories.clock.advance(minutes=59, seconds=59, milliseconds=999)

    with pytest.raises(Conflict, match="deadline"):
        repositories.requests.close(request.request_id, CloseReason.DEADLINE)

    assert not repositories.requests.get(request.request_id).ended


@pytest.mark.parametrize("reason", CloseReason)
def test_an_ended_request_is_not_closed_again(repositories: Repositories, reason: CloseReason) -> None:
    ended = repositories.ended_request(1, 1)
    repositories.clock.advance(hours=2)

    with pytest.raises(Conflict, match="has ended already"):
        repositories.requests.close(ended.request_id, reason)

    assert repositories.requests.get(ended.request_id) == ended


def test_concurrent_closes_end_a_request_once(repositories: Repositories) -> None:
    request = repositories.open_request(2)

    outcomes = at_once([lambda: repositories.requests.close(request.request_id, CloseReason.CANCELLED)] * 20)

    assert conflicts(outcomes) == 19


@pytest.mark.parametrize("reason", CloseReason)
def test_an_unknown_request_cannot_be_closed(repositories: Repositories, reason: CloseReason) -> None:
    with pytest.raises(NotFound):
        repositories.requests.close("nobody", reason)


def test_a_closed_request_is_due_soon(repositories: Repositories) -> None:
    request = repositories.open_request()
    now = repositories.clock.advance(minutes=30)

    repositories.requests.close(request.request_id, CloseReason.CANCELLED)

    assert repositories.due_ids(now, limit=10) == []
    assert repositories.due_ids(now + timedelta(seconds=10), limit=10) == [request.request_id]
