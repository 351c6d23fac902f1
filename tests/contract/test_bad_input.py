"""Malformed input gets a problem document with the reason, and the API keeps working."""

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from handlers.middleware import request_body
from persistence.results import json_text
from tests.contract.api import Api, check_problem
from tests.support.system import API_KEY, eventually

_JSON = {"Content-Type": "application/json"}
_MB = 1_000_000
_HEAD = f"Host: x\r\nX-API-Key: {API_KEY}\r\n"


def _ask(api: Api, body: Any, **arguments: Any) -> requests.Response:
    return api.call("createRequest", data=body, **({"headers": _JSON} | arguments))


def _valid(api: Api, **members: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"providers": ["steady"]}
    return body | ({"callbackUrl": "http://127.0.0.1:9/"} if api.name == "aggregator" else {}) | members


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b'{"providers": NaN}', "not JSON"),
        (b'{"providers": Infinity}', "not JSON"),
        (b'{"providers": 1e999}', "not JSON"),
        (b'{"providers": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"providers": 9007199254740993999999999}', "providers"),
        (b'{"providers": ["\x00"]}', "not JSON"),
        (b'{"providers": ["gas\\u0000"]}', "providers/0"),
        (b'{"providers": ["\\ud800"]}', "not JSON"),
        (b'{"providers": ["gas\\n"]}', "providers/0"),
        (b'{"providers": ["\xff\xfe"]}', "not JSON"),
        ('{"providers": []}'.encode("utf-16"), "not JSON"),
        (b'\xef\xbb\xbf{"providers": []}', "not JSON"),
        (b'{"providers": ["gas"], "providers": ["water"]}', "two members named 'providers'"),
        (b'{"x": {"y": [{"z": 1, "z": 1}]}}', "two members named 'z'"),
        (b"[" * 30_000 + b"]" * 30_000, "not JSON"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "nested"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"' + b"x" * 60_000 + b'"', "object"),
        (b'{"providers": []}', "providers"),
        (b'{"providers": "gas"}', "providers"),
        (b'{"providers": ["GAS"]}', "providers/0"),
        (b'{"providers": ["gas"], "deadline": "tomorrow"}', "deadline"),
        (b'{"providers": ["gas"], "deadline": "2026-02-30T00:00:00Z"}', "deadline"),
        (b'{"providers": ["gas"], "' + b"x" * 5000 + b'": 1}', "dditional properties"),
        (b'{"providers": ["gas"]} {"providers": ["gas"]}', "not JSON"),
        (json.dumps({"providers": [f"p{number}" for number in range(51)]}).encode(), "providers"),
    ],
)
def test_a_malformed_body_is_refused_with_the_reason(api: Api, body: bytes, said: str) -> None:
    # The aggregator's bodies need a callback URL as well.
    if api.name == "aggregator":
        body = body.replace(b'{"providers"', b'{"callbackUrl": "http://127.0.0.1:9/", "providers"', 1)

    response = _ask(api, body)

    assert response.status_code == 400
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a/b", "http://", "http://a b/", "http://a/\n", "http://[::1", "//a/b", "http://" + "a" * 2048],
)
def test_an_invalid_callback_url_is_refused(aggregator: Api, url: str) -> None:
    response = _ask(aggregator, json.dumps(_valid(aggregator, callbackUrl=url)))

    assert response.status_code == 400
    assert "callbackUrl" in response.json()["detail"]


@pytest.mark.parametrize("request_id", ["", "a" * 65, "a" * 2000, "a b", "ä", "a/b", "a\n", "a\u0000"])
def test_an_invalid_request_id_is_refused(aggregator: Api, request_id: str) -> None:
    response = _ask(aggregator, json.dumps(_valid(aggregator, requestId=request_id)))

    assert response.status_code == 400
    assert "requestId" in response.json()["detail"]


@pytest.mark.parametrize(
    "path", ["a" * 65, "a" * 2000, "a%20b", "%00", "a%00", "%ff", "%C3%A4", "a%3Fb", "a;b", "a.b", "%25", "+"]
)
def test_an_invalid_id_in_a_path_is_refused(api: Api, path: str) -> None:
    response = api.call("getRequest", path)

    assert response.status_code == 400
    assert "requestId" in response.json()["detail"]


@pytest.mark.parametrize("path", ["a%2Fb", "a%0A", "..%2f..%2fetc"])
def test_an_id_that_changes_the_path_is_not_found(api: Api, path: str) -> None:
    assert api.call("getRequest", path).status_code == 404


def test_a_percent_encoded_id_is_decoded(aggregator: Api) -> None:
    request_id = _ask(aggregator, json.dumps(_valid(aggregator))).json()["requestId"]
    encoded = "".join(f"%{ord(character):02x}" for character in request_id)
    parts = urlsplit(aggregator.url)

    # A raw socket, because an HTTP client would decode the path first.
    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(f"GET {parts.path}/requests/{encoded} HTTP/1.1\r\n{_HEAD}Connection: close\r\n\r\n".encode())
        response = _read_all(connection)

    assert response.startswith(b"HTTP/1.1 200")
    assert request_id.encode() in response


