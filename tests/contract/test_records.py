"""The persistence layer's endpoints: POST, PUT and GET /request?id=123."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests

from persistence.records.timestamps import to_text, utc_now
from tests.contract.api import Api
from tests.support.servers.receiver import Receiver
from tests.support.system import eventually


@pytest.fixture
def record_id() -> str:
    """An unused id."""
    return uuid.uuid4().hex


def _create(aggregator: Api, receiver: Receiver, record_id: str, *providers: str, **members: Any) -> requests.Response:
    body = {"providers": providers, "callbackUrl": receiver.url(f"/{record_id}")} | members
    return aggregator.call("createRecord", params={"id": record_id}, json=body)


def _update(aggregator: Api, record_id: str, provider: str, status: str, **members: Any) -> requests.Response:
    body = {"provider": provider, "status": status} | members
    return aggregator.call("updateJob", params={"id": record_id}, json=body)


def _get(aggregator: Api, record_id: str) -> Any:
    return aggregator.call("getRecord", params={"id": record_id}).json()


def test_creating_a_record_twice_gives_the_same_record(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    first, again = (_create(aggregator, receiver, record_id, "mute") for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["requestId"] == record_id
    assert first.json()["ended"] is False
    assert again.json()["createdAt"] == first.json()["createdAt"]


def test_the_same_id_with_other_content_is_refused(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    assert _create(aggregator, receiver, record_id, "gas").status_code == 409
    assert [job["provider"] for job in _get(aggregator, record_id)["jobs"]] == ["mute"]


def test_a_record_is_the_request_of_the_same_id(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    request = aggregator.call("getRequest", record_id).json()
    same = aggregator.call(
        "createRequest",
        json={"requestId": record_id, "providers": ["mute"], "callbackUrl": receiver.url(f"/{record_id}")},
    )

    assert request["requestId"] == record_id
    assert same.json()["createdAt"] == request["createdAt"]


def test_completing_the_last_job_delivers_the_result(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute", "steady")
    result = {"any": ["JSON", None, 1.5, 12345678901234567890123]}

    first = _update(aggregator, record_id, "mute", "DONE", result=result)
    ended = eventually(lambda: (record := _get(aggregator, record_id))["ended"] and record)

    assert first.json()["jobs"][0]["status"] == "DONE"
    assert first.json()["jobs"][0]["result"] == result
    assert ended["openJobs"] == 0
    (call,) = eventually(lambda: receiver.calls(f"/{record_id}"))
    assert call.method == "POST"


def test_updating_every_job_ends_the_request(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    response = _update(aggregator, record_id, "mute", "FAILED", error="gave up")

    record = response.json()
    assert (record["ended"], record["status"], record["openJobs"]) == (True, "FAILED", 0)
    assert record["jobs"][0]["lastError"] == "gave up"
    assert eventually(lambda: receiver.calls(f"/{record_id}"))
    assert _get(aggregator, record_id)["ended"] is True


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "DONE", "result": {"a": [1, None]}},
        {"status": "DONE", "result": None},
        {"status": "DONE", "result": "x" * 100_000},
        {"status": "DONE"},
        {"status": "FAILED", "error": "gave up"},
        {"status": "FAILED"},
    ],
    ids=["result", "null", "large", "nothing", "error", "no reason"],
)
def test_a_repeated_outcome_gets_the_same_response(
    aggregator: Api, receiver: Receiver, record_id: str, outcome: dict[str, Any]
) -> None:
    _create(aggregator, receiver, record_id, "mute")

    first, again = (_update(aggregator, record_id, "mute", **outcome) for _ in range(2))

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["jobs"] == again.json()["jobs"]


@pytest.mark.parametrize(
    ("outcome", "other"),
    [
        ({"status": "DONE", "result": 1}, {"status": "DONE", "result": 2}),
        ({"status": "DONE", "result": 1}, {"status": "DONE"}),
        ({"status": "DONE", "result": 1}, {"status": "FAILED"}),
        ({"status": "FAILED"}, {"status": "DONE", "result": 1}),
    ],
)
def test_a_different_outcome_is_refused(
    aggregator: Api, receiver: Receiver, record_id: str, outcome: dict[str, Any], other: dict[str, Any]
) -> None:
    _create(aggregator, receiver, record_id, "mute")
    first = _update(aggregator, record_id, "mute", **outcome)

    response = _update(aggregator, record_id, "mute", **other)

    assert response.status_code == 409
    assert _get(aggregator, record_id)["jobs"] == first.json()["jobs"]


def test_simultaneous_equal_outcomes_all_succeed(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: _update(aggregator, record_id, "mute", "DONE", result=[1]), range(8)))

    assert {response.status_code for response in responses} == {200}
    assert eventually(lambda: receiver.calls(f"/{record_id}"))
    assert _get(aggregator, record_id)["openJobs"] == 0


def test_a_cancelled_job_accepts_no_outcome(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")
    aggregator.call("cancelRequest", record_id)

    assert _update(aggregator, record_id, "mute", "DONE", result=1).status_code == 409


def test_a_provider_outside_the_request_is_refused(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    response = _update(aggregator, record_id, "gas", "DONE", result=1)

    assert response.status_code == 422
    assert response.json()["known"] == ["mute"]


def test_an_unknown_record_is_not_found(aggregator: Api, record_id: str) -> None:
    read = aggregator.call("getRecord", params={"id": record_id})

    assert read.status_code == 404
    assert _update(aggregator, record_id, "gas", "DONE").status_code == 404


def test_results_are_stored_whole_up_to_five_megabytes(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")
    limit = 5 * 1024 * 1024

    too_large = _update(aggregator, record_id, "mute", "DONE", result="x" * (limit - 1))
    largest = _update(aggregator, record_id, "mute", "DONE", result="x" * (limit - 2))

    assert too_large.status_code == 422
    assert str(limit) in too_large.json()["detail"]
    assert largest.json()["jobs"][0]["result"] == "x" * (limit - 2)


@pytest.mark.parametrize(
    "result",
    [
        "1.0000000000000000001",
        "-0",
        "1.10",
        "12345678901234567890123",
        "1E-400",
        '{"twice": 1, "twice": 2.0}',
        r'"\u00e9 \ud83d\ude00"',
        '[ 1.0 , {"a" : null} ]',
        '"' + "x" * 100_000 + '1.0"',
    ],
    ids=lambda text: text[:20],
)
def test_a_result_keeps_the_text_of_the_update(
    aggregator: Api, receiver: Receiver, record_id: str, result: str
) -> None:
    _create(aggregator, receiver, record_id, "mute")
    body = f'{{"provider": "mute", "status": "DONE", "result": {result}}}'.encode()

    def update() -> requests.Response:
        headers = {"Content-Type": "application/json"}
        return aggregator.call("updateJob", params={"id": record_id}, data=body, headers=headers)

    first, again = update(), update()

    assert (first.status_code, again.status_code) == (200, 200)
    for response in (first, again, aggregator.call("getRecord", params={"id": record_id})):
        assert f'"result":{result}' in response.text
    [call] = eventually(lambda: receiver.calls(f"/{record_id}"))
    assert f'"result":{result}'.encode() in call.body


@pytest.mark.parametrize("result", ["1E400", "-1e999", '"\\ud800"', "NaN", "01", "[" * 500 + "]" * 500])
def test_a_result_that_is_not_strict_json_is_refused(
    aggregator: Api, receiver: Receiver, record_id: str, result: str
) -> None:
    _create(aggregator, receiver, record_id, "mute")
    body = f'{{"provider": "mute", "status": "DONE", "result": {result}}}'.encode()

    response = aggregator.call(
        "updateJob", params={"id": record_id}, data=body, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400
    assert _get(aggregator, record_id)["jobs"][0]["status"] == "INIT"


def test_results_are_compared_by_value_not_by_spelling(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    _create(aggregator, receiver, record_id, "mute")

    def update(result: str) -> int:
        body = f'{{"provider": "mute", "status": "DONE", "result": {result}}}'.encode()
        headers = {"Content-Type": "application/json"}
        return aggregator.call("updateJob", params={"id": record_id}, data=body, headers=headers).status_code

    assert [update(text) for text in ('{"a":1.10,"b":-0}', '{"b": 0, "a": 11e-1}')] == [200, 200]
    assert [update(text) for text in ('{"a":1.1000000000000000001,"b":0}', '{"a":true,"b":0}', '{"a":1.1}')] == [
        409
    ] * 3


def test_a_record_may_be_sent_again_after_its_deadline(aggregator: Api, receiver: Receiver, record_id: str) -> None:
    soon = to_text(utc_now() + timedelta(seconds=1))
    first = _create(aggregator, receiver, record_id, "mute", deadline=soon)
    eventually(lambda: to_text(utc_now()) > soon)

    again = _create(aggregator, receiver, record_id, "mute", deadline=soon)
    other = _create(aggregator, receiver, record_id, "steady", deadline=soon)
    new = _create(aggregator, receiver, f"{record_id}-2", "mute", deadline=soon)

    assert (first.status_code, again.status_code, other.status_code, new.status_code) == (201, 200, 422, 422)
    assert again.json()["createdAt"] == first.json()["createdAt"]
