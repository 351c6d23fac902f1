"""Job completion: each job ends by one write, which tells its writer whether the job was the last."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from persistence.errors import Conflict, NotFound
from persistence.records.job import Job, JobStatus
from persistence.records.request import CloseReason, Request, RequestStatus
from persistence.records.timestamps import to_text
from tests.support.repositories import Repositories, at_once, conflicts, incompressible_json

THREADS = 64

Write = Callable[[Repositories, Request, Job], object]

ENDS: dict[str, Write] = {
    "finish": lambda r, request, job: r.requests.finish_job(request.attempt(job), b"2"),
    "finish in parts": lambda r, request, job: r.requests.finish_job(request.attempt(job), incompressible_json(9000)),
    "finish with nothing": lambda r, request, job: r.requests.finish_job(request.attempt(job), None),
    "fail": lambda r, request, job: r.requests.fail_job(request.attempt(job), "other"),
}
WRITES: dict[str, Write] = ENDS | {
    "record a failure": lambda r, request, job: r.requests.record_failure(request.attempt(job), "other", r.clock()),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))


@pytest.mark.parametrize(
    "rounds",
    [[(jobs, 52 - jobs) for jobs in range(2, 27)], [(2,)] * 3, [(50,)] * 3],
    ids=["2 to 50 jobs", "2 jobs", "50 jobs"],
)
def test_one_of_many_concurrent_completions_is_the_last(
    repositories: Repositories, rounds: list[tuple[int, ...]]
) -> None:
    def end(request: Request, job: Job) -> Request | None:
        if job.index % 2:
            return repositories.requests.fail_job(request.attempt(job), "HTTP 500")
        return repositories.requests.finish_job(request.attempt(job), b"1")

    for sizes in rounds:
        requests = [repositories.open_request(jobs) for jobs in sizes]
        work = [(request, job) for request in requests for job in request.jobs]
        # There are fewer jobs than threads, so several threads complete the same job.
        shared = [work[number % len(work)] for number in range(THREADS)]

        outcomes = at_once(partial(end, *each) for each in shared)

        told = [
            request.request_id
            for (request, _), outcome in zip(shared, outcomes, strict=True)
            if isinstance(outcome, Request)
        ]
        assert sorted(told) == sorted(request.request_id for request in requests)
        assert (outcomes.count(None), conflicts(outcomes)) == (len(work) - len(requests), THREADS - len(work))
        for request in requests:
            ended = repositories.requests.get(request.request_id)
            assert (ended.open_jobs, ended.status) == (0, RequestStatus.PARTIAL)
            assert ended.version <= 1 + len(ended.jobs)
            assert {job.attempts for job in ended.jobs} == {1}


def test_a_close_and_the_last_completion_end_a_request_once(repositories: Repositories) -> None:
    for _ in range(20):
        request = repositories.open_request(4)

        close = partial(repositories.requests.close, request.request_id, CloseReason.CANCELLED)
        ends = [partial(repositories.requests.finish_job, request.attempt(job), b"1") for job in request.jobs]
        outcomes = at_once([*ends, close])

        conflicts(outcomes)
        ended = repositories.requests.get(request.request_id)
        assert outcomes.count(ended) == 1
        assert ended.status is (RequestStatus.CANCELLED if outcomes[-1] == ended else RequestStatus.COMPLETE)
        assert [job.status is JobStatus.DONE for job in ended.jobs] == [
            not isinstance(outcome, Conflict) for outcome in outcomes[:-1]
        ]


@pytest.mark.parametrize(
    ("done", "failed", "status"),
    [(3, 0, RequestStatus.COMPLETE), (2, 1, RequestStatus.PARTIAL), (0, 3, RequestStatus.FAILED)],
)
def test_the_request_status_follows_from_the_job_statuses(
    repositories: Repositories, done: int, failed: int, status: RequestStatus
) -> None:
    request = repositories.ended_request(done, failed)

    assert request.status is status
    assert [job.status for job in request.jobs] == [JobStatus.DONE] * done + [JobStatus.FAILED] * failed


def test_a_request_is_open_until_its_last_job_has_ended(repositories: Repositories) -> None:
    request = repositories.open_request(3)

    told = [repositories.requests.fail_job(request.attempt(job), "HTTP 500") for job in request.jobs[:2]]

    assert told == [None, None]
    request = repositories.requests.get(request.request_id)
    assert (request.status, request.ended, request.ended_at) == (RequestStatus.OPEN, False, None)


def test_a_request_has_the_end_time_of_its_last_job(repositories: Repositories) -> None:
    request = repositories.open_request(2)

    repositories.requests.finish_job(request.attempt(request.jobs[1]), b"1")
    last = repositories.clock.advance(minutes=5)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    assert repositories.requests.get(request.request_id).ended_at == to_text(last)


def test_a_failed_job_holds_its_reason_and_attempts(repositories: Repositories) -> None:
    request = repositories.open_request()

    repositories.requests.fail_job(request.attempt(request.jobs[0]), "HTTP 500 #fail", attempts=3)

    (job,) = repositories.requests.get(request.request_id).jobs
    assert (job.status, job.last_error, job.attempts) == (JobStatus.FAILED, "HTTP 500 #fail", 3)


def test_a_job_can_be_completed_without_attempt_or_result(repositories: Repositories) -> None:
    request = repositories.open_request()

    repositories.requests.finish_job(request.attempt(request.jobs[0]), None, attempts=0)

    request = repositories.requests.get(request.request_id)
    assert (request.jobs[0].status, request.jobs[0].attempts) == (JobStatus.DONE, 0)
    assert repositories.requests.load_results(request) == {}


def test_a_failed_attempt_counts_and_schedules_the_next(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    later = repositories.clock() + timedelta(minutes=2)

    repositories.requests.record_failure(request.attempt(request.jobs[1]), "timeout", later)

    untouched, job = repositories.requests.get(request.request_id).jobs
    assert untouched == request.jobs[0]
    assert (job.status, job.attempts, job.last_error) == (JobStatus.INIT, 1, "timeout")
    assert job.next_attempt_at == to_text(later)


def test_a_completed_job_has_no_next_attempt(repositories: Repositories) -> None:
    request = repositories.open_request()
    repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())
    request = repositories.requests.get(request.request_id)

    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    (job,) = repositories.requests.get(request.request_id).jobs
    assert (job.next_attempt_at, job.attempts, job.last_error) == (None, 2, "timeout")


@every_write
def test_a_write_on_an_ended_job_is_a_conflict(repositories: Repositories, write: Write) -> None:
    request = repositories.open_request(2)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
    before = repositories.requests.get(request.request_id)
    repositories.clock.advance(seconds=1)

    with pytest.raises(Conflict, match="has ended already"):
        write(repositories, request, request.jobs[0])

    assert repositories.requests.get(request.request_id) == before
    assert repositories.parts(request.request_id) == []


@pytest.mark.parametrize("reason", CloseReason)
@every_write
def test_a_write_on_a_closed_request_is_a_conflict(
    repositories: Repositories, write: Write, reason: CloseReason
) -> None:
    request = repositories.open_request(2)
    repositories.clock.advance(hours=1)
    repositories.requests.close(request.request_id, reason)
    before = repositories.requests.get(request.request_id)

    with pytest.raises(Conflict, match="has ended already"):
        write(repositories, request, request.jobs[0])

    assert repositories.requests.get(request.request_id) == before
    assert repositories.parts(request.request_id) == []


@every_write
def test_an_attempt_from_before_a_retry_is_a_conflict(repositories: Repositories, write: Write) -> None:
    request = repositories.open_request(2)
    repositories.clock.advance(hours=1)
    repositories.requests.close(request.request_id, CloseReason.DEADLINE)
    again = repositories.requests.retry(request.request_id, deadline=repositories.clock() + timedelta(hours=1))

    with pytest.raises(Conflict):
        write(repositories, request, request.jobs[0])

    assert repositories.requests.get(request.request_id) == again
    assert repositories.parts(request.request_id) == []


def test_a_counted_attempt_is_not_counted_again(repositories: Repositories) -> None:
    request = repositories.open_request()
    repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())
    before = repositories.requests.get(request.request_id)

    with pytest.raises(Conflict, match="was counted before"):
        repositories.requests.record_failure(request.attempt(request.jobs[0]), "other", repositories.clock())

    assert repositories.requests.get(request.request_id) == before


def counted_meanwhile(repositories: Repositories, job: Job, request: Request) -> Request:
    """Counts the attempt for another worker that made it too; returns the request after that."""
    later = repositories.clock() + timedelta(minutes=1)
    repositories.requests.record_failure(request.attempt(job), "HTTP 503", later)
    return repositories.requests.get(request.request_id)


def test_a_counted_attempt_cannot_fail_its_job(repositories: Repositories) -> None:
    request = repositories.open_request()
    before = counted_meanwhile(repositories, request.jobs[0], request)

    with pytest.raises(Conflict, match="went on meanwhile"):
        repositories.requests.fail_job(request.attempt(request.jobs[0]), "too large")

    assert repositories.requests.get(request.request_id) == before


def test_a_counted_attempt_can_still_complete_its_job(repositories: Repositories) -> None:
    request = repositories.open_request()
    counted_meanwhile(repositories, request.jobs[0], request)

    ended = repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    assert ended
    assert (ended.status, ended.jobs[0].attempts) == (RequestStatus.COMPLETE, 2)


def test_an_update_by_hand_fails_a_job_despite_a_counted_attempt(repositories: Repositories) -> None:
    request = repositories.open_request()
    counted_meanwhile(repositories, request.jobs[0], request)

    ended = repositories.requests.fail_job(request.attempt(request.jobs[0]), "by hand", attempts=0)

    assert ended
    assert (ended.status, ended.jobs[0].attempts) == (RequestStatus.FAILED, 1)


def test_a_counted_attempt_does_not_block_other_jobs(repositories: Repositories) -> None:
    request = repositories.open_request(20)
    counted_meanwhile(repositories, request.jobs[7], request)

    outcomes = at_once(
        partial(repositories.requests.fail_job, request.attempt(job), "too large") for job in request.jobs
    )

    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [job.index == 7 for job in request.jobs]
    request = repositories.requests.get(request.request_id)
    assert (request.open_jobs, request.jobs[7].status) == (1, JobStatus.INIT)


def test_concurrent_reports_of_an_attempt_count_once(repositories: Repositories) -> None:
    request = repositories.open_request()
    fail = partial(
        repositories.requests.record_failure, request.attempt(request.jobs[0]), "timeout", repositories.clock()
    )

    outcomes = at_once([fail] * 20)

    assert conflicts(outcomes) == 19
    assert repositories.requests.get(request.request_id).jobs[0].attempts == 1


def test_concurrent_failures_of_different_jobs_all_count(repositories: Repositories) -> None:
    request = repositories.open_request(20)
    fail = repositories.requests.record_failure

    outcomes = at_once(partial(fail, request.attempt(job), "timeout", repositories.clock()) for job in request.jobs)

    assert conflicts(outcomes) == 0
    assert {job.attempts for job in repositories.requests.get(request.request_id).jobs} == {1}


@every_write
def test_a_write_on_a_deleted_request_is_not_found(repositories: Repositories, write: Write) -> None:
    request = repositories.open_request()
    repositories.aggregator_table.delete({"pk": request.request_id, "sk": "request"})

    with pytest.raises(NotFound):
        write(repositories, request, request.jobs[0])


def test_each_write_updates_the_version_and_time(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    now = repositories.clock.advance(seconds=1)

    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    changed = repositories.requests.get(request.request_id)
    assert (changed.version, changed.updated_at) == (request.version + 1, to_text(now))
    assert changed.created_at == request.created_at


def test_completions_during_a_write_share_the_next_write(repositories: Repositories) -> None:
    request = repositories.open_request(50)

    outcomes = at_once(partial(repositories.requests.finish_job, request.attempt(job), b"1") for job in request.jobs)

    ended = repositories.requests.get(request.request_id)
    assert [outcome for outcome in outcomes if outcome] == [ended]
    # The first is written alone, the others ten at a time while they wait; slow threads may miss a batch.
    assert 1 + 6 <= ended.version < 1 + 50
    assert {job.status for job in ended.jobs} == {JobStatus.DONE}
