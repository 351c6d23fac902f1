"""The aggregator posts results as the callback declares, and posts them again on request."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from outbound.webhook_signer import Signer
from persistence.records.timestamps import to_text, utc_now
from tests.contract.api import Api, validator
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import SECRET, eventually


@pytest.fixture
def path(receiver: Receiver) -> str:
    """A callback path that only this test uses."""
    return f"/{uuid.uuid4().hex}"


def _create(aggregator: Api, receiver: Receiver, path: str, *providers: str) -> str:
    body = {"providers": providers, "callbackUrl": receiver.url(path)}
    request_id: str = aggregator.call("createRequest", json=body).json()["requestId"]
    return request_id


def _delivered(aggregator: Api, request_id: str, status: str) -> dict[str, Any]:
    def poll() -> Any:
        document = aggregator.call("getRequest", request_id).json()
        return document["delivery"]["status"] == status and document

    document: dict[str, Any] = eventually(poll)
    return document


def test_the_result_is_posted_as_declared_and_signed(aggregator: Api, receiver: Receiver, path: str) -> None:
    request_id = _create(aggregator, receiver, path, "steady", "broken")

    document = _delivered(aggregator, request_id, "SUCCEEDED")

    (call,) = receiver.calls(path)
    result = json.loads(call.body)
    schema = {"$ref": "#/components/schemas/Result"}
    assert [error.message for error in validator(aggregator.document, schema).iter_errors(result)] == []
    assert result == {name: document[name] for name in result}
    assert result["status"] == "PARTIAL"
    Signer([SECRET]).verify({name.lower(): value for name, value in call.headers.items()}, call.body)
    assert call.webhook_id == document["delivery"]["webhookId"]


def test_a_redelivery_ignores_the_idempotency_key(aggregator: Api, receiver: Receiver, path: str) -> None:
    request_id = _create(aggregator, receiver, path, "steady")
    _delivered(aggregator, request_id, "SUCCEEDED")

    for number in (2, 3):
        response = aggregator.call("redeliverRequest", request_id, headers={"Idempotency-Key": "the-same"})

        assert response.status_code == 202
        assert response.json()["delivery"]["status"] == "PENDING"
        _delivered(aggregator, request_id, "SUCCEEDED")
        assert len(receiver.calls(path)) == number

    assert len({call.webhook_id for call in receiver.calls(path)}) == 1


def test_an_open_request_cannot_be_redelivered(aggregator: Api, receiver: Receiver, path: str) -> None:
    request_id = _create(aggregator, receiver, path, "mute")

    response = aggregator.call("redeliverRequest", request_id)

    assert response.status_code == 409
    assert receiver.calls(path) == []


def test_failed_deliveries_since_a_time_are_posted_again(aggregator: Api, receiver: Receiver, path: str) -> None:
    receiver.answers(path, Answer(410))
    since = to_text(utc_now())
    request_ids = {_create(aggregator, receiver, path, "steady") for _ in range(3)}
    for request_id in request_ids:
        _delivered(aggregator, request_id, "FAILED")
    receiver.answers(path, Answer(204))

    response = aggregator.call("redeliverFailed", json={"since": since})

    assert response.status_code == 202
    assert set(response.json()["requestIds"]) >= request_ids
    assert response.json()["truncated"] is False
    for request_id in request_ids:
        _delivered(aggregator, request_id, "SUCCEEDED")


def test_failures_before_the_given_time_stay_untouched(aggregator: Api, receiver: Receiver, path: str) -> None:
    receiver.answers(path, Answer(410))
    request_id = _create(aggregator, receiver, path, "steady")
    _delivered(aggregator, request_id, "FAILED")

    response = aggregator.call("redeliverFailed", json={"since": to_text(utc_now() + timedelta(minutes=1))})

    assert response.json() == {"requestIds": [], "truncated": False}
    assert len(receiver.calls(path)) == 1


def test_an_invalid_time_is_refused(aggregator: Api) -> None:
    response = aggregator.call("redeliverFailed", json={"since": "2026-12-31T23:59:60Z"})

    assert response.status_code == 422
    assert "since" in response.json()["detail"]
