"""Retrievals: from the submission to the callback, each step counts once, also if it is repeated."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from persistence.errors import Conflict, NotFound, ResultLost
from persistence.records.request import RequestStatus
from persistence.records.retrieval import NextStep, Retrieval, SubmissionStatus
from persistence.records.timestamps import from_text, to_text
from persistence.retrievals import FIRST_DELIVERY
from tests.support.repositories import RETENTION, Repositories, at_once, conflicts, incompressible_json
from workers.documents import retrieval_document

Step = Callable[[Repositories, Retrieval], object]

STEPS: dict[str, Step] = {
    "accepted": lambda r, retrieval: r.retrievals.accepted(retrieval),
    "refused": lambda r, retrieval: r.retrievals.refused(retrieval, "HTTP 422"),
    "submission failed": lambda r, retrieval: r.retrievals.submission_failed(retrieval, "timeout", r.clock()),
    "cancelled": lambda r, retrieval: r.retrievals.cancelled(retrieval),
    "cancel came late": lambda r, retrieval: r.retrievals.cancel_came_late(retrieval),
    "check again": lambda r, retrieval: r.retrievals.check_again(retrieval, r.clock()),
    "lost": lambda r, retrieval: r.retrievals.lost(retrieval, "it is gone"),
}
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))


def reread(repositories: Repositories, retrieval: Retrieval) -> Retrieval:
    return repositories.retrievals.get(retrieval.request_id)


def outcome(retrieval: Retrieval, *, revision: int = 1, status: str = "COMPLETE") -> dict[str, Any]:
    """The body of a callback without its results."""
    jobs = [
        {"provider": provider, "url": f"http://providers.test/{provider}", "status": "DONE", "attempts": 2}
        for provider in retrieval.providers
    ]
    return {
        "requestId": retrieval.request_id,
        "status": status,
        "revision": revision,
        "jobs": jobs,
        "callbackUrl": "http://client.test",
        "createdAt": "2026-11-24T10:00:00.000Z",
        "endedAt": "2026-11-24T10:00:01.000Z",
    }


def receive(repositories: Repositories, retrieval: Retrieval, revision: int = 1, result: bytes = b"1") -> bool:
    results = dict.fromkeys(retrieval.providers, result)
    return repositories.retrievals.receive(retrieval, outcome(retrieval, revision=revision), results)


def test_a_new_retrieval_is_open_and_due_for_submission(repositories: Repositories) -> None:
    now = to_text(repositories.clock())

    retrieval = repositories.retrieval("gas", "water")

    assert retrieval == reread(repositories, retrieval)
    assert (retrieval.providers, retrieval.status) == (("gas", "water"), RequestStatus.OPEN)
    assert (retrieval.submission.status, retrieval.submission.attempts) == (SubmissionStatus.PENDING, 0)
    assert (retrieval.created_at, retrieval.ended_at, retrieval.outcome) == (now, None, None)
    assert repositories.retrievals_due_ids(repositories.clock.advance(seconds=10), limit=10) == [retrieval.request_id]


def test_a_failed_submission_counts_and_schedules_the_next(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    later = repositories.clock() + timedelta(minutes=1)

    repositories.retrievals.submission_failed(retrieval, "connection refused", later)

    submission = reread(repositories, retrieval).submission
    assert (submission.status, submission.attempts) == (SubmissionStatus.PENDING, 1)
    assert (submission.last_error, submission.next_attempt_at) == ("connection refused", to_text(later))
    assert repositories.retrievals_due_ids(later, limit=10) == []
    assert repositories.retrievals_due_ids(later + timedelta(seconds=10), limit=10) == [retrieval.request_id]


def due(repositories: Repositories, after: float, at: str) -> list[str]:
    """The ids of the retrievals that are due `after` seconds after a recorded time."""
    return repositories.retrievals_due_ids(from_text(at) + timedelta(seconds=after), limit=10)


def test_an_accepted_retrieval_is_due_after_its_deadline(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.submission_failed(retrieval, "timeout", repositories.clock())

    repositories.retrievals.accepted(reread(repositories, retrieval))

    retrieval = reread(repositories, retrieval)
    assert (retrieval.submission.status, retrieval.submission.attempts) == (SubmissionStatus.ACCEPTED, 2)
    assert (retrieval.submission.last_error, retrieval.submission.next_attempt_at) == (None, None)
    assert retrieval.status is RequestStatus.OPEN
    assert (retrieval.next_step, retrieval.checks) == (NextStep.CHECK, 0)
    assert due(repositories, FIRST_DELIVERY - 1, retrieval.deadline) == []
    assert due(repositories, FIRST_DELIVERY, retrieval.deadline) == [retrieval.request_id]


def test_a_check_without_a_result_is_no_submission_attempt(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.accepted(retrieval)
    at = repositories.clock() + timedelta(hours=2)

    repositories.retrievals.check_again(reread(repositories, retrieval), at)

    retrieval = reread(repositories, retrieval)
    assert (retrieval.checks, retrieval.next_step_at, retrieval.submission.attempts) == (1, to_text(at), 1)
    assert retrieval.submission.next_attempt_at is None
    assert due(repositories, -1, to_text(at)) == []
    assert due(repositories, 0, to_text(at)) == [retrieval.request_id]


def test_a_request_lost_by_the_aggregator_fails_and_expires(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.accepted(retrieval)
    now = repositories.clock.advance(hours=2)

    repositories.retrievals.lost(reread(repositories, retrieval), "it is gone")

    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.ended_at) == (RequestStatus.FAILED, to_text(now))
    assert (retrieval.submission.last_error, retrieval.submission.attempts) == ("it is gone", 1)
    assert retrieval_document(retrieval, "", {})["jobs"][0]["lastError"] == "it is gone"
    assert repositories.indexed("client") == set()
    repositories.clock.advance(seconds=RETENTION)
    with pytest.raises(NotFound):
        reread(repositories, retrieval)


@pytest.mark.parametrize("given_up", [STEPS["refused"], STEPS["lost"]], ids=["refused", "lost"])
def test_a_late_callback_completes_a_failed_retrieval(repositories: Repositories, given_up: Step) -> None:
    retrieval = repositories.retrieval()
    given_up(repositories, retrieval)

    assert receive(repositories, reread(repositories, retrieval))

    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.submission.status) == (RequestStatus.COMPLETE, SubmissionStatus.ACCEPTED)


def test_a_refused_retrieval_fails_and_expires(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    now = repositories.clock.advance(minutes=1)

    repositories.retrievals.refused(retrieval, "HTTP 422")

    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.ended_at) == (RequestStatus.FAILED, to_text(now))
    assert (retrieval.submission.status, retrieval.submission.last_error) == (SubmissionStatus.REFUSED, "HTTP 422")
    repositories.clock.advance(seconds=RETENTION)
    with pytest.raises(NotFound):
        reread(repositories, retrieval)


def test_a_callback_completes_a_retrieval_with_its_results(repositories: Repositories) -> None:
    retrieval = repositories.retrieval("gas", "water", "phone")
    repositories.retrievals.accepted(retrieval)
    said = outcome(retrieval, status="PARTIAL")
    said["jobs"][2] |= {"status": "FAILED", "lastError": "HTTP 500"}
    results = {"gas": b"[1, 2]", "water": incompressible_json(1_200_000)}

    received = repositories.retrievals.receive(reread(repositories, retrieval), said, results)

    assert received
    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.ended_at) == (RequestStatus.PARTIAL, said["endedAt"])
    assert repositories.retrievals.load_results(retrieval) == results
    assert retrieval_document(retrieval, "", {})["jobs"] == said["jobs"]
    assert repositories.indexed("client") == set()


def test_a_result_of_five_mebibytes_is_received_whole(repositories: Repositories) -> None:
    retrieval, text = repositories.retrieval(), incompressible_json(5 * 1024 * 1024)

    receive(repositories, retrieval, result=text)

    assert repositories.retrievals.load_results(reread(repositories, retrieval)) == {"gas": text}


def test_the_outcome_of_fifty_jobs_fits_an_item(repositories: Repositories) -> None:
    retrieval = repositories.retrieval(*(f"p{number:063}" for number in range(50)))
    said = outcome(retrieval)
    for job in said["jobs"]:
        job |= {"url": "http://providers.test/" + "u" * 1500, "lastError": "\N{PILE OF POO}" * 1000}

    repositories.retrievals.receive(retrieval, said, dict.fromkeys(retrieval.providers, incompressible_json(1310)))

    assert len(repositories.retrievals.load_results(reread(repositories, retrieval))) == 50


def test_a_callback_before_the_recorded_submission_is_received(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()

    assert receive(repositories, retrieval)

    with pytest.raises(Conflict):
        repositories.retrievals.accepted(retrieval)
    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.submission.status) == (RequestStatus.COMPLETE, SubmissionStatus.ACCEPTED)


@pytest.mark.parametrize("reread_first", [True, False])
def test_a_repeated_callback_is_received_once(repositories: Repositories, reread_first: bool) -> None:
    retrieval = repositories.retrieval()
    receive(repositories, retrieval, result=incompressible_json(400_000))
    before, parts = reread(repositories, retrieval), repositories.parts(retrieval.request_id)
    repositories.clock.advance(seconds=1)

    received = receive(repositories, before if reread_first else retrieval, result=incompressible_json(9000))

    assert not received
    assert reread(repositories, retrieval) == before
    assert repositories.parts(retrieval.request_id) == parts


def test_concurrent_copies_of_a_callback_are_received_once(repositories: Repositories) -> None:
    retrieval = repositories.retrieval("gas", "water")

    outcomes = at_once([partial(receive, repositories, retrieval, result=incompressible_json(400_000))] * 20)

    assert (outcomes.count(True), outcomes.count(False)) == (1, 19)
    assert len(repositories.parts(retrieval.request_id)) == 2
    assert len(repositories.retrievals.load_results(reread(repositories, retrieval))) == 2


def test_the_outcome_of_a_later_revision_replaces_the_earlier(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    receive(repositories, retrieval, 1, b"1")

    assert receive(repositories, reread(repositories, retrieval), 3, b"3")
    assert not receive(repositories, reread(repositories, retrieval), 2, b"2")
    assert not receive(repositories, retrieval, 2, b"2")

    assert repositories.retrievals.load_results(reread(repositories, retrieval)) == {"gas": b"3"}


def test_a_retrieval_and_its_results_are_kept_for_the_retention(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    receive(repositories, retrieval, result=incompressible_json(400_000))

    repositories.clock.advance(seconds=RETENTION - 1)
    ended = reread(repositories, retrieval)
    assert ended.ended_at
    repositories.clock.advance(seconds=1)
    repositories.retrievals_expired.look()

    with pytest.raises(NotFound):
        reread(repositories, retrieval)
    assert repositories.retrievals.load_results(ended) == {"gas": incompressible_json(400_000)}


def test_a_result_whose_parts_are_gone_is_lost(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    receive(repositories, retrieval, result=incompressible_json(400_000))
    (part,) = repositories.parts(retrieval.request_id)
    repositories.client_table.delete({"pk": part["pk"], "sk": part["sk"]})

    with pytest.raises(ResultLost):
        repositories.retrievals.load_results(reread(repositories, retrieval))


def test_a_requested_cancellation_is_due_soon(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.accepted(retrieval)
    now = repositories.clock.advance(minutes=1)

    asked = repositories.retrievals.request_cancel(retrieval.request_id)

    assert asked == reread(repositories, retrieval)
    assert (asked.status, asked.cancel_requested_at) == (RequestStatus.OPEN, to_text(now))
    assert repositories.retrievals_due_ids(now + timedelta(seconds=10), limit=10) == [retrieval.request_id]


def test_a_repeated_cancellation_keeps_the_first_time(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    first = repositories.retrievals.request_cancel(retrieval.request_id).cancel_requested_at
    repositories.clock.advance(minutes=1)

    assert repositories.retrievals.request_cancel(retrieval.request_id).cancel_requested_at == first


def test_a_cancellation_does_not_wait_for_the_next_submission(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.submission_failed(retrieval, "timeout", repositories.clock() + timedelta(hours=1))

    asked = repositories.retrievals.request_cancel(retrieval.request_id)

    assert asked.submission.next_attempt_at is None


def test_a_cancelled_retrieval_ends_and_expires(repositories: Repositories) -> None:
    retrieval = repositories.retrievals.request_cancel(repositories.retrieval().request_id)
    now = repositories.clock.advance(minutes=1)

    repositories.retrievals.cancelled(retrieval)

    retrieval = reread(repositories, retrieval)
    assert (retrieval.status, retrieval.ended_at) == (RequestStatus.CANCELLED, to_text(now))
    assert repositories.indexed("client") == set()
    repositories.clock.advance(seconds=RETENTION)
    with pytest.raises(NotFound):
        reread(repositories, retrieval)


@pytest.mark.parametrize("was_accepted", [True, False])
def test_a_late_cancellation_makes_the_check_due_at_once(repositories: Repositories, was_accepted: bool) -> None:
    retrieval = repositories.retrieval()
    if was_accepted:
        repositories.retrievals.accepted(retrieval)
    retrieval = repositories.retrievals.request_cancel(retrieval.request_id)
    now = to_text(repositories.clock.advance(minutes=1))

    late = repositories.retrievals.cancel_came_late(retrieval)

    retrieval = reread(repositories, retrieval)
    assert retrieval == late
    assert (retrieval.next_step, retrieval.next_step_at) == (NextStep.CHECK, now)
    assert due(repositories, 10, now) == [retrieval.request_id]
    assert (retrieval.status, retrieval.cancel_requested_at) == (RequestStatus.OPEN, None)
    assert retrieval.submission.status is SubmissionStatus.ACCEPTED
    assert receive(repositories, retrieval)
    assert repositories.indexed("client") == set()


def test_a_late_outcome_does_not_replace_a_cancellation(repositories: Repositories) -> None:
    retrieval = repositories.retrievals.request_cancel(repositories.retrieval().request_id)
    repositories.retrievals.cancelled(retrieval)
    cancelled = repositories.retrievals.get(retrieval.request_id)

    received = repositories.retrievals.receive(cancelled, outcome(cancelled, status="COMPLETE"), {})

    assert not received
    assert repositories.retrievals.get(retrieval.request_id) == cancelled


def test_the_callback_of_a_cancellation_adds_its_results(repositories: Repositories) -> None:
    retrieval = repositories.retrievals.request_cancel(repositories.retrieval().request_id)
    repositories.retrievals.cancelled(retrieval)

    repositories.retrievals.receive(retrieval, outcome(retrieval, status="CANCELLED"), {"gas": b"1"})

    retrieval = reread(repositories, retrieval)
    assert retrieval.status is RequestStatus.CANCELLED
    assert repositories.retrievals.load_results(retrieval) == {"gas": b"1"}


@pytest.mark.parametrize(
    "end",
    [receive, STEPS["refused"], STEPS["cancelled"], STEPS["lost"]],
    ids=["received", "refused", "cancelled", "lost"],
)
def test_an_ended_retrieval_cannot_be_cancelled(repositories: Repositories, end: Step) -> None:
    retrieval = repositories.retrieval()
    end(repositories, retrieval)
    before = reread(repositories, retrieval)

    with pytest.raises(Conflict, match="has ended already"):
        repositories.retrievals.request_cancel(retrieval.request_id)

    assert reread(repositories, retrieval) == before


@every_step
def test_a_step_on_a_changed_record_is_a_conflict(repositories: Repositories, step: Step) -> None:
    retrieval = repositories.retrieval()
    changed = repositories.retrievals.request_cancel(retrieval.request_id)

    with pytest.raises(Conflict):
        step(repositories, retrieval)

    assert reread(repositories, retrieval) == changed


@every_step
def test_one_of_many_concurrent_steps_succeeds(repositories: Repositories, step: Step) -> None:
    retrieval = repositories.retrieval()

    outcomes = at_once([partial(step, repositories, retrieval)] * 20)

    assert conflicts(outcomes) == 19
    assert reread(repositories, retrieval).version == 2


@every_step
def test_a_step_on_a_deleted_retrieval_is_not_found(repositories: Repositories, step: Step) -> None:
    retrieval = repositories.retrieval()
    repositories.client_table.delete({"pk": retrieval.request_id, "sk": "retrieval"})

    with pytest.raises(NotFound):
        step(repositories, retrieval)


@pytest.mark.parametrize("deleted", [True, False])
def test_a_callback_for_an_expired_retrieval_is_not_found(repositories: Repositories, deleted: bool) -> None:
    retrieval = repositories.retrieval()
    receive(repositories, retrieval)
    repositories.clock.advance(seconds=RETENTION)
    if deleted:
        # DynamoDB deletes an item within days after it has expired.
        repositories.client_table.delete({"pk": retrieval.request_id, "sk": "retrieval"})

    with pytest.raises(NotFound):
        receive(repositories, retrieval, revision=2)

    with pytest.raises(NotFound):
        reread(repositories, retrieval)


def test_an_unknown_retrieval_is_not_found(repositories: Repositories) -> None:
    with pytest.raises(NotFound):
        repositories.retrievals.request_cancel("nobody")

    with pytest.raises(NotFound):
        repositories.retrievals.get("nobody")
