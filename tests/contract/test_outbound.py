"""Forbidden callback URLs are refused on creation, and no id can inject a header."""

from typing import Any

import pytest
import requests

from tests.contract.api import Api


def _create(aggregator: Api, operation: str, **members: Any) -> requests.Response:
    body = {"providers": ["steady"], "callbackUrl": "http://127.0.0.1:9/"} | members
    return aggregator.call(operation, json=body, params={"id": "outbound-1"} if operation == "createRecord" else {})


@pytest.mark.parametrize("operation", ["createRequest", "createRecord"])
@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("http://10.0.0.1/", 422, "10.0.0.1 is in a private network"),
        ("http://169.254.169.254/latest", 422, "169.254.169.254 is link-local, where cloud metadata is"),
        ("http://[::ffff:10.0.0.1]/", 422, "[::ffff:10.0.0.1] is in a private network"),
        ("http://[64:ff9b::a00:1]/", 422, "[64:ff9b::a00:1] is in a private network"),
        ("http://[ff02::1]/", 422, "[ff02::1] is multicast"),
        ("http://2130706433/", 422, "write an IPv4 address as four decimal numbers"),
        ("http://0x7f.0.0.1/", 422, "write an IPv4 address as four decimal numbers"),
        ("http://user:hunter2@example.com/", 422, "a URL with a user or a password in it"),
        ("http://example.com:65536/", 422, "port 65536"),
        ("http://127%2e0.0.1/", 422, "a host is written in ASCII"),
        ("ftp://example.com/", 400, "callbackUrl"),
        ("http://ex\u00e4mple.com/", 400, "callbackUrl"),
        ("http://example.com/\r\nX-Other: y", 400, "callbackUrl"),
    ],
)
def test_a_forbidden_callback_url_is_refused_at_once(
    aggregator: Api, operation: str, url: str, status: int, said: str
) -> None:
    response = _create(aggregator, operation, callbackUrl=url)

    assert response.status_code == status
    assert said in response.json()["detail"]
    assert "hunter2" not in response.text
    if status == 422:
        assert response.json()["detail"].startswith("callbackUrl: not allowed: ")


@pytest.mark.parametrize("request_id", ["a\r\nX-Other: b", "a\nb", "a b", "a\u0000b"])
def test_an_id_cannot_inject_a_header(aggregator: Api, request_id: str) -> None:
    assert _create(aggregator, "createRequest", requestId=request_id).status_code == 400
