"""Documents: they show records with the members that the specs declare, and leave out absent ones."""

from typing import Any

import orjson

from persistence.records.request import CloseReason
from persistence.records.timestamps import to_text
from tests.support.repositories import CALLBACK_URL, Repositories
from workers.documents import record_document, request_document, result_document, retrieval_document, retrieval_summary


def read(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document as a reader gets it: serialized and parsed."""
    return dict(orjson.loads(orjson.dumps(document)))


def test_a_new_request_has_only_the_members_that_are_set(repositories: Repositories) -> None:
    request = repositories.open_request(1, request_id="r1")

    document = read(request_document(request, {}))

    assert document == {
        "requestId": "r1",
        "status": "OPEN",
        "jobs": [{"provider": "p0", "url": "http://providers.test/p0", "status": "INIT", "attempts": 0}],
        "callbackUrl": CALLBACK_URL,
        "openJobs": 1,
        "deadline": request.deadline,
        "delivery": {"status": "PENDING", "attempts": 0, "webhookId": "msg_r1_1"},
        "revision": 1,
        "createdAt": request.created_at,
        "updatedAt": request.updated_at,
    }
    assert read(record_document(request, {})) == {**document, "ended": False}


def test_an_ended_request_shows_each_jobs_end_and_result(repositories: Repositories) -> None:
    request = repositories.ended_request(done=1, failed=1, result=b'{"a":[1]}')
    repositories.deliveries.attempt_failed(request, "HTTP 500", repositories.clock())
    request, now = repositories.requests.get(request.request_id), to_text(repositories.clock())

    document = read(record_document(request, repositories.requests.load_results(request)))

    done, failed = document["jobs"]
    assert done == {
        "provider": "p0",
        "url": "http://providers.test/p0",
        "status": "DONE",
        "attempts": 1,
        "endedAt": now,
        "result": {"a": [1]},
    }
    assert (failed["status"], failed["lastError"], "result" in failed) == ("FAILED", "HTTP 500", False)
    assert (document["status"], document["ended"], document["endedAt"]) == ("PARTIAL", True, now)
    assert (document["delivery"]["lastError"], document["delivery"]["nextAttemptAt"]) == ("HTTP 500", now)


def test_the_delivered_document_leaves_out_the_delivery(repositories: Repositories) -> None:
    request = repositories.ended_request()

    document = read(result_document(request, {"p0": b"1"}))

    assert list(document) == ["requestId", "status", "revision", "jobs", "callbackUrl", "createdAt", "endedAt"]
    assert document["jobs"][0]["result"] == 1


def test_a_result_is_sent_as_the_stored_text(repositories: Repositories) -> None:
    text = b'{"b" : 1.00, "a":[ 1e2 ], "b":12345678901234567890123}'
    request = repositories.ended_request(result=text)

    assert text in orjson.dumps(result_document(request, repositories.requests.load_results(request)))


def test_a_new_retrieval_shows_an_open_job_for_each_provider(repositories: Repositories) -> None:
    retrieval = repositories.retrieval("gas", "water")

    document = read(retrieval_document(retrieval, CALLBACK_URL, {}))

    assert document == {
        "requestId": retrieval.request_id,
        "status": "OPEN",
        "jobs": [{"provider": provider, "status": "INIT", "attempts": 0} for provider in ("gas", "water")],
        "callbackUrl": CALLBACK_URL,
        "submission": {"status": "PENDING", "attempts": 0},
        "createdAt": retrieval.created_at,
        "updatedAt": retrieval.updated_at,
    }


def test_an_open_retrieval_shows_the_jobs_of_the_aggregator(repositories: Repositories) -> None:
    jobs = [{"provider": "gas", "status": "INIT", "attempts": 7}]

    document = retrieval_document(repositories.retrieval(), CALLBACK_URL, {}, jobs)

    assert document["jobs"] == jobs


def test_a_refused_retrieval_shows_failed_jobs_with_the_reason(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    repositories.retrievals.refused(retrieval, "HTTP 422")
    retrieval, now = repositories.retrievals.get(retrieval.request_id), to_text(repositories.clock())

    document = read(retrieval_document(retrieval, CALLBACK_URL, {}))

    assert (document["status"], document["endedAt"]) == ("FAILED", now)
    assert document["jobs"] == [
        {"provider": "gas", "status": "FAILED", "attempts": 0, "endedAt": now, "lastError": "HTTP 422"}
    ]
    assert document["submission"] == {"status": "REFUSED", "attempts": 1, "lastError": "HTTP 422"}


def test_a_cancelled_retrieval_shows_cancelled_jobs(repositories: Repositories) -> None:
    retrieval = repositories.retrievals.request_cancel(repositories.retrieval().request_id)
    repositories.retrievals.cancelled(retrieval)

    document = read(retrieval_document(repositories.retrievals.get(retrieval.request_id), CALLBACK_URL, {}))

    assert document["status"] == "CANCELLED"
    assert [job["status"] for job in document["jobs"]] == ["CANCELLED"]


def test_a_received_outcome_is_shown_as_it_was_sent(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"[1]")
    repositories.requests.close(request.request_id, CloseReason.CANCELLED)
    request = repositories.requests.get(request.request_id)
    sent = read(result_document(request, repositories.requests.load_results(request)))
    retrieval = repositories.retrieval("p0", "p1", request_id=request.request_id)

    repositories.retrievals.receive(retrieval, sent, {"p0": b"[1]"})

    retrieval = repositories.retrievals.get(request.request_id)
    shown = read(retrieval_document(retrieval, CALLBACK_URL, repositories.retrievals.load_results(retrieval)))
    assert shown["jobs"] == sent["jobs"]
    assert [list(job) for job in shown["jobs"]] == [list(job) for job in sent["jobs"]]
    assert (shown["status"], shown["endedAt"]) == ("CANCELLED", sent["endedAt"])


def test_a_summary_shows_the_providers_and_the_status(repositories: Repositories) -> None:
    retrieval = repositories.retrieval("gas", "water")
    repositories.retrievals.refused(retrieval, "HTTP 422")

    summaries = [
        read(retrieval_summary(each)) for each in (retrieval, repositories.retrievals.get(retrieval.request_id))
    ]

    facts = {"requestId": retrieval.request_id, "providers": ["gas", "water"], "createdAt": retrieval.created_at}
    assert summaries[0] == {**facts, "status": "OPEN"}
    assert summaries[1] == {**facts, "status": "FAILED", "endedAt": to_text(repositories.clock())}
