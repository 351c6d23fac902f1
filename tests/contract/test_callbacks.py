"""The client's callback endpoint accepts a signed result once, for its own request only."""

import json
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from outbound.webhook_signer import Signer
from persistence.records.timestamps import to_text, utc_now
from tests.contract.api import Api
from tests.support.repositories import at_once, incompressible_json
from tests.support.system import SECRET

_SIGNER = Signer([SECRET])
_STRANGER = Signer(["whsec_" + "c29tZWJvZHkgZWxzZSdzIHNlY3JldCwgbm90IG91cnM="])

Sign = Callable[[bytes], dict[str, str]]


@pytest.fixture
def request_id(client: Api) -> str:
    """An open request."""
    found: str = client.call("createRequest", json={"providers": ["mute"]}).json()["requestId"]
    return found


def _result(request_id: str, **members: Any) -> dict[str, Any]:
    now = to_text(utc_now())
    job = {"provider": "mute", "url": "http://x/", "status": "DONE", "attempts": 1, "endedAt": now, "result": {"a": 1}}
    document = {"requestId": request_id, "status": "COMPLETE", "revision": 1, "jobs": [job], "callbackUrl": "http://x/"}
    return document | {"createdAt": now, "endedAt": now} | members


def _signed(body: bytes) -> dict[str, str]:
    return _SIGNER.headers("msg_1", utc_now(), body)


