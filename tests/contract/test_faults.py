"""Internal errors and missing engines still give declared responses."""

import logging
import time
from typing import Any, cast

import pytest
import requests
from connexion.exceptions import ResolverError
from starlette.testclient import TestClient

import specs
from datahog.bootstrap.apps import build_app
from datahog.bootstrap.wiring import Wiring
from handlers.access.callers import Caller, Callers
from handlers.client import Client
from specs.operations import operations
from tests.contract.api import check_problem
from tests.support.system import API_KEY, AUTHORIZED, system_settings

# The longest that a response may take without the database, in seconds.
_LONGEST = 8.0
# Accepts this key only, without a lookup.
_CALLERS = Callers(cast(Any, None), local_key=API_KEY)


class _NoLimit:
    async def count(self, _caller: Caller) -> None:
        """Accepts every call."""


_OPTIONS: Any = {"callers": _CALLERS, "rate_limit": _NoLimit(), "body_limits": {}}

_Call = tuple[str, dict[str, Any], dict[str, Any]]
# Each call: operationId, arguments, body.
_CALLS: dict[str, list[_Call]] = {
    specs.AGGREGATOR: [
        ("createRequest", {}, {"providers": ["gas"], "callbackUrl": "http://127.0.0.1:9/"}),
        ("getRequest", {"requestId": "x", "wait": 30}, {}),
        ("cancelRequest", {"requestId": "x"}, {}),
        ("redeliverFailed", {}, {"since": "2026-11-24T10:00:00Z"}),
        ("createRecord", {"id": "x"}, {"providers": ["gas"], "callbackUrl": "http://127.0.0.1:9/"}),
        ("updateJob", {"id": "x"}, {"provider": "gas", "status": "DONE"}),
    ],
    specs.CLIENT: [
        ("createRequest", {}, {"providers": ["gas"]}),
        ("listRequests", {}, {}),
        ("getRequest", {"requestId": "x", "wait": 30}, {}),
        ("cancelRequest", {"requestId": "x"}, {}),
    ],
}


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    """The wiring of a process that reaches no engine and no other API, because nothing listens on their ports."""
    settings = system_settings(tmp_path_factory.mktemp("cut-off"))
    return Wiring(settings, {"DATAHOG_SIMULATOR_URL": "http://127.0.0.1:9"})


def _send(app: Any, name: str, operation_id: str, arguments: dict[str, Any], body: dict[str, Any]) -> requests.Response:
    operation = operations(name)[operation_id]
    url = operation.target(arguments)
    with TestClient(app, raise_server_exceptions=False) as test_client:
        response = test_client.request(operation.method, url, headers=AUTHORIZED, **({"json": body} if body else {}))
    # The members used here are the same in `requests`.
    return cast(requests.Response, response)


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in _CALLS.items() for call in calls])
def test_a_missing_database_gives_503_soon(cut_off: Wiring, name: str, call: _Call) -> None:
    app = cut_off.aggregator_app() if name == specs.AGGREGATOR else cut_off.client_app()
    began = time.monotonic()

    response = _send(app, name, *call)

    assert time.monotonic() - began < _LONGEST
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) >= 1
    assert check_problem(response)["type"].endswith(":unavailable")


def test_listing_providers_needs_no_database(cut_off: Wiring) -> None:
    app = cut_off.aggregator_app()

    assert _send(app, specs.AGGREGATOR, "listProviders", {}, {}).status_code == 200


def test_an_internal_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    # These handlers lack all dependencies, so every call fails.
    broken = Client(*cast(Any, [None] * 7), default_deadline=1)
    app = build_app(specs.CLIENT, broken, **_OPTIONS)

    with caplog.at_level(logging.ERROR):
        response = _send(app, specs.CLIENT, "listRequests", {}, {})

    assert response.status_code == 500
    assert check_problem(response)["type"].endswith(":internal-error")
    assert "newest" not in response.text
    assert "AttributeError" in caplog.text
    assert "Traceback" in caplog.text


def test_missing_handlers_fail_at_the_start() -> None:
    app = build_app(specs.CLIENT, object(), **_OPTIONS)

    with pytest.raises(ResolverError, match="get_health"), TestClient(app):
        pass
