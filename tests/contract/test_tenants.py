"""Tenants: the request of another tenant gets the same response as a missing one."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests

import specs
from datahog.bootstrap.wiring import Wiring
from persistence.api_keys import id_of
from persistence.dynamodb.schema import aggregator_table, client_table
from persistence.records.timestamps import to_text, utc_now
from specs.operations import Operation, operations, scopes
from tests.contract.api import Api, read_until_ended
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually

_BODIES: dict[str, Any] = {"updateJob": {"provider": "mute", "status": "FAILED"}}


def _names_a_request(operation: Operation) -> bool:
    names = {parameter["name"] for parameter in operation.parameters}
    # The id of a new record does not exist yet.
    return (
        bool(names & {"requestId", "id"}) and operation.scope is not None and operation.operation_id != "createRecord"
    )


_NAMING = [
    (name, operation_id)
    for name in (specs.AGGREGATOR, specs.CLIENT)
    for operation_id, operation in operations(name).items()
    if _names_a_request(operation)
]


@dataclass(frozen=True)
class Tenant:
    """A tenant that only one test uses, and its key with all scopes."""

    name: str
    key: str


@pytest.fixture
def make_tenant(system: System) -> Callable[[], Tenant]:
    """Makes new tenants."""
    keys = Wiring(system.settings, {}).api_keys

    def make() -> Tenant:
        name = f"tenant-{uuid.uuid4().hex[:8]}"
        return Tenant(name, keys.create("tests", scopes(), tenant=name))

    return make


@pytest.fixture
def acme(make_tenant: Callable[[], Tenant]) -> Tenant:
    """One tenant."""
    return make_tenant()


@pytest.fixture
def globex(make_tenant: Callable[[], Tenant]) -> Tenant:
    """Another tenant."""
    return make_tenant()


def _create(api: Api, tenant: Tenant, receiver: Receiver, *providers: str, **members: Any) -> str:
    body: dict[str, Any] = {"providers": providers or ("mute",)} | members
    if api.name == specs.AGGREGATOR:
        body.setdefault("callbackUrl", receiver.url("/tenants"))
    response = api.call("createRequest", key=tenant.key, json=body)
    assert response.status_code == 202, response.text
    request_id: str = response.json()["requestId"]
    return request_id


def _call(api: Api, operation_id: str, tenant: Tenant, request_id: str) -> requests.Response:
    params = {"id": request_id} if "Record" in operation_id or operation_id == "updateJob" else None
    return api.call(operation_id, request_id, key=tenant.key, params=params, json=_BODIES.get(operation_id))


@pytest.mark.parametrize(("name", "operation_id"), _NAMING)
def test_another_tenants_request_looks_like_a_missing_one(
    request: pytest.FixtureRequest, receiver: Receiver, acme: Tenant, globex: Tenant, name: str, operation_id: str
) -> None:
    api: Api = request.getfixturevalue(name)
    request_id = _create(api, acme, receiver)
    before = api.call("getRequest", request_id, key=acme.key).json()

    theirs = _call(api, operation_id, globex, request_id)
    missing = _call(api, operation_id, globex, "missing")

    assert (theirs.status_code, missing.status_code) == (404, 404)
    assert theirs.json()["detail"].replace(request_id, "missing") == missing.json()["detail"]
    after = api.call("getRequest", request_id, key=acme.key).json()
    assert [job["status"] for job in after["jobs"]] == [job["status"] for job in before["jobs"]] == ["INIT"]
    assert _call(api, operation_id, acme, request_id).status_code in (200, 202, 409)


def test_the_list_has_only_the_callers_requests(client: Api, receiver: Receiver, acme: Tenant, globex: Tenant) -> None:
    owners = [acme, globex, acme, acme, globex]
    ids = [(owner, _create(client, owner, receiver, "steady")) for owner in owners]

    for tenant in (acme, globex):
        listed: list[str] = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = client.call("listRequests", key=tenant.key, params=params).json()
            listed += [document["requestId"] for document in page["requests"]]
            if "nextCursor" not in page:
                break
            params["cursor"] = page["nextCursor"]
        assert sorted(listed) == sorted(request_id for owner, request_id in ids if owner is tenant)


def test_the_client_separates_tenants_with_one_key(
    client: Api, aggregator: Api, receiver: Receiver, acme: Tenant
) -> None:
    request_id = _create(client, acme, receiver, "steady")

    response = client.call("getRequest", request_id, key=acme.key, params={"wait": 30})

    assert response.json()["status"] == "COMPLETE"
    # At the aggregator the request belongs to the client's own tenant.
    assert aggregator.call("getRequest", request_id).status_code == 200
    assert aggregator.call("getRequest", request_id, key=acme.key).status_code == 404


@pytest.mark.parametrize("operation_id", ["createRequest", "createRecord"])
def test_an_id_taken_by_another_tenant_is_a_conflict(
    aggregator: Api, receiver: Receiver, acme: Tenant, globex: Tenant, operation_id: str
) -> None:
    request_id = _create(aggregator, acme, receiver, requestId=uuid.uuid4().hex)

    def create(tenant: Tenant, *providers: str) -> requests.Response:
        body = {"providers": providers, "callbackUrl": receiver.url("/tenants")}
        if operation_id == "createRecord":
            return aggregator.call(operation_id, key=tenant.key, params={"id": request_id}, json=body)
        return aggregator.call(operation_id, key=tenant.key, json=body | {"requestId": request_id})

    same_content, other_content, own_other = create(globex, "mute"), create(globex, "gas"), create(acme, "gas")

    assert {same_content.status_code, other_content.status_code, own_other.status_code} == {409}
    assert same_content.json() == other_content.json() == own_other.json()
    assert create(acme, "mute").status_code in (200, 202)
    assert aggregator.call("getRequest", request_id, key=globex.key).status_code == 404


def test_idempotency_keys_belong_to_one_tenant(
    aggregator: Api, receiver: Receiver, acme: Tenant, globex: Tenant
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"providers": ["mute"], "callbackUrl": receiver.url("/tenants")}

    def create(tenant: Tenant, **members: Any) -> requests.Response:
        return aggregator.call("createRequest", key=tenant.key, json=body | members, headers=key)

    first, other, again = create(acme), create(globex), create(acme)

    assert first.json()["requestId"] == again.json()["requestId"] != other.json()["requestId"]
    assert create(globex, providers=["gas"]).status_code == 422


def test_only_the_callers_deliveries_are_restarted(
    aggregator: Api, receiver: Receiver, acme: Tenant, globex: Tenant
) -> None:
    # Datahog gives up a delivery at the first 410.
    receiver.answers("/unwanted", Answer(410))
    since = to_text(utc_now())
    made = {
        tenant: _create(aggregator, tenant, receiver, "steady", callbackUrl=receiver.url("/unwanted"))
        for tenant in (acme, globex)
    }

    def status(tenant: Tenant) -> str:
        document = aggregator.call("getRequest", made[tenant], key=tenant.key).json()
        return str(document["delivery"]["status"])

    for tenant in made:
        eventually(lambda tenant=tenant: status(tenant) == "FAILED")  # type: ignore[misc]

    response = aggregator.call("redeliverFailed", key=acme.key, json={"since": since})

    assert response.json() == {"requestIds": [made[acme]], "truncated": False}
    assert status(globex) == "FAILED"


def test_records_without_a_tenant_belong_to_the_default(
    system: System, client: Api, aggregator: Api, receiver: Receiver, acme: Tenant
) -> None:
    wiring = Wiring(system.settings, {})
    prefix = system.settings.table_prefix
    for api, table, kind in (
        (aggregator, aggregator_table(prefix), "request"),
        (client, client_table(prefix), "retrieval"),
    ):
        body = {"providers": ["steady"]} | ({"callbackUrl": receiver.url("/old")} if api is aggregator else {})
        request_id = api.call("createRequest", json=body).json()["requestId"]
        read_until_ended(api, request_id)
        wiring.dynamodb.update_item(
            TableName=table, Key={"pk": {"S": request_id}, "sk": {"S": kind}}, UpdateExpression="REMOVE tenant"
        )

        assert api.call("getRequest", request_id).status_code == 200
        assert api.call("getRequest", request_id, key=acme.key).status_code == 404


def test_keys_rotate_without_a_restart(system: System, api: Api, receiver: Receiver, acme: Tenant) -> None:
    keys = Wiring(system.settings, {}).api_keys
    request_id = _create(api, acme, receiver)
    new = Tenant(acme.name, keys.create("rotated", scopes(), tenant=acme.name))

    assert _call(api, "getRequest", new, request_id).status_code == 200
    assert _call(api, "getRequest", acme, request_id).status_code == 200
    keys.revoke(id_of(acme.key) or "")

    eventually(lambda: _call(api, "getRequest", acme, request_id).status_code == 401)
    assert _call(api, "getRequest", new, request_id).status_code == 200