@pytest.mark.parametrize("record_id", ["", "a" * 65, "a b", "a\n", "\n", "ä", "a\u0000", "a/b"])
def test_an_invalid_id_in_a_query_is_refused(aggregator: Api, record_id: str) -> None:
    response = aggregator.call("getRecord", params={"id": record_id})

    assert response.status_code == 400
    assert "query parameter id" in response.json()["detail"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nope=1", "there is no query parameter 'nope'"),
        ("wait[]=1", "there is no query parameter 'wait[]'"),
        ("WAIT=1", "there is no query parameter 'WAIT'"),
        ("wait=1&wait=1", "wait: there is more than one value"),
        ("wait=31", "wait: the value is greater than the maximum of 30"),
        ("wait=-1", "wait: the value is less than the minimum of 0"),
        ("wait=", "wait: the value is not of type integer"),
        ("wait=1.0", "wait: the value is not of type integer"),
        ("wait=1_0", "wait: the value is not of type integer"),
        ("wait=+1", "wait: the value is not of type integer"),
        ("wait=%2B1", "wait: the value is not of type integer"),
        ("wait=01", "wait: the value is not of type integer"),
        ("wait=1%0A", "wait: the value is not of type integer"),
        ("wait=%EF%BC%91", "wait: the value is not of type integer"),
        ("wait=true", "wait: the value is not of type integer"),
        ("wait=" + "9" * 5000, "wait: the value is not of type integer"),
        ("wait=%ff", "not percent-encoded UTF-8"),
        ("%00=1", "there is no query parameter"),
    ],
)
def test_a_query_that_breaks_its_declaration_is_refused(api: Api, query: str, said: str) -> None:
    response = api.call("getRequest", "x", params=query)

    assert response.status_code == 400
    assert said in response.json()["detail"]


@pytest.mark.parametrize("value", ["1", "yes", "True", "FALSE", "", "null"])
def test_a_boolean_other_than_true_or_false_is_refused(aggregator: Api, value: str) -> None:
    response = aggregator.call("getRequest", "x", params={"results": value})

    assert response.status_code == 400
    assert "results" in response.json()["detail"]


def test_a_repeated_header_is_refused(aggregator: Api) -> None:
    parts = urlsplit(aggregator.url)
    body = json.dumps(_valid(aggregator)).encode()
    head = f"POST {parts.path}/requests HTTP/1.1\r\n{_HEAD}Connection: close\r\nContent-Type: application/json\r\n"
    keys = "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(f"{head}{keys}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        response = _read_all(connection)

    assert response.startswith(b"HTTP/1.1 400")
    assert b"Idempotency-Key: there is more than one value" in response


@pytest.mark.parametrize(
    "media_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/problem+json"],
)
def test_another_media_type_is_refused(api: Api, media_type: str | None) -> None:
    response = _ask(api, json.dumps(_valid(api)).encode(), headers={"Content-Type": media_type})

    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize("coding", ["gzip", "identity, gzip", "x" * 1000])
def test_a_compressed_body_is_refused(api: Api, coding: str) -> None:
    body = gzip.compress(json.dumps(_valid(api)).encode())

    response = _ask(api, body, headers=_JSON | {"Content-Encoding": coding})

    assert response.status_code == 415
    assert "Content-Encoding" in response.json()["detail"]
    assert response.headers["Accept-Encoding"] == "identity"


def test_the_identity_encoding_is_accepted(api: Api) -> None:
    assert _ask(api, json.dumps(_valid(api)), headers=_JSON | {"Content-Encoding": "Identity"}).status_code == 202


@pytest.mark.parametrize("media_type", ["APPLICATION/JSON", "application/json;charset=utf-8", "application/json ; x=y"])
def test_every_spelling_of_the_json_type_is_accepted(api: Api, media_type: str) -> None:
    headers = {"Content-Type": media_type}

    assert _ask(api, json.dumps(_valid(api)), headers=headers).status_code == 202
    assert _ask(api, json.dumps(_valid(api, nope=1)), headers=headers).status_code == 400


