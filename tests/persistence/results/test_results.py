"""Results: a result of any size is loaded byte for byte, or reported as lost."""

import json
from datetime import timedelta
from functools import partial

import pytest

from persistence.errors import Conflict, ResultLost
from persistence.results.store import CHUNK_SIZE, INLINE_LIMIT
from tests.support.repositories import Repositories, at_once, conflicts, incompressible_json

FIVE_MIB = 5 * 1024 * 1024  # bytes

TEXTS = [
    b"null",
    b'""',
    b" [ 1 ,\n2 ]\t",
    b'{"b": 1, "a": 2, "b": 3}',
    b"[1e400, 1.0, 1.00, -0, 12345678901234567890.12345678901234567890]",
    b'"\\ud800 \\u00e9 \xc3\xa9"',
    '"\N{PILE OF POO}"'.encode(),
    b"[" + b"0," * 500_000 + b"0]",
    incompressible_json(10_000),
    incompressible_json(1_200_000),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text[:12]!r} of {len(text)}")
def test_a_result_is_loaded_byte_for_byte(repositories: Repositories, text: bytes) -> None:
    request = repositories.ended_request(result=text)

    assert repositories.requests.load_results(request) == {"p0": text}


def test_an_incompressible_five_mib_result_is_loaded_whole(repositories: Repositories) -> None:
    text = incompressible_json(FIVE_MIB)

    request = repositories.ended_request(result=text)

    assert len(text) == FIVE_MIB
    assert len(repositories.parts(request.request_id)) > 1024 * 1024 * 3 // CHUNK_SIZE
    assert repositories.requests.load_results(request) == {"p0": text}


def test_small_results_are_inline_and_large_ones_in_parts(repositories: Repositories) -> None:
    small, large = incompressible_json(INLINE_LIMIT), incompressible_json(2 * INLINE_LIMIT)
    request = repositories.open_request(2)

    repositories.requests.finish_job(request.attempt(request.jobs[0]), small)
    inline = repositories.parts(request.request_id)
    repositories.requests.finish_job(request.attempt(request.jobs[1]), large)

    assert inline == []
    assert len(repositories.parts(request.request_id)) == 1
    assert repositories.requests.load_results(repositories.requests.get(request.request_id)) == {
        "p0": small,
        "p1": large,
    }


def test_each_job_of_a_request_loads_its_own_result(repositories: Repositories) -> None:
    texts = {f"p{number}": incompressible_json(400_000 + number) for number in range(3)}
    request = repositories.open_request(3)

    for job in request.jobs:
        repositories.requests.finish_job(request.attempt(job), texts[job.provider])

    assert repositories.requests.load_results(repositories.requests.get(request.request_id)) == texts


def test_jobs_without_a_result_are_left_out(repositories: Repositories) -> None:
    request = repositories.ended_request(done=1, failed=2)

    assert repositories.requests.load_results(request) == {"p0": b"1"}


@pytest.mark.parametrize("missing", [0, -1])
def test_a_result_without_all_of_its_parts_is_lost(repositories: Repositories, missing: int) -> None:
    request = repositories.ended_request(result=incompressible_json(1_200_000))
    parts = repositories.parts(request.request_id)
    repositories.aggregator_table.delete({"pk": parts[missing]["pk"], "sk": parts[missing]["sk"]})

    with pytest.raises(ResultLost, match=f"{len(parts) - 1} of {len(parts)} parts"):
        repositories.requests.load_results(request)


def test_each_part_has_its_own_partition_key(repositories: Repositories) -> None:
    request = repositories.ended_request(result=incompressible_json(1_200_000))

    keys = [part["pk"] for part in repositories.parts(request.request_id)]

    assert len(keys) == len(set(keys)) == 3
    assert request.request_id not in keys


def test_retry_and_redelivery_write_no_part(repositories: Repositories) -> None:
    request = repositories.ended_request(failed=1, result=incompressible_json(1_200_000))
    repositories.deliveries.succeeded(request)
    written: list[str] = []
    for operation in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"):
        repositories.dynamodb.meta.events.register(
            f"before-send.dynamodb.{operation}",
            lambda request, **_: written.append(json.loads(request.body)["Key"]["sk"]["S"]),
        )

    repositories.deliveries.start_anew(request.request_id)
    repositories.requests.retry(request.request_id, deadline=repositories.clock() + timedelta(hours=1))

    assert written == ["request", "request"]


def test_concurrent_completions_leave_the_parts_of_the_first(repositories: Repositories) -> None:
    request = repositories.open_request()
    texts = [incompressible_json(900_000 + number) for number in range(10)]

    outcomes = at_once(
        partial(repositories.requests.finish_job, request.attempt(request.jobs[0]), text) for text in texts
    )

    assert conflicts(outcomes) == 9
    request = repositories.requests.get(request.request_id)
    assert request.jobs[0].result is not None
    assert len(repositories.parts(request.request_id)) == request.jobs[0].result["parts"]
    assert repositories.requests.load_results(request) == {"p0": texts[outcomes.index(request)]}


def test_a_conflicting_write_keeps_the_existing_result(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), incompressible_json(400_000))

    with pytest.raises(Conflict):
        repositories.requests.finish_job(request.attempt(request.jobs[0]), incompressible_json(500_000))

    results = repositories.requests.load_results(repositories.requests.get(request.request_id))
    assert results == {"p0": incompressible_json(400_000)}
