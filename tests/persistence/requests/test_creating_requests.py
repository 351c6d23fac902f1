"""Creating requests: an id stands for one request, and other content under that id is a conflict."""

from datetime import timedelta
from typing import Any

import pytest

from persistence.errors import Conflict, NotFound
from persistence.records.job import JobStatus
from persistence.records.request import DeliveryStatus, Request, RequestStatus
from persistence.records.timestamps import to_text
from tests.support.repositories import CALLBACK_URL, RETENTION, Repositories, at_once, conflicts, incompressible_json

PROVIDERS = [("gas", "http://providers.test/gas"), ("water", "http://providers.test/water")]


def create(repositories: Repositories, content: Any = None, request_id: str = "r1") -> tuple[Request, bool]:
    deadline = repositories.clock() + timedelta(hours=1)
    return repositories.requests.create(request_id, PROVIDERS, CALLBACK_URL, deadline=deadline, content=content)


def test_a_new_request_and_all_its_jobs_are_open(repositories: Repositories) -> None:
    now = to_text(repositories.clock())

    request, new = create(repositories)

    assert new
    assert request == repositories.requests.get("r1")
    assert [(job.index, job.provider, job.url) for job in request.jobs] == [(0, *PROVIDERS[0]), (1, *PROVIDERS[1])]
    assert {(job.status, job.attempts, job.next_attempt_at, job.ended_at) for job in request.jobs} == {
        (JobStatus.INIT, 0, None, None)
    }
    assert (request.status, request.ended, request.open_jobs) == (RequestStatus.OPEN, False, 2)
    assert (request.created_at, request.updated_at, request.ended_at) == (now, now, None)
    assert request.deadline == to_text(repositories.clock() + timedelta(hours=1))
    assert (request.callback_url, request.revision, request.version) == (CALLBACK_URL, 1, 1)
    assert (request.delivery.status, request.delivery.attempts) == (DeliveryStatus.PENDING, 0)
    assert request.expires_at is None


def test_the_same_id_and_content_return_the_same_request(repositories: Repositories) -> None:
    first, _ = create(repositories, {"a": 1, "b": [2]})
    repositories.clock.advance(minutes=1)

    again, new = create(repositories, {"b": [2], "a": 1})

    assert not new
    assert again == first


def test_creating_again_returns_the_current_record(repositories: Repositories) -> None:
    first, _ = create(repositories)
    repositories.requests.finish_job(first.attempt(first.jobs[0]), b"1")

    again, _ = create(repositories)

    assert again.open_jobs == 1


def test_other_content_under_a_used_id_is_a_conflict(repositories: Repositories) -> None:
    first, _ = create(repositories, {"providers": ["gas"]})

    with pytest.raises(Conflict, match="r1 exists with other content"):
        create(repositories, {"providers": ["water"]})

    assert repositories.requests.get("r1") == first


def test_concurrent_creates_report_one_new_request(repositories: Repositories) -> None:
    outcomes = at_once([lambda: create(repositories)] * 20)

    assert conflicts(outcomes) == 0
    request = repositories.requests.get("r1")
    assert (outcomes.count((request, True)), outcomes.count((request, False))) == (1, 19)


def test_an_expired_request_is_not_found_and_its_id_is_free(repositories: Repositories) -> None:
    request, _ = create(repositories, "old")
    for job in request.jobs:
        repositories.requests.finish_job(request.attempt(job), b"1")
    repositories.deliveries.succeeded(repositories.requests.get("r1"))
    repositories.clock.advance(seconds=RETENTION)

    with pytest.raises(NotFound):
        repositories.requests.get("r1")
    replaced, new = create(repositories, "new")

    assert new
    assert replaced.open_jobs == 2
    assert repositories.requests.get("r1") == replaced


def test_a_request_is_kept_until_the_moment_it_expires(repositories: Repositories) -> None:
    request = repositories.ended_request()
    repositories.deliveries.succeeded(request)
    repositories.clock.advance(seconds=RETENTION - 1)

    assert repositories.requests.get(request.request_id).ended


def test_an_open_request_never_expires(repositories: Repositories) -> None:
    request = repositories.open_request()
    repositories.clock.advance(days=3650)

    assert not repositories.requests.get(request.request_id).ended


def test_an_unknown_request_is_not_found(repositories: Repositories) -> None:
    with pytest.raises(NotFound, match="no request nobody"):
        repositories.requests.get("nobody")


@pytest.mark.parametrize("request_id", ["a", "Z" * 64, "0-_", "-", "__proto__", "request"])
def test_every_id_that_the_api_accepts_can_be_stored(repositories: Repositories, request_id: str) -> None:
    create(repositories, request_id=request_id)

    assert repositories.requests.get(request_id).request_id == request_id


def test_the_largest_request_fits_an_item(repositories: Repositories) -> None:
    # DynamoDB limits items to 400 KB; this record has 50 inline results and each text at its greatest length.
    url, error = "https://providers.test/" + "u" * 1500, "\N{PILE OF POO}" * 1000
    providers = [(f"p{number:063}", url) for number in range(50)]
    deadline = repositories.clock() + timedelta(hours=1)
    request, _ = repositories.requests.create("r1", providers, url, deadline=deadline, content=None)
    for job in request.jobs:
        repositories.requests.record_failure(request.attempt(job), error, repositories.clock())
        repositories.requests.finish_job(request.attempt(job), incompressible_json(1310))

    request = repositories.requests.get("r1")

    assert request.status is RequestStatus.COMPLETE
    assert all(job.result and "inline" in job.result for job in request.jobs)
    assert len(repositories.requests.load_results(request)) == 50