@pytest.mark.parametrize(
    "media_type", ["multipart/form-data", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded", "x;="]
)
def test_an_undeclared_body_is_not_read(api: Api, media_type: str) -> None:
    response = api.call("cancelRequest", "unknown", data=b"x" * _MB, headers={"Content-Type": media_type})

    assert response.status_code == 404


def _pieces() -> Iterator[bytes]:
    for _ in range(10):
        yield b"x" * _MB


@pytest.mark.parametrize("body", [b"x" * 10 * _MB, _pieces], ids=["sized", "chunked"])
def test_a_body_of_ten_megabytes_is_refused(api: Api, body: Any) -> None:
    response = _ask(api, body() if callable(body) else body)

    assert response.status_code == 413
    assert str(request_body.DEFAULT_LIMIT) in response.json()["detail"]


def test_an_excessive_content_length_is_refused_at_once(api: Api) -> None:
    parts = urlsplit(api.url)
    head = f"POST {parts.path}/requests HTTP/1.1\r\n{_HEAD}Content-Type: application/json\r\n"

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(f"{head}Content-Length: {10**12}\r\nExpect: 100-continue\r\n\r\n".encode())
        response = connection.recv(4096)

    assert response.startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_accepted(api: Api) -> None:
    raw = json.dumps(_valid(api)).encode()

    response = _ask(api, (raw[start : start + 7] for start in range(0, len(raw), 7)))

    assert response.status_code == 202


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_truncated_body_leaves_the_api_working(api: Api, framing: str) -> None:
    parts = urlsplit(api.url)
    head = f"POST {parts.path}/requests HTTP/1.1\r\n{_HEAD}Content-Type: application/json\r\n{framing}\r\n\r\n"

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(head.encode() + b'3e8\r\n{"providers": [')
        connection.shutdown(socket.SHUT_WR)
        _read_all(connection)

    assert _ask(api, json.dumps(_valid(api))).status_code == 202


@pytest.mark.parametrize("deep", [499, 500, 1000, 5000])
def test_a_result_is_accepted_up_to_the_nesting_limit(aggregator: Api, deep: int) -> None:
    record_id = f"deep-{deep}"
    aggregator.call("createRecord", params={"id": record_id}, json=_valid(aggregator, providers=["mute"]))
    result = "[" * deep + "]" * deep

    response = aggregator.call(
        "updateJob",
        params={"id": record_id},
        data=f'{{"provider": "mute", "status": "DONE", "result": {result}}}',
        headers=_JSON,
    )

    assert response.status_code == (200 if deep < json_text.DEEPEST else 400)


def test_the_most_nested_result_reaches_the_client(client: Api, aggregator: Api) -> None:
    deepest = json_text.DEEPEST - 1
    request_id = client.call("createRequest", json={"providers": ["mute"]}).json()["requestId"]
    eventually(lambda: client.call("getRequest", request_id).json()["submission"]["status"] == "ACCEPTED")
    result = "[" * deepest + "]" * deepest

    aggregator.call(
        "updateJob",
        params={"id": request_id},
        data=f'{{"provider": "mute", "status": "DONE", "result": {result}}}',
        headers=_JSON,
    )

    document = eventually(lambda: (found := client.call("getRequest", request_id).json())["status"] != "OPEN" and found)
    assert document["jobs"][0]["result"] == json.loads(result)


def test_bytes_that_are_not_http_are_refused(api: Api) -> None:
    parts = urlsplit(api.url)

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        head, _, body = _read_all(connection).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["type"] == "urn:datahog:problem:bad-request"


def test_a_websocket_is_not_opened(api: Api) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }

    assert api.call("getRequest", "missing", headers=upgrade).status_code == 404


def test_a_problem_names_the_fault_without_echoing_input(api: Api) -> None:
    problem = check_problem(_ask(api, json.dumps(_valid(api, nope="x" * 5000))))

    assert problem["type"] == "urn:datahog:problem:bad-request"
    assert problem["title"] == "Bad request"
    assert "nope" in problem["detail"]
    assert "xxx" not in problem["detail"]


def _read_all(connection: socket.socket) -> bytes:
    response = b""
    while piece := connection.recv(65_536):
        response += piece
    return response


@pytest.mark.parametrize(
    "piece", [b"X-More: " + b"x" * 1000 + b"\r\n", b"x" * 1000], ids=["many headers", "one header"]
)
def test_an_endless_head_is_refused(api: Api, piece: bytes) -> None:
    parts = urlsplit(api.url)

    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-First: ")
        # Far more than the limit; the server may reset the connection while the test is still sending.
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50_000_000:
                connection.sendall(piece * 100)
                sent += len(piece) * 100

    assert sent < 50_000_000
    assert api.call("listRequests" if api.name == "client" else "listProviders").status_code == 200


def test_a_body_sent_with_its_head_is_not_counted_as_head(aggregator: Api) -> None:
    result = ["x" * 190_000]
    with requests.Session() as session:
        for _ in range(3):
            request_id = aggregator.call("createRequest", json=_valid(aggregator)).json()["requestId"]
            url = f"{aggregator.url}/request?id={request_id}"
            body = {"provider": "steady", "status": "DONE", "result": result}
            response = session.put(url, json=body, headers={"X-API-Key": API_KEY}, timeout=30)
            assert response.status_code in (200, 409), response.text
