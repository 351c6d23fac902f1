"""The aggregator's requests: created, read, waited for, cancelled, retried."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests

from persistence.records.timestamps import to_text, utc_now
from tests.contract.api import Api, read_until_ended
from tests.support.repositories import at_once
from tests.support.servers.receiver import Receiver
from tests.support.system import System, eventually


def _create(aggregator: Api, receiver: Receiver, *providers: str, **members: Any) -> str:
    body = {"providers": providers, "callbackUrl": receiver.url(f"/{uuid.uuid4().hex}")} | members
    request_id: str = aggregator.call("createRequest", json=body).json()["requestId"]
    return request_id


def test_the_known_providers_are_listed_by_name(aggregator: Api) -> None:
    response = aggregator.call("listProviders")

    names = [provider["name"] for provider in response.json()["providers"]]
    assert names == sorted(names)
    assert {"gas", "steady", "mute", "broken"} <= set(names)


def test_a_providers_query_string_is_not_shown(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "keyed")

    request = aggregator.call("getRequest", request_id, params={"wait": 10})

    assert receiver.calls("/keyed?key=hunter2")
    assert "hunter2" not in request.text + aggregator.call("listProviders").text
    assert request.json()["jobs"][0]["url"] == receiver.url("/keyed")


def test_an_accepted_request_is_found_at_its_location(aggregator: Api, receiver: Receiver) -> None:
    callback_url = receiver.url("/accepted")

    response = aggregator.call("createRequest", json={"providers": ["mute", "steady"], "callbackUrl": callback_url})

    document = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/v1/requests/{document['requestId']}"
    assert document["status"] == "OPEN"
    assert [(job["provider"], job["url"]) for job in document["jobs"]] == [
        ("mute", receiver.url("/mute")),
        ("steady", receiver.url("/steady")),
    ]
    assert document["callbackUrl"] == callback_url
    read = aggregator.call("getRequest", response.headers["Location"].rsplit("/", 1)[1])
    assert read.json()["requestId"] == document["requestId"]


def test_an_ended_request_carries_unchanged_results(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "steady")

    document = read_until_ended(aggregator, request_id)

    assert document["status"] == "COMPLETE"
    assert document["openJobs"] == 0
    assert document["jobs"][0]["result"] == [{"amount": 30.0}]


def test_results_can_be_left_out(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "steady")
    read_until_ended(aggregator, request_id)

    response = aggregator.call("getRequest", request_id, params={"results": "false"})

    assert response.json()["jobs"][0]["status"] == "DONE"
    assert "result" not in response.json()["jobs"][0]


def test_a_waiting_read_returns_when_the_request_ends(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "mute")
    began = time.monotonic()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(aggregator.call, "getRequest", request_id, params={"wait": 30})
        aggregator.call("cancelRequest", request_id)

    assert waiting.result().json()["status"] == "CANCELLED"
    assert "Retry-After" not in waiting.result().headers
    assert time.monotonic() - began < 15


def test_a_waiting_read_returns_when_the_wait_expires(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "mute")
    began = time.monotonic()

    response = aggregator.call("getRequest", request_id, params={"wait": 1})

    assert response.json()["status"] == "OPEN"
    assert int(response.headers["Retry-After"]) >= 1
    assert 1 <= time.monotonic() - began < 10


def test_a_waiting_job_shows_its_error_and_next_attempt(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "mute")

    def job() -> Any:
        found = aggregator.call("getRequest", request_id).json()["jobs"][0]
        return found["attempts"] and found

    waiting = eventually(job)

    assert waiting["status"] == "INIT"
    assert "503" in waiting["lastError"]
    assert waiting["nextAttemptAt"] > to_text(utc_now() + timedelta(minutes=50))


@pytest.mark.parametrize("operation", ["getRequest", "cancelRequest", "redeliverRequest", "retryRequest"])
def test_an_unknown_request_is_not_found(aggregator: Api, operation: str) -> None:
    response = aggregator.call(operation, "unknown")

    assert response.status_code == 404
    assert response.json()["type"].endswith(":not-found")
    assert "unknown" in response.json()["detail"]


def test_cancelling_keeps_results_and_cancels_open_jobs(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "steady", "mute")
    eventually(lambda: aggregator.call("getRequest", request_id).json()["openJobs"] == 1)

    first, again = (aggregator.call("cancelRequest", request_id) for _ in range(2))

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["status"] == again.json()["status"] == "CANCELLED"
    assert [job["status"] for job in first.json()["jobs"]] == ["DONE", "CANCELLED"]
    assert first.json()["jobs"][0]["result"] == [{"amount": 30.0}]
    assert first.json()["endedAt"] == again.json()["endedAt"]


def test_a_complete_request_cannot_be_cancelled(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "steady")
    read_until_ended(aggregator, request_id)

    response = aggregator.call("cancelRequest", request_id)

    assert response.status_code == 409
    assert aggregator.call("getRequest", request_id).json()["status"] == "COMPLETE"


def test_retrying_runs_only_failed_jobs_in_a_new_revision(aggregator: Api, receiver: Receiver) -> None:
    request_id = _create(aggregator, receiver, "steady", "broken")
    partial = read_until_ended(aggregator, request_id)

    response = aggregator.call("retryRequest", request_id)
    again = read_until_ended(aggregator, request_id)

    assert partial["status"] == again["status"] == "PARTIAL"
    assert response.status_code == 202
    assert [job["status"] for job in response.json()["jobs"]] == ["DONE", "INIT"]
    assert (partial["revision"], response.json()["revision"], again["revision"]) == (1, 2, 2)
    assert again["jobs"][0] == partial["jobs"][0]


@pytest.mark.parametrize("provider", ["steady", "mute"])
def test_a_request_without_failures_cannot_be_retried(aggregator: Api, receiver: Receiver, provider: str) -> None:
    request_id = _create(aggregator, receiver, provider)
    if provider == "steady":
        read_until_ended(aggregator, request_id)

    assert aggregator.call("retryRequest", request_id).status_code == 409


def test_an_id_is_reusable_with_the_same_content_only(aggregator: Api, receiver: Receiver) -> None:
    body = {"requestId": uuid.uuid4().hex, "providers": ["mute"], "callbackUrl": receiver.url("/same")}

    first, again = (aggregator.call("createRequest", json=body) for _ in range(2))
    other = aggregator.call("createRequest", json=body | {"providers": ["steady"]})

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["createdAt"] == again.json()["createdAt"]
    assert other.status_code == 409
    assert other.json()["type"].endswith(":conflict")


def test_simultaneous_equal_requests_create_one_set_of_jobs(
    system: System, aggregator: Api, receiver: Receiver
) -> None:
    request_id = uuid.uuid4().hex
    body = {"requestId": request_id, "providers": ["mute"], "callbackUrl": receiver.url("/at-once")}

    responses = at_once([lambda: aggregator.call("createRequest", json=body)] * 20)

    created = [response for response in responses if isinstance(response, requests.Response)]
    assert [response.status_code for response in created] == [202] * 20
    assert len({response.json()["createdAt"] for response in created}) == 1
    eventually(lambda: f"{request_id} mute: " in system.log("worker"))
    assert len(aggregator.call("getRequest", request_id).json()["jobs"]) == 1
    assert system.log("worker").count(f"{request_id} mute: ") == 1


def test_unknown_providers_are_refused_with_the_known_ones(api: Api) -> None:
    response = api.call("createRequest", json=_body(api, ["gas", "no-such"]))

    assert response.status_code == 422
    assert response.json()["type"].endswith(":unknown-provider")
    assert "no-such" in response.json()["detail"]
    assert {"gas", "steady", "mute"} <= set(response.json()["known"])


def test_naming_a_provider_twice_is_refused(api: Api) -> None:
    response = api.call("createRequest", json=_body(api, ["gas", "gas"]))

    assert response.status_code == 400
    assert "providers" in response.json()["detail"]


@pytest.mark.parametrize(
    "deadline",
    [
        pytest.param(to_text(utc_now() - timedelta(seconds=1)), id="a second ago"),
        pytest.param(to_text(utc_now() + timedelta(days=31)), id="in 31 days"),
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "2026-12-31T23:59:60Z",
    ],
)
def test_a_deadline_out_of_range_is_refused(api: Api, deadline: str) -> None:
    response = api.call("createRequest", json=_body(api, ["gas"]) | {"deadline": deadline})

    assert response.status_code == 422
    assert response.json()["type"].endswith(":unprocessable")
    assert "deadline" in response.json()["detail"]


@pytest.mark.parametrize("key", [None, uuid.uuid4().hex], ids=["no key", "a key"])
def test_a_request_may_be_sent_again_after_its_deadline(aggregator: Api, receiver: Receiver, key: str | None) -> None:
    soon = to_text(utc_now() + timedelta(seconds=1))
    body = {
        "requestId": uuid.uuid4().hex,
        "providers": ["mute"],
        "callbackUrl": receiver.url("/late"),
        "deadline": soon,
    }
    first = aggregator.call("createRequest", json=body)
    eventually(lambda: to_text(utc_now()) > soon)

    again = aggregator.call("createRequest", json=body, headers={"Idempotency-Key": key} if key else None)
    stranger = aggregator.call("createRequest", json=body | {"requestId": uuid.uuid4().hex})

    assert (first.status_code, again.status_code, stranger.status_code) == (202, 202, 422)
    assert again.json()["createdAt"] == first.json()["createdAt"]


def test_a_deadline_in_thirty_days_allows_for_clock_skew(api: Api) -> None:
    deadline = to_text(utc_now() + timedelta(days=30, seconds=50))

    assert api.call("createRequest", json=_body(api, ["gas"]) | {"deadline": deadline}).status_code == 202


def test_a_request_ends_by_its_deadline(aggregator: Api, receiver: Receiver) -> None:
    soon = to_text(utc_now() + timedelta(seconds=1))
    request_id = _create(aggregator, receiver, "steady", "mute", deadline=soon)

    document = read_until_ended(aggregator, request_id)

    assert document["status"] == "PARTIAL"
    assert [job["status"] for job in document["jobs"]] == ["DONE", "FAILED"]


def _body(api: Api, providers: list[str]) -> dict[str, Any]:
    return {"providers": providers} | ({"callbackUrl": "http://127.0.0.1:9/"} if api.name == "aggregator" else {})
