"""Lost answers: boto3 sends a write again when its answer is lost, so that it meets its own doing."""

import pytest

from persistence.errors import Conflict
from persistence.records import JobStatus
from tests.persistence.test_retrievals import outcome
from tests.repositories import Repositories, incompressible_json, lose_one_answer

LARGE = incompressible_json(400_000)


@pytest.mark.parametrize("result", [b"1", LARGE], ids=["inline", "in parts"])
def test_a_result_that_was_written_down_is_not_discarded(repositories: Repositories, result: bytes) -> None:
    request = repositories.open_request()
    lose_one_answer(repositories.dynamodb, "UpdateItem")

    with pytest.raises(Conflict):
        repositories.requests.finish_job(request.attempt(request.jobs[0]), result)

    request = repositories.requests.get(request.request_id)
    assert (request.jobs[0].status, request.jobs[0].attempts) == (JobStatus.DONE, 1)
    assert repositories.requests.load_results(request) == {"p0": result}


def test_an_outcome_that_was_written_down_is_not_discarded(repositories: Repositories) -> None:
    retrieval = repositories.retrieval()
    lose_one_answer(repositories.dynamodb, "UpdateItem")

    repositories.retrievals.receive(retrieval, outcome(retrieval), {"gas": LARGE})

    retrieval = repositories.retrievals.get(retrieval.request_id)
    assert repositories.retrievals.load_results(retrieval) == {"gas": LARGE}


def test_a_failed_attempt_is_counted_once(repositories: Repositories) -> None:
    request = repositories.open_request()
    lose_one_answer(repositories.dynamodb, "UpdateItem")

    with pytest.raises(Conflict):
        repositories.requests.record_failure(request.attempt(request.jobs[0]), "timeout", repositories.clock())

    assert repositories.requests.get(request.request_id).jobs[0].attempts == 1


def test_a_request_is_created_once(repositories: Repositories) -> None:
    lose_one_answer(repositories.dynamodb, "PutItem")

    request = repositories.open_request()

    assert request == repositories.requests.get(request.request_id)
    assert request.version == 1


def test_a_retrieval_is_created_once(repositories: Repositories) -> None:
    lose_one_answer(repositories.dynamodb, "PutItem")

    retrieval = repositories.retrieval()

    assert retrieval == repositories.retrievals.get(retrieval.request_id)
