"""CORS in a real browser: only pages of the viewer may call the APIs."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Error, Page

import specs
from specs.operations import operations, target
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import AUTHORIZED, System

_FETCH = """async ([url, options]) => {
    const response = await fetch(url, options)
    return {status: response.status, headers: Object.fromEntries(response.headers), body: await response.json()}
}"""
_NEW = '{"providers": ["gas"]}'


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """A page of another origin, which differs in its port only."""
    with Receiver() as serving:
        serving.answers("/", Answer(200, {"Content-Type": "text/html"}, b"<title>A stranger's page</title>"))
        yield serving.url("/")


def _fetch(page: Page, url: str, **options: Any) -> dict[str, Any]:
    response: dict[str, Any] = page.evaluate(_FETCH, [url, options])
    return response


def _read(system: System, name: str) -> str:
    operation_id = {specs.CLIENT: "listRequests", specs.AGGREGATOR: "listProviders"}[name]
    return system.settings.api_urls[name] + target(name, operation_id)


@pytest.mark.parametrize("name", [specs.CLIENT, specs.AGGREGATOR])
def test_a_foreign_page_can_read_neither_api(page: Page, system: System, stranger: str, name: str) -> None:
    page.goto(stranger)
    assert page.title() == "A stranger's page"

    # The browser sends the first but hides its response from the page; it does not send the second.
    for headers in ({}, AUTHORIZED):
        with pytest.raises(Error, match="Failed to fetch"):
            _fetch(page, _read(system, name), headers=headers)


def test_a_foreign_page_cannot_create_a_request(page: Page, system: System, stranger: str) -> None:
    url = system.settings.client_url + target(specs.CLIENT, "createRequest")
    before = system.call(specs.CLIENT, "listRequests").json()
    page.goto(stranger)

    with pytest.raises(Error, match="Failed to fetch"):
        _fetch(page, url, method="POST", body=_NEW, headers=AUTHORIZED | {"Content-Type": "application/json"})

    assert system.call(specs.CLIENT, "listRequests").json() == before


@pytest.mark.parametrize("name", [specs.CLIENT, specs.AGGREGATOR])
def test_the_viewer_can_read_both_apis(page: Page, system: System, viewer: str, name: str) -> None:
    page.goto(viewer)

    assert _fetch(page, _read(system, name), headers=AUTHORIZED)["status"] == 200


@pytest.mark.parametrize("name", [specs.CLIENT, specs.AGGREGATOR])
def test_the_viewer_can_read_every_declared_header(page: Page, system: System, viewer: str, name: str) -> None:
    url, declared = (
        system.settings.api_urls[name] + target(name, "createRequest"),
        operations(name)["createRequest"].responses,
    )
    body = _NEW.replace("}", f', "callbackUrl": "{system.client}/callbacks/x"}}') if name == specs.AGGREGATOR else _NEW
    page.goto(viewer)

    def read(**options: Any) -> set[str]:
        response = _fetch(
            page, url, headers={"Content-Type": "application/json"} | options.pop("headers", {}), **options
        )
        expected = {header.lower() for header in declared[str(response["status"])].get("headers", {})}
        assert expected <= response["headers"].keys()
        return expected

    assert read(method="POST", body=body, headers=AUTHORIZED) == {"location", "retry-after"}
    assert read(method="POST", body=body) == {"www-authenticate"}
    assert read(method="PUT", body=body, headers=AUTHORIZED) == {"allow"}