def _post(client: Api, request_id: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    headers = {"Content-Type": "application/json"} | headers
    return client.call("receiveCallback", request_id, data=body, headers=headers)


def _without(name: str) -> Sign:
    return lambda body: {key: value for key, value in _signed(body).items() if key != name}


def _with(**changed: str) -> Sign:
    return lambda body: _signed(body) | {f"webhook-{name}": value for name, value in changed.items()}


def _at(offset: timedelta) -> Sign:
    return lambda body: _SIGNER.headers("msg_1", utc_now() + offset, body)


_REFUSED: dict[str, Sign] = {
    "no headers at all": lambda _: {},
    "no id": _without("webhook-id"),
    "no timestamp": _without("webhook-timestamp"),
    "no signature": _without("webhook-signature"),
    "signed with another secret": lambda body: _STRANGER.headers("msg_1", utc_now(), body),
    "invented signature": _with(signature="v1,AAAA"),
    "signature is not base64": _with(signature="v1,!!!"),
    "another version": lambda body: {n: v.replace("v1,", "v2,") for n, v in _signed(body).items()},
    "stale": _at(timedelta(minutes=-6)),
    "in the future": _at(timedelta(minutes=6)),
    "another id": _with(id="msg_2"),
    "another time": lambda body: _signed(body) | {"webhook-timestamp": str(int(utc_now().timestamp()) + 1)},
    "another body": lambda body: _signed(body + b" "),
}


@pytest.mark.parametrize("sign", _REFUSED.values(), ids=_REFUSED)
def test_a_callback_with_a_wrong_signature_is_refused(client: Api, request_id: str, sign: Sign) -> None:
    body = json.dumps(_result(request_id)).encode()

    response = _post(client, request_id, body, sign(body))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Webhook-Signature"
    assert client.call("getRequest", request_id).json()["status"] == "OPEN"


def test_a_signed_callback_completes_the_request(client: Api, request_id: str) -> None:
    body = json.dumps(_result(request_id)).encode()

    response = _post(client, request_id, body, _signed(body))

    assert response.status_code == 204
    document = client.call("getRequest", request_id).json()
    assert document["status"] == "COMPLETE"
    assert document["jobs"][0]["result"] == {"a": 1}


def test_one_valid_signature_of_several_suffices(client: Api, request_id: str) -> None:
    body = json.dumps(_result(request_id)).encode()
    headers = _signed(body)

    response = _post(
        client, request_id, body, headers | {"webhook-signature": "v1,AAAA " + headers["webhook-signature"]}
    )

    assert response.status_code == 204


def test_a_repeated_callback_is_acknowledged_and_counts_once(client: Api, request_id: str) -> None:
    body = json.dumps(_result(request_id)).encode()
    _post(client, request_id, body, _signed(body))
    first = client.call("getRequest", request_id).json()
    other = json.dumps(_result(request_id, status="CANCELLED")).encode()

    again = [_post(client, request_id, each, _signed(each)).status_code for each in (body, body, other)]

    assert again == [204, 204, 204]
    assert client.call("getRequest", request_id).json() == first


def test_only_a_later_revision_replaces_another(client: Api, request_id: str) -> None:
    later = json.dumps(_result(request_id, revision=2, status="PARTIAL")).encode()
    earlier = json.dumps(_result(request_id, revision=1)).encode()

    for body in (earlier, later, earlier):
        assert _post(client, request_id, body, _signed(body)).status_code == 204

    assert client.call("getRequest", request_id).json()["status"] == "PARTIAL"


def test_the_result_of_another_request_is_refused(client: Api, request_id: str) -> None:
    body = json.dumps(_result("another")).encode()

    response = _post(client, request_id, body, _signed(body))

    assert response.status_code == 422
    assert "another" in response.json()["detail"]
    assert client.call("getRequest", request_id).json()["status"] == "OPEN"


def test_the_result_of_an_unknown_request_is_not_found(client: Api) -> None:
    body = json.dumps(_result("unknown")).encode()

    assert _post(client, "unknown", body, _signed(body)).status_code == 404


@pytest.mark.parametrize(
    "members",
    [
        {"status": "OPEN"},
        {"revision": 0},
        {"revision": 1.0},
        {"jobs": []},
        {"jobs": 1},
        {"jobs": [1]},
        {"endedAt": "now"},
        {"more": 1},
    ],
)
def test_a_signed_body_that_is_no_result_is_refused(client: Api, request_id: str, members: dict[str, Any]) -> None:
    body = json.dumps(_result(request_id, **members)).encode()

    assert _post(client, request_id, body, _signed(body)).status_code == 400


@pytest.mark.parametrize(
    "result",
    [
        '{"twice": 1, "twice": 2}',
        "[" * 500 + "]" * 500,
        "12345678901234567890123456789012345678901234567890",
        "12345678901234567.890123",
        "1e-400",
        "-0",
        '"\\u0000"',
        r'"<\/script> \u00e9"',
        "null",
    ],
    ids=["duplicate name", "deeply nested", "huge", "many digits", "tiny", "minus zero", "NUL", "escapes", "null"],
)
def test_a_result_keeps_the_text_that_the_provider_sent(client: Api, request_id: str, result: str) -> None:
    body = json.dumps(_result(request_id)).replace('{"a": 1}', result).encode()

    assert _post(client, request_id, body, _signed(body)).status_code == 204
    assert f'"result":{result}' in client.call("getRequest", request_id).text


@pytest.mark.parametrize(
    "result",
    ["1e400", '"\\ud800"', "01", "[" * 501 + "]" * 501, "[" * 5000 + "]" * 5000],
    ids=["infinite", "lone surrogate", "not a number", "501 levels", "5000 levels"],
)
def test_a_malformed_or_too_deep_result_is_refused(client: Api, request_id: str, result: str) -> None:
    body = json.dumps(_result(request_id)).replace('{"a": 1}', result).encode()

    assert _post(client, request_id, body, _signed(body)).status_code == 400
    assert client.call("getRequest", request_id).json()["status"] == "OPEN"


def test_results_of_many_megabytes_are_stored(client: Api, request_id: str) -> None:
    document = _result(request_id)
    document["jobs"][0]["result"] = "x" * 5_000_000
    body = json.dumps(document).encode()

    assert _post(client, request_id, body, _signed(body)).status_code == 204
    assert client.call("getRequest", request_id).json()["jobs"][0]["result"] == "x" * 5_000_000


@pytest.mark.parametrize(("copies", "size"), [(2, 100), (20, 100), (2, 4_000_000), (6, 4_000_000)])
def test_simultaneous_copies_are_all_acknowledged(client: Api, request_id: str, copies: int, size: int) -> None:
    document = _result(request_id)
    document["jobs"][0]["result"] = json.loads(incompressible_json(size))
    body = json.dumps(document).encode()

    responses = at_once([lambda: _post(client, request_id, body, _signed(body)).status_code] * copies)

    assert responses == [204] * copies
    assert client.call("getRequest", request_id).json()["jobs"][0]["result"] == document["jobs"][0]["result"]


def test_the_latest_of_simultaneous_revisions_counts(client: Api, request_id: str) -> None:
    documents = [_result(request_id, revision=number) for number in (3, 1, 4, 2)]
    for document in documents:
        document["jobs"][0]["result"] = document["revision"]
    bodies = [json.dumps(document).encode() for document in documents]

    responses = at_once([lambda b=b: _post(client, request_id, b, _signed(b)).status_code for b in bodies])  # type: ignore[misc]

    assert responses == [204] * 4
    assert client.call("getRequest", request_id).json()["jobs"][0]["result"] == 4


def test_a_large_result_of_an_unknown_request_is_not_read(client: Api) -> None:
    parts = urlsplit(client.url)
    head = f"POST {parts.path}/callbacks/unknown HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    signed = "".join(f"{name}: {value}\r\n" for name, value in _signed(b"").items())

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(f"{head}{signed}Content-Length: {250_000_000}\r\n\r\n".encode())
        response = connection.recv(4096)

    assert response.startswith(b"HTTP/1.1 404")


def test_a_forged_callback_is_refused_before_parsing(client: Api, request_id: str) -> None:
    for body in (b"{}", b"[1", b"{'a': 1}"):
        response = _post(client, request_id, body, _STRANGER.headers("msg_1", utc_now(), body))

        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Webhook-Signature"
