"""The client's requests: created, read, waited for, listed, cancelled."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.api import Api, read_until_ended
from tests.support.system import eventually


def _ask(client: Api, *providers: str) -> str:
    request_id: str = client.call("createRequest", json={"providers": providers}).json()["requestId"]
    return request_id


def test_an_accepted_request_has_its_location_and_callback(client: Api) -> None:
    response = client.call("createRequest", json={"providers": ["mute", "gas"]})

    document = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/v1/requests/{document['requestId']}"
    assert document["status"] == "OPEN"
    assert document["submission"] == {"status": "PENDING", "attempts": 0}
    assert [job["provider"] for job in document["jobs"]] == ["mute", "gas"]
    assert document["callbackUrl"] == f"{client.url}/callbacks/{document['requestId']}"


def test_a_submitted_request_shows_its_progress(client: Api) -> None:
    request_id = _ask(client, "mute")

    def job() -> Any:
        found = client.call("getRequest", request_id).json()["jobs"][0]
        return found["attempts"] and found

    assert "nextAttemptAt" in eventually(job)
    assert client.call("getRequest", request_id).json()["submission"]["status"] == "ACCEPTED"


def test_an_ended_request_carries_its_results(client: Api) -> None:
    document = read_until_ended(client, _ask(client, "steady", "broken"))

    assert document["status"] == "PARTIAL"
    assert [job["status"] for job in document["jobs"]] == ["DONE", "FAILED"]
    assert document["jobs"][0]["result"] == [{"amount": 30.0}]
    assert "lastError" in document["jobs"][1]


def test_a_waiting_read_returns_when_the_request_ends(client: Api) -> None:
    request_id = _ask(client, "mute")
    began = time.monotonic()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.call, "getRequest", request_id, params={"wait": 30})
        client.call("cancelRequest", request_id)

    assert waiting.result().json()["status"] == "CANCELLED"
    assert "Retry-After" not in waiting.result().headers
    assert time.monotonic() - began < 15


def test_a_waiting_read_returns_when_the_wait_expires(client: Api) -> None:
    request_id = _ask(client, "mute")
    began = time.monotonic()

    response = client.call("getRequest", request_id, params={"wait": 1})

    assert response.json()["status"] == "OPEN"
    assert int(response.headers["Retry-After"]) >= 1
    assert 1 <= time.monotonic() - began < 10


def test_cancelling_is_pending_and_then_complete(client: Api) -> None:
    request_id = _ask(client, "mute")

    under_way = client.call("cancelRequest", request_id)
    done = eventually(lambda: (a := client.call("cancelRequest", request_id)).status_code == 200 and a)

    assert under_way.status_code == 202
    assert under_way.json()["status"] == "OPEN"
    assert done.json()["status"] == "CANCELLED"
    assert [job["status"] for job in done.json()["jobs"]] == ["CANCELLED"]


def test_cancelling_reaches_the_aggregator(client: Api, aggregator: Api) -> None:
    request_id = _ask(client, "mute")
    eventually(lambda: client.call("getRequest", request_id).json()["submission"]["status"] == "ACCEPTED")

    client.call("cancelRequest", request_id)

    eventually(lambda: aggregator.call("getRequest", request_id).json()["status"] == "CANCELLED")


def test_a_complete_request_cannot_be_cancelled(client: Api) -> None:
    request_id = _ask(client, "steady")
    read_until_ended(client, request_id)

    assert client.call("cancelRequest", request_id).status_code == 409
    assert client.call("getRequest", request_id).json()["status"] == "COMPLETE"


@pytest.mark.parametrize("operation", ["getRequest", "cancelRequest"])
def test_an_unknown_request_is_not_found(client: Api, operation: str) -> None:
    response = client.call(operation, "unknown")

    assert response.status_code == 404
    assert "unknown" in response.json()["detail"]


def test_the_pages_list_every_request_once_newest_first(client: Api) -> None:
    asked = [_ask(client, "steady") for _ in range(5)]
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"nextCursor": None}

    while "nextCursor" in page and not {row["requestId"] for row in found} >= set(asked):
        page = client.call("listRequests", params={"limit": 2, "cursor": page["nextCursor"]}).json()
        assert len(page["requests"]) <= 2
        found += page["requests"]

    ids = [row["requestId"] for row in found]
    assert len(ids) == len(set(ids))
    assert [request_id for request_id in ids if request_id in asked] == asked[::-1]
    assert [row["createdAt"] for row in found] == sorted((row["createdAt"] for row in found), reverse=True)


def test_the_last_page_has_no_cursor(client: Api) -> None:
    _ask(client, "steady")
    page = client.call("listRequests", params={"limit": 100}).json()

    while "nextCursor" in page:
        assert len(page["requests"]) == 100
        page = client.call("listRequests", params={"limit": 100, "cursor": page["nextCursor"]}).json()

    assert len(page["requests"]) <= 100


@pytest.mark.parametrize("cursor", ["x", "====", "MSM", "eyJhZnRlciI6IjEifQ", "MiM" * 170])
def test_an_unknown_cursor_gives_a_list_or_a_refusal(client: Api, cursor: str) -> None:
    response = client.call("listRequests", params={"cursor": cursor})

    if response.status_code == 200:
        assert isinstance(response.json()["requests"], list)
    else:
        assert response.status_code == 400
        assert "cursor" in response.json()["detail"]
