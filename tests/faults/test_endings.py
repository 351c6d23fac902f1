"""Requests that end early or a second time: at the deadline, by cancellation, after a retry of failed jobs."""

import json
from datetime import UTC, datetime, timedelta

import specs
from tests.support.load import accepted_callbacks
from tests.support.providers import path_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually


def test_at_the_deadline_a_request_ends_partial_with_its_results(fragile: System, receiver: Receiver) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b'"there"'))
    receiver.answers(path_of("failing"), Answer(500, body=b"#fail"))
    deadline = datetime.now(UTC) + timedelta(seconds=2)

    document = fragile.read_until_ended(fragile.ask("steady", "failing", deadline=deadline.isoformat()))

    there, failed = document["jobs"]
    assert document["status"] == "PARTIAL"
    assert there["result"] == "there"
    assert failed["status"] == "FAILED"
    assert failed["attempts"] > 1
    assert "#fail" in failed["lastError"]


def test_a_late_response_does_not_change_a_cancelled_request(fragile: System, receiver: Receiver) -> None:
    path = path_of("late")
    receiver.answers(path, Answer(200, body=b'"late"', delay=1.5))
    request_id = fragile.ask("late")
    eventually(lambda: receiver.calls(path))

    cancelled = fragile.call(specs.CLIENT, "cancelRequest", {"requestId": request_id})
    ended = fragile.read_until_ended(request_id)
    eventually(lambda: f"{request_id} late: " in fragile.log("worker"))

    assert cancelled.status_code == 202
    assert ended["status"] == "CANCELLED"
    for document in (fragile.read(request_id), fragile.look(request_id)):
        assert document["status"] == "CANCELLED"
        assert document["jobs"][0]["status"] == "CANCELLED"
        assert "result" not in document["jobs"][0]


def test_a_retry_runs_only_failed_jobs_and_delivers_a_revision(fragile: System, receiver: Receiver) -> None:
    receiver.answers(path_of("once"), Answer(200, body=b'"first"'), Answer(200, body=b'"second"'))
    receiver.answers(path_of("twice"), Answer(500), Answer(500), Answer(200, body=b'"at last"'))
    request_id = fragile.hand_over("once", "twice", callback_url=receiver.url("/hooks/retry"))
    eventually(lambda: receiver.calls("/hooks/retry"))

    answer = fragile.order(request_id, "retry")

    assert answer.status_code == 202
    first, second = eventually(lambda: len(calls := receiver.calls("/hooks/retry")) > 1 and calls)
    before, after = json.loads(first.body), json.loads(second.body)
    assert (before["status"], before["revision"]) == ("PARTIAL", 1)
    assert (after["status"], after["revision"]) == ("COMPLETE", 2)
    assert [job["result"] for job in after["jobs"]] == ["first", "at last"]
    assert first.webhook_id != second.webhook_id


def test_the_client_accepts_the_later_revision(fragile: System, receiver: Receiver) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b"1"))
    receiver.answers(path_of("twice"), Answer(500), Answer(500), Answer(200, body=b"2"))
    request_id = fragile.ask("steady", "twice")
    partial = fragile.read_until_ended(request_id)

    fragile.order(request_id, "retry")
    eventually(lambda: fragile.read(request_id)["status"] == "COMPLETE")

    assert partial["status"] == "PARTIAL"
    assert [job["result"] for job in fragile.read(request_id)["jobs"]] == [1, 2]
    assert accepted_callbacks(fragile)[request_id] == 2
