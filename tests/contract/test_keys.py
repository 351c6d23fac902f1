"""API keys: a caller needs a key with the scope of the operation, in either header."""

import time
from typing import Any

import pytest

import specs
from datahog.bootstrap.wiring import Wiring
from handlers.access.api_key_cache import REMEMBERED
from persistence.api_keys import id_of, new_key
from specs.operations import operations, scopes
from tests.contract.api import Api, check_problem
from tests.support.system import API_KEY, System, eventually

_OPERATIONS = [
    (name, operation_id)
    for name in (specs.AGGREGATOR, specs.CLIENT)
    for operation_id, operation in operations(name).items()
    if operation.scope
]
_each_operation = pytest.mark.parametrize(("name", "operation_id"), _OPERATIONS)


@pytest.fixture(scope="module")
def made(system: System) -> dict[str, str]:
    """Two keys for each scope: one with this scope only, and one with all other scopes."""
    keys = Wiring(system.settings, {}).api_keys
    return {scope: keys.create(scope, [scope]) for scope in scopes()} | {
        f"not {scope}": keys.create(f"not {scope}", set(scopes()) - {scope}) for scope in scopes()
    }


def _call(request: pytest.FixtureRequest, name: str, operation_id: str, **arguments: Any) -> Any:
    # The request does not exist, so an accepted caller gets 400 or 404.
    api: Api = request.getfixturevalue(name)
    return api.call(operation_id, "missing", params={"id": "missing"}, json={}, **arguments)


@_each_operation
def test_only_the_declared_scope_opens_an_operation(
    request: pytest.FixtureRequest, made: dict[str, str], name: str, operation_id: str
) -> None:
    scope = str(operations(name)[operation_id].scope)

    allowed = _call(request, name, operation_id, key=made[scope])
    refused = _call(request, name, operation_id, key=made[f"not {scope}"])

    assert allowed.status_code in (200, 400, 404)
    assert refused.status_code == 403
    assert scope in check_problem(refused)["detail"]
    assert refused.headers["WWW-Authenticate"].endswith(f'error="insufficient_scope", scope="{scope}"')


@_each_operation
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": API_KEY},
        {"Authorization": f"Basic {API_KEY}"},
        {"Authorization": f"Bearer {API_KEY}x"},
        {"Authorization": f"Bearer {new_key()}"},
        {"X-API-Key": ""},
        {"X-API-Key": "\xff"},
        {"X-API-Key": f"Bearer {API_KEY}"},
        {"X-API-Key": new_key()},
    ],
)
def test_a_missing_or_unknown_key_is_refused(
    request: pytest.FixtureRequest, name: str, operation_id: str, headers: dict[str, str]
) -> None:
    response = _call(request, name, operation_id, key=None, headers=headers)

    assert response.status_code == 401
    assert "API key" in check_problem(response)["detail"]
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="datahog"')


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {API_KEY}"},
        {"Authorization": f"bearer  {API_KEY}"},
        {"X-API-Key": API_KEY},
        {"x-api-key": API_KEY, "Authorization": "Basic YTpi"},
    ],
)
def test_a_key_is_accepted_in_either_header(api: Api, headers: dict[str, str]) -> None:
    assert api.call("getRequest", "missing", key=None, headers=headers).status_code == 404


def test_new_and_revoked_keys_take_effect_without_a_restart(system: System, client: Api, aggregator: Api) -> None:
    keys = Wiring(system.settings, {}).api_keys
    text = keys.create("Ada", ["requests:read"])

    for api in (client, aggregator):
        assert api.call("getRequest", "missing", key=text).status_code == 404
    keys.revoke(id_of(text) or "")
    revoked = time.monotonic()

    eventually(lambda: client.call("getRequest", "missing", key=text).status_code == 401)
    eventually(lambda: aggregator.call("getRequest", "missing", key=text).status_code == 401)
    assert time.monotonic() - revoked < REMEMBERED + 2


def test_a_body_without_a_key_is_not_examined(api: Api) -> None:
    response = api.call("createRequest", key=None, data=b"x" * 1_000_000, headers={"Content-Type": "text/plain"})

    assert response.status_code == 401
