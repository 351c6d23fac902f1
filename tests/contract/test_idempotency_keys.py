"""Idempotency-Key: the same key and body get the first response again; another body is refused."""

import uuid
from typing import Any

import pytest
import requests

from tests.contract.api import Api
from tests.support.repositories import at_once
from tests.support.servers.receiver import Receiver
from tests.support.system import System, eventually


@pytest.fixture
def key() -> str:
    """An unused key."""
    return str(uuid.uuid4())


@pytest.fixture
def body(receiver: Receiver) -> dict[str, Any]:
    """The body of a new request."""
    return {"providers": ["mute"], "callbackUrl": receiver.url("/with-key")}


def _create(aggregator: Api, key: str, body: dict[str, Any]) -> requests.Response:
    return aggregator.call("createRequest", json=body, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_repeat_the_response(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    first = _create(aggregator, key, body)
    aggregator.call("cancelRequest", first.json()["requestId"])

    again = _create(aggregator, key, body)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]


def test_the_order_of_members_does_not_change_a_body(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    first = _create(aggregator, key, body)

    again = _create(aggregator, key, dict(reversed(body.items())))

    assert again.json() == first.json()


def test_another_body_with_the_same_key_is_refused(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    _create(aggregator, key, body)

    response = _create(aggregator, key, body | {"providers": ["gas"]})

    assert response.status_code == 422
    assert response.json()["type"].endswith(":idempotency-key-reused")


def test_another_key_creates_another_request(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    one, other = _create(aggregator, key, body), _create(aggregator, key + "-2", body)

    assert one.json()["requestId"] != other.json()["requestId"]


def test_simultaneous_calls_with_one_key_create_one_request(
    system: System, aggregator: Api, key: str, body: dict[str, Any]
) -> None:
    responses = [
        response
        for response in at_once([lambda: _create(aggregator, key, body)] * 20)
        if isinstance(response, requests.Response)
    ]
    accepted = [response for response in responses if response.status_code == 202]
    held = [response for response in responses if response.status_code != 202]

    assert len(responses) == 20
    assert len({response.json()["requestId"] for response in accepted}) == 1
    assert {response.json()["type"].rsplit(":", 1)[1] for response in held} <= {"request-under-way"}
    assert all(response.status_code == 409 and "Retry-After" in response.headers for response in held)
    # A retry after the 409 gets the first response.
    again = [_create(aggregator, key, body) for _ in held]
    assert all((response.status_code, response.json()) == (202, accepted[0].json()) for response in again)
    request_id = accepted[0].json()["requestId"]
    eventually(lambda: f"{request_id} mute: " in system.log("worker"))
    assert system.log("worker").count(f"{request_id} mute: ") == 1


def test_a_refused_request_leaves_the_key_free(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    refused = _create(aggregator, key, body | {"providers": ["no-such"]})

    assert refused.status_code == 422
    assert _create(aggregator, key, body).status_code == 202


def test_a_key_may_have_255_characters(aggregator: Api, key: str, body: dict[str, Any]) -> None:
    assert _create(aggregator, key.ljust(255, "~"), body).status_code == 202


@pytest.mark.parametrize("wrong", ["x" * 256, "", "a b", "ключ".encode(), b"a\xff"])
def test_an_invalid_key_is_refused(aggregator: Api, body: dict[str, Any], wrong: str) -> None:
    response = _create(aggregator, wrong, body)

    assert response.status_code == 400
    assert "Idempotency-Key" in response.json()["detail"]
