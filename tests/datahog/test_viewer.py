"""The viewer: redirects other names of this machine to one origin, and sends security headers."""

import re

import pytest
from flask.testing import FlaskClient

import specs
from datahog import viewer
from specs import swagger_ui


def _client(origin: str) -> FlaskClient:
    return viewer.create_app({}, {}, origin).test_client()


@pytest.mark.parametrize(
    ("typed", "origin", "shown"),
    [
        ("http://localhost:8080", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:8080", "http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://localhost:8080", "http://localhost:8080"),
        # The local end of a tunnel, on another port.
        ("http://localhost:9090", "http://127.0.0.1:8080", "http://127.0.0.1:9090"),
        ("http://localhost", "http://127.0.0.1:8080", "http://127.0.0.1"),
    ],
)
def test_another_name_of_this_machine_redirects_to_the_origin(typed: str, origin: str, shown: str) -> None:
    answer = _client(origin).get("/?urls.primaryName=client", base_url=typed)

    assert answer.status_code == 302
    assert answer.headers["Location"] == f"{shown}/?urls.primaryName=client"


@pytest.mark.parametrize(
    ("typed", "origin"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://192.0.2.7:8080", "http://127.0.0.1:8080"),
        # A proxy in front of the viewer may use this name.
        ("http://localhost:8080", "https://apis.example.com"),
    ],
)
def test_other_names_are_not_redirected(typed: str, origin: str) -> None:
    assert _client(origin).get("/ui/vendor/swagger-ui.css", base_url=typed).status_code == 200


def test_an_unknown_document_is_not_found() -> None:
    assert _client("http://127.0.0.1:8080").get("/specs/nope.yaml", base_url="http://127.0.0.1").status_code == 404


def test_the_page_may_load_its_own_files_and_call_the_apis_only() -> None:
    documents = {name: specs.path(name) for name in (specs.CLIENT, specs.AGGREGATOR)}
    servers = {"client": "http://127.0.0.1:3100/api/v1", "aggregator": "https://aggregator.example.com/api/v1"}
    client = viewer.create_app(documents, servers, "http://127.0.0.1:8080").test_client()

    page = client.get("/", base_url="http://127.0.0.1:8080")

    policy = page.headers["Content-Security-Policy"]
    # The policy forbids inline scripts, and the page has none.
    assert "script-src 'self';" in policy
    assert re.findall(r"<script(?![^>]* src=)", page.text) == []
    assert "connect-src 'self' http://127.0.0.1:3100 https://aggregator.example.com;" in policy
    assert "default-src 'none'" in policy
    for response in (page, client.get("/ui/vendor/swagger-ui.css", base_url="http://127.0.0.1:8080")):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"


def test_markup_in_names_is_escaped() -> None:
    page = swagger_ui.page("<b>", {'"><script>': "x.json"})

    assert "&lt;b&gt;" in page
    assert '"><script>' not in page
