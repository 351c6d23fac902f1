"""Tenants: each reads, lists and counts only its own records; the default tenant owns records without one."""

import uuid
from datetime import timedelta

import pytest

from persistence.api_keys import ApiKeys
from persistence.dynamodb.schema import keys_table
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import Conflict, KeyReused, NotFound
from persistence.index.shards import Shards
from persistence.items import Items
from persistence.records.request import Request
from persistence.records.retrieval import Retrieval
from persistence.records.tenants import DEFAULT_TENANT, kind_of
from tests.support.repositories import CALLBACK_URL, Repositories

_TENANTS = (DEFAULT_TENANT, "acme", "acme.0", "0")


def request_of(repositories: Repositories, tenant: str, request_id: str = "") -> Request:
    deadline = repositories.clock() + timedelta(hours=1)
    jobs = [("gas", "http://providers.test/gas")]
    return repositories.requests.create(
        request_id or uuid.uuid4().hex, jobs, CALLBACK_URL, deadline=deadline, content={}, tenant=tenant
    )[0]


def retrieval_of(repositories: Repositories, tenant: str) -> Retrieval:
    deadline = repositories.clock() + timedelta(hours=1)
    return repositories.retrievals.create(uuid.uuid4().hex, ["gas"], deadline=deadline, tenant=tenant)


def forget_tenant(repositories: Repositories, table: str, request_id: str, kind: str) -> None:
    repositories.dynamodb.update_item(
        TableName=f"{repositories.prefix}-{table}",
        Key={"pk": {"S": request_id}, "sk": {"S": kind}},
        UpdateExpression="REMOVE tenant",
    )


def test_a_tenant_reads_its_own_records_only(repositories: Repositories) -> None:
    request, retrieval = request_of(repositories, "acme"), retrieval_of(repositories, "acme")

    for repository, record in ((repositories.requests, request), (repositories.retrievals, retrieval)):
        assert record.tenant == "acme"
        assert repository.get(record.request_id, "acme") == repository.get(record.request_id) == record
        for other in (DEFAULT_TENANT, "Acme", ""):
            with pytest.raises(NotFound, match=f"^no request {record.request_id}$"):
                repository.get(record.request_id, other)


def test_records_without_a_tenant_belong_to_the_default_tenant(repositories: Repositories) -> None:
    request, retrieval = repositories.open_request(), repositories.retrieval()
    forget_tenant(repositories, "aggregator", request.request_id, "request")
    forget_tenant(repositories, "client", retrieval.request_id, "retrieval")

    assert repositories.requests.get(request.request_id, DEFAULT_TENANT) == request
    assert repositories.open_request(request_id=request.request_id) == request
    assert repositories.retrievals.get(retrieval.request_id, DEFAULT_TENANT) == retrieval
    with pytest.raises(NotFound):
        repositories.requests.get(request.request_id, "acme")


def test_an_id_of_another_tenant_is_a_conflict(repositories: Repositories) -> None:
    request = request_of(repositories, "acme", "r1")

    with pytest.raises(Conflict, match="^the request r1 exists with other content$"):
        request_of(repositories, "globex", "r1")

    assert repositories.requests.get("r1") == request == request_of(repositories, "acme", "r1")


def test_a_tenant_lists_its_own_retrievals_only(repositories: Repositories) -> None:
    made = {tenant: [retrieval_of(repositories, tenant) for _ in range(6)] for tenant in _TENANTS}

    for tenant, retrievals in made.items():
        listed, cursor = repositories.retrievals.newest(limit=100, cursor=None, tenant=tenant)
        assert {r.request_id for r in listed} == {r.request_id for r in retrievals}
        assert cursor is None


def test_a_tenant_finds_its_own_failed_deliveries_only(repositories: Repositories) -> None:
    since = repositories.clock()
    made = {}
    for tenant in _TENANTS:
        request = request_of(repositories, tenant)
        repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
        repositories.deliveries.attempt_failed(repositories.requests.get(request.request_id), "HTTP 410", None)
        made[tenant] = request.request_id

    for tenant, request_id in made.items():
        assert repositories.due.undelivered(since, limit=10, tenant=tenant) == [request_id]


def test_tenants_and_kinds_have_separate_partitions() -> None:
    kinds = [kind_of(kind, tenant) for kind in ("open", "undelivered", "newest") for tenant in _TENANTS]

    shards = [f"{kind}#{number}" for kind in kinds for number in range(10)]

    assert len(set(shards)) == len(shards)


def test_tenants_use_the_same_idempotency_key_independently(repositories: Repositories) -> None:
    for tenant in _TENANTS:
        claim = repositories.keys.claim("k", {}, f"r-{tenant}", tenant=tenant)
        repositories.keys.answered(claim, tenant)

    for tenant in _TENANTS:
        assert repositories.keys.claim("k", {}, "r2", tenant=tenant).answer == tenant
        with pytest.raises(KeyReused):
            repositories.keys.claim("k", {"other": True}, "r2", tenant=tenant)


def test_releasing_a_key_leaves_that_of_another_tenant(repositories: Repositories) -> None:
    mine, other = (repositories.keys.claim("k", {}, "r1", tenant=tenant) for tenant in ("acme", "globex"))

    repositories.keys.release(mine)

    assert repositories.keys.claim("k", {}, "r2", tenant="acme").request_id == "r2"
    assert other.request_id == "r1"


def test_still_open_names_the_tenants_open_requests_only(repositories: Repositories) -> None:
    table = repositories.aggregator_table
    items = Items(table, "request", Request.from_item, shards=Shards(table, 1), clock=repositories.clock)
    mine, ended, theirs = (request_of(repositories, tenant) for tenant in ("acme", "acme", "globex"))
    repositories.requests.finish_job(ended.attempt(ended.jobs[0]), b"1")

    ids = [mine.request_id, ended.request_id, theirs.request_id, "nobodys"]

    assert items.still_open("acme", ids) == {mine.request_id}


def test_an_api_key_holds_its_tenant_and_whether_it_is_unlimited(repositories: Repositories) -> None:
    table = Table(Transport(repositories.dynamodb), keys_table(repositories.prefix))
    keys = ApiKeys(table, clock=repositories.clock)
    keys.create("Ada", ["admin"])
    keys.create("client", ["admin"], tenant="acme", unlimited=True)

    found = {key.name: (key.tenant, key.unlimited) for key in keys.list()}
    assert found == {"Ada": (DEFAULT_TENANT, False), "client": ("acme", True)}

    # Keys of a version without tenants lack these attributes.
    for item in table.query("#pk = :pk", {"pk": "keys"}):
        table.put({name: value for name, value in item.items() if name not in ("tenant", "unlimited")})
    assert {(key.tenant, key.unlimited) for key in keys.list()} == {(DEFAULT_TENANT, False)}
