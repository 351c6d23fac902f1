"""Lost responses: boto3 repeats a write whose response is lost, and the repetition must not undo the write."""

import json
from typing import Any

import pytest

from persistence.errors import Conflict
from persistence.records.job import JobStatus
from persistence.records.retrieval import KIND
from tests.persistence.test_retrievals import outcome
from tests.support.repositories import Repositories, incompressible_json, lose_one_answer

LARGE = incompressible_json(400_000)  # bytes


def lose_the_response_about_the_record(repositories: Repositories) -> None:
    """Loses the response to the first update of a retrieval's record, so that boto3 repeats it.

    The updates that store the results come earlier and are left alone.
    """

    def watch(request: Any, **_: object) -> None:
        if json.loads(request.body)["Key"]["sk"]["S"] == KIND and not lost:
            lost.append(KIND)
            lose_one_answer(repositories.dynamodb, "UpdateItem")

    lost: list[str] = []
    repositories.dynamodb.meta.events.register("before-send.dynamodb.UpdateItem", watch)


@pytest.mark.parametrize("result", [b"1", LARGE], ids=["inline", "in parts"])
def test_a_result_is_kept_when_its_write_repeats(repositories: Repositories, result: bytes) -> None:
    request = repositories.open_request()
    attempt = request.attempt(request.jobs[0])
    pending = repositories.requests.pending_result(attempt, result)
    # Storing the result updates an item, too, so it happens before the response is lost.
    repositories.results.store(pending)
    lose_one_answer(repositories.dynamodb, "UpdateItem")

    with pytest.raises(Conflict):
        repositories.requests.finish_job(attempt, pending)

    request = repositories.requests.get(request.request_id)
    assert (request.jobs[0].status, request.jobs[0].attempts) == (JobStatus.DONE, 1)
    assert repositories.requests.load_results(request) == {"p0": result}


def test_an_outcome_is_kept_when_its_write_repeats(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    lose_the_response_about_the_record(repositories)

    assert not repositories.retrievals.receive(retrieval, outcome(retrieval), {"gas": LARGE})

    retrieval = repositories.retrievals.get(retrieval.request_id)
    assert repositories.retrievals.load_results(retrieval) == {"gas": LARGE}


def test_a_failed_attempt_counts_once_when_its_write_repeats(repositories: Repositories) -> None:
    request = repositories.open_request()
    lose_one_answer(repositories.dynamodb, "UpdateItem")

    with pytest.raises(Conflict):
        repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())

    assert repositories.requests.get(request.request_id).jobs[0].attempts == 1


def test_a_request_is_created_once_when_its_write_repeats(repositories: Repositories) -> None:
    lose_one_answer(repositories.dynamodb, "PutItem")

    request = repositories.open_request()

    assert request == repositories.requests.get(request.request_id)
    assert request.version == 1


def test_a_retrieval_is_created_once_when_its_write_repeats(repositories: Repositories) -> None:
    lose_one_answer(repositories.dynamodb, "PutItem")

    retrieval = repositories.retrieval()

    assert retrieval == repositories.retrievals.get(retrieval.request_id)
