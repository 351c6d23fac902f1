"""Resuming a store: after DynamoDB refuses a part, the same process or another continues with that part."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

import persistence.dynamodb.table
from persistence.errors import Unavailable
from persistence.records.job import JobStatus
from tests.persistence.test_retrievals import outcome
from tests.support.repositories import Repositories, incompressible_json

# Stored in four parts.
TEXT = incompressible_json(1_900_000)


class Writes:
    """Counts the writes by key and makes DynamoDB refuse some of them."""

    def __init__(self, dynamodb: Any) -> None:
        self.parts: Counter[str] = Counter()
        self.refused: str | None = None
        self.code = "InternalServerError"
        self._events = dynamodb.meta.events
        self._events.register("before-send.dynamodb.PutItem", self._put)
        self._events.register("before-send.dynamodb.UpdateItem", self._update)

    @contextmanager
    def refusing(self, pattern: str, code: str = "InternalServerError") -> Iterator[None]:
        """Refuses each write with this pattern in its key or update expression."""
        self.refused, self.code = pattern, code
        yield
        self.refused = None

    def _put(self, request: Any, **_: object) -> None:
        key = json.loads(request.body)["Item"]["pk"]["S"]
        self._maybe_refuse(key, "PutItem")
        if "#result#" in key:
            self.parts[key] += 1

    def _update(self, request: Any, **_: object) -> None:
        self._maybe_refuse(request.body.decode(), "UpdateItem")

    def _maybe_refuse(self, text: str, operation: str) -> None:
        if self.refused and re.search(self.refused, text):
            raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, operation)


@pytest.fixture
def writes(repositories: Repositories) -> Writes:
    return Writes(repositories.dynamodb)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses (seconds) that the store made; none of them takes time."""
    made: list[float] = []
    monkeypatch.setattr(persistence.dynamodb.table, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize("refused", ["#0000", "#0002", "#0003", r"SET #stored", r"#openJobs"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "made again"])
def test_a_resumed_store_writes_each_part_once(
    repositories: Repositories, writes: Writes, refused: str, kept: bool
) -> None:
    request = repositories.open_request()
    attempt = request.attempt(request.jobs[0])
    result = repositories.requests.pending_result(attempt, TEXT) if kept else TEXT
    for _ in range(3):
        with writes.refusing(refused), pytest.raises(Unavailable):
            repositories.requests.finish_job(attempt, result)

    repositories.requests.finish_job(attempt, result)

    # A new process cannot know whether the last part was written, so it writes that part again.
    repeated = 3 if refused.startswith("SET") and not kept else 0
    assert (len(writes.parts), writes.parts.total()) == (4, 4 + repeated)
    request = repositories.requests.get(request.request_id)
    assert request.jobs[0].status is JobStatus.DONE
    assert repositories.requests.load_results(request) == {"p0": TEXT}


def test_a_repeated_callback_writes_only_the_missing_parts(repositories: Repositories, writes: Writes) -> None:
    retrieval = repositories.retrieval("gas", "water")
    results = {"gas": TEXT, "water": incompressible_json(1_900_001)}
    for refused in ("#0001", "#0003", "#outcome"):
        with writes.refusing(refused), pytest.raises(Unavailable):
            repositories.retrievals.receive(retrieval, outcome(retrieval), results)

    assert repositories.retrievals.receive(retrieval, outcome(retrieval), results)

    assert (len(writes.parts), writes.parts.total()) == (8, 8)
    retrieval = repositories.retrievals.get(retrieval.request_id)
    assert repositories.retrievals.load_results(retrieval) == results


def test_jobs_with_the_same_text_have_separate_results(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    for job in request.jobs:
        repositories.requests.finish_job(request.attempt(job), TEXT)

    assert len(repositories.parts(request.request_id)) == 8


def test_a_throttled_part_is_retried_with_pauses(
    repositories: Repositories, writes: Writes, pauses: list[float]
) -> None:
    request = repositories.open_request()

    with writes.refusing("#0002", "ProvisionedThroughputExceededException"), pytest.raises(Unavailable):
        repositories.requests.finish_job(request.attempt(request.jobs[0]), TEXT)

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert len(writes.parts) == 2


def test_a_failing_engine_raises_without_a_pause(
    repositories: Repositories, writes: Writes, pauses: list[float]
) -> None:
    request = repositories.open_request()

    with writes.refusing("#0002"), pytest.raises(Unavailable):
        repositories.requests.finish_job(request.attempt(request.jobs[0]), TEXT)

    assert pauses == []
