"""The viewer shows both documents on one page without a network, and calls the running APIs."""

from pathlib import Path

import pytest

import specs
from specs.operations import operations
from tests.browser.chromium import OTHER_NAME, Witness
from tests.browser.swagger import SwaggerPage
from tests.support.system import API_KEY, System

_TITLES = {specs.CLIENT: "Datahog client", specs.AGGREGATOR: "Datahog aggregator"}


def _operation_ids(name: str) -> set[str]:
    return {found.operation_id for found in operations(name).values() if not found.is_callback}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", OTHER_NAME])
def test_both_documents_are_shown_without_a_network(
    swagger: SwaggerPage, witness: Witness, viewer: str, host: str
) -> None:
    swagger.open(viewer.replace("localhost", host), _TITLES[specs.CLIENT])

    assert swagger.choices == [specs.CLIENT, specs.AGGREGATOR]
    for name in (specs.CLIENT, specs.AGGREGATOR, specs.CLIENT):
        shown = swagger.choose(name, _TITLES[name]).operation_ids
        assert len(shown) == len(_operation_ids(name))
        assert set(shown) == _operation_ids(name)
    assert len(witness.requests) >= 6
    assert witness.complaints == []


def test_a_link_opens_its_document(swagger: SwaggerPage, viewer: str) -> None:
    swagger.open(f"{viewer}?urls.primaryName=aggregator", _TITLES[specs.AGGREGATOR])


def test_a_request_is_created_and_read_until_complete(swagger: SwaggerPage, viewer: str, artefacts: Path) -> None:
    swagger.open(viewer, _TITLES[specs.CLIENT])
    swagger.authorize("bearerKey", API_KEY)

    created = swagger.try_out("createRequest").execute()
    assert created.status == 202
    request_id = created.body["requestId"]
    assert created.headers["location"] == f"/api/v1/requests/{request_id}"
    assert int(created.headers["retry-after"]) >= 0

    reading = swagger.try_out("getRequest")
    reading.fill("requestId", request_id)
    reading.fill("wait", "10")
    while (read := reading.execute()).body["status"] == "OPEN":
        assert read.status == 200
    assert (read.status, read.body["status"]) == (200, "COMPLETE")
    assert [job["provider"] for job in read.body["jobs"]] == ["gas", "internet", "water"]
    assert all(job["result"] for job in read.body["jobs"])
    reading.photograph(artefacts / "viewer-client.png")

    listed = swagger.try_out("listRequests").execute()
    assert request_id in [request["requestId"] for request in listed.body["requests"]]


def test_a_record_is_created_with_the_key_in_the_other_header(
    swagger: SwaggerPage, system: System, viewer: str, artefacts: Path
) -> None:
    swagger.open(viewer, _TITLES[specs.CLIENT]).choose(specs.AGGREGATOR, _TITLES[specs.AGGREGATOR])
    swagger.authorize("headerKey", API_KEY)

    listed = swagger.try_out("listProviders").execute()
    assert listed.status == 200
    assert "gas" in [provider["name"] for provider in listed.body["providers"]]

    creating = swagger.try_out("createRecord")
    creating.fill("id", "seen-in-a-browser")
    creating.replace_in_body("http://127.0.0.1:3100", system.settings.client_url)
    created = creating.execute()
    assert (created.status, created.body["requestId"]) == (201, "seen-in-a-browser")

    reading = swagger.try_out("getRecord")
    reading.fill("id", "seen-in-a-browser")
    while not (read := reading.execute()).body["ended"]:
        assert read.status == 200
    assert (read.status, read.body["status"]) == (200, "COMPLETE")
    reading.photograph(artefacts / "viewer-aggregator.png")


def test_an_unauthorized_call_is_told_how_to_authorize(swagger: SwaggerPage, viewer: str, artefacts: Path) -> None:
    swagger.open(viewer, _TITLES[specs.CLIENT])

    creating = swagger.try_out("createRequest")
    refused = creating.execute()

    assert refused.status == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="datahog"'
    assert "send an API key" in refused.body["detail"]
    assert "python -m datahog keys makes one" in refused.body["detail"]
    creating.photograph(artefacts / "viewer-unauthorized.png")


def test_the_key_opens_both_documents_and_is_not_stored(swagger: SwaggerPage, viewer: str) -> None:
    swagger.open(viewer, _TITLES[specs.CLIENT])
    swagger.authorize("bearerKey", API_KEY)

    swagger.choose(specs.AGGREGATOR, _TITLES[specs.AGGREGATOR])
    assert swagger.try_out("listProviders").execute().status == 200

    # A later program on this port could read anything stored there.
    assert swagger.page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    swagger.open(viewer, _TITLES[specs.CLIENT])
    assert swagger.try_out("listRequests").execute().status == 401
