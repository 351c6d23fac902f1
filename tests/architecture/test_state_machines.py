"""The state diagrams of docs/architecture.md have the states of the enums and the transitions of the code."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from moto import mock_aws

from persistence.errors import Conflict
from persistence.records.job import Job, JobStatus
from persistence.records.request import CloseReason, DeliveryStatus, Request, RequestStatus
from persistence.records.retrieval import Retrieval, SubmissionStatus
from tests.support.repositories import Repositories

_PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
_ENUMS: tuple[type[StrEnum], ...] = (RequestStatus, JobStatus, DeliveryStatus, SubmissionStatus)
_EDGE = "[*]"

Transition = tuple[str, str]


def _transitions(enum: type[StrEnum]) -> set[Transition]:
    """The arrows of the enum's diagram, the first one after the enum's name."""
    after = _PAGE.split(f"(`{enum.__name__}`)")[1]
    diagram = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", after, re.DOTALL)[0]
    return set(re.findall(r"^ +(\S+) --> (\w+|\[\*\])", diagram, re.MULTILINE))


@pytest.mark.parametrize("enum", _ENUMS, ids=lambda enum: enum.__name__)
def test_each_diagram_has_the_states_of_its_enum(enum: type[StrEnum]) -> None:
    transitions = _transitions(enum)

    assert {state for pair in transitions for state in pair} - {_EDGE} == {str(member) for member in enum}
    # The first member is the only initial state; all others are final states.
    first, *others = [str(member) for member in enum]
    assert {state for source, state in transitions if source == _EDGE} == {first}
    assert {source for source, state in transitions if state == _EDGE} == set(others)


@pytest.fixture
def repositories() -> Iterator[Repositories]:
    with mock_aws():
        yield Repositories(
            boto3.client("dynamodb", region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
        )


def test_the_aggregators_transitions_match_the_diagrams(repositories: Repositories) -> None:
    seen = {RequestStatus: set[Transition](), JobStatus: set[Transition](), DeliveryStatus: set[Transition]()}
    known: set[tuple[object, ...]] = set()
    paths: list[tuple[_Step, ...]] = [()]
    while paths:
        path = paths.pop()
        for step in _STEPS:
            request = repositories.open_request(2)
            for earlier in path:
                request = _take(earlier, repositories, request)
            after = _take(step, repositories, request)
            if after is request:
                continue
            seen[RequestStatus] |= _moves([(request, after)])
            seen[JobStatus] |= _moves(zip(request.jobs, after.jobs, strict=True))
            if request.ended:
                seen[DeliveryStatus] |= _moves([(request.delivery, after.delivery)])
            state = (after.status, tuple(job.status for job in after.jobs), after.delivery.status, after.ended)
            if state not in known:
                known.add(state)
                paths.append((*path, step))

    assert len(known) > 20
    for enum, transitions in seen.items():
        assert transitions == {pair for pair in _transitions(enum) if _EDGE not in pair}, enum.__name__


def test_submission_transitions_match_the_diagram(repositories: Repositories) -> None:
    retrievals, later = repositories.retrievals, repositories.clock() + timedelta(seconds=5)
    steps: list[Callable[[Retrieval], object]] = [
        lambda retrieval: retrievals.submission_failed(retrieval, "HTTP 503", later),
        retrievals.accepted,
        lambda retrieval: retrievals.refused(retrieval, "HTTP 422"),
    ]
    seen: set[Transition] = set()
    for step in steps:
        before = repositories.retrieval()
        step(before)
        seen |= _moves([(before.submission, retrievals.get(before.request_id).submission)])

    assert seen == {pair for pair in _transitions(SubmissionStatus) if _EDGE not in pair}


class _Step(NamedTuple):
    name: str
    take: Callable[[Repositories, Request], object]


def _open_job(request: Request) -> Job:
    for job in request.jobs:
        if job.status is JobStatus.INIT:
            return job
    raise Conflict("no job is open")


def _close_at_deadline(repositories: Repositories, request: Request) -> None:
    repositories.clock.advance(hours=2)
    try:
        repositories.requests.close(request.request_id, CloseReason.DEADLINE)
    finally:
        repositories.clock.advance(hours=-2)


def _delivery_step(step: Callable[[Repositories, Request], object]) -> Callable[[Repositories, Request], object]:
    """A step that workers take only for requests that have ended."""

    def take(repositories: Repositories, request: Request) -> None:
        if not request.ended:
            raise Conflict("the request is open")
        step(repositories, request)

    return take


_STEPS = (
    _Step("done", lambda r, request: r.requests.finish_job(request.attempt(_open_job(request)), b"1")),
    _Step("given up", lambda r, request: r.requests.fail_job(request.attempt(_open_job(request)), "HTTP 500")),
    _Step(
        "attempt failed",
        lambda r, request: r.requests.record_failure(request.attempt(_open_job(request)), "HTTP 500", r.clock()),
    ),
    _Step("cancelled", lambda r, request: r.requests.close(request.request_id, CloseReason.CANCELLED)),
    _Step("deadline", _close_at_deadline),
    _Step("retried", lambda r, request: r.requests.retry(request.request_id, deadline=r.clock() + timedelta(hours=1))),
    _Step("delivered", _delivery_step(lambda r, request: r.deliveries.succeeded(request))),
    _Step(
        "delivery attempt failed", _delivery_step(lambda r, q: r.deliveries.attempt_failed(q, "HTTP 500", r.clock()))
    ),
    _Step("delivery given up", _delivery_step(lambda r, request: r.deliveries.attempt_failed(request, "410", None))),
    _Step("redelivered", lambda r, request: r.deliveries.start_anew(request.request_id)),
)


def _take(step: _Step, repositories: Repositories, request: Request) -> Request:
    """The request after the step, or the same object when the step is refused."""
    try:
        step.take(repositories, request)
    except Conflict:
        return request
    return repositories.requests.get(request.request_id)


def _moves(pairs: Iterable[tuple[Any, Any]]) -> set[Transition]:
    """The transitions between pairs of records; a counted attempt is one, even to the same state."""
    moved: set[Transition] = set()
    for before, after in pairs:
        counted = getattr(after, "attempts", 0) > getattr(before, "attempts", 0)
        if before.status is not after.status or counted:
            moved.add((str(before.status), str(after.status)))
    return moved
