"""Tenants: each reads, lists and counts its own; what has no tenant is the default one's."""

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


def test_each_reads_its_own_and_datahog_all(repositories: Repositories) -> None:
    request, retrieval = request_of(repositories, "acme"), retrieval_of(repositories, "acme")

    for repository, record in ((repositories.requests, request), (repositories.retrievals, retrieval)):
        assert record.tenant == "acme"
        assert repository.get(record.request_id, "acme") == repository.get(record.request_id) == record
        for other in (DEFAULT_TENANT, "Acme", ""):
            with pytest.raises(NotFound, match=f"^no request {record.request_id}$"):
                repository.get(record.request_id, other)


def test_what_has_no_tenant_is_the_default_ones(repositories: Repositories) -> None:
    request, retrieval = repositories.open_request(), repositories.retrieval()
    forget_tenant(repositories, "aggregator", request.request_id, "request")
    forget_tenant(repositories, "client", retrieval.request_id, "retrieval")

    assert repositories.requests.get(request.request_id, DEFAULT_TENANT) == request
    assert repositories.open_request(request_id=request.request_id) == request
    assert repositories.retrievals.get(retrieval.request_id, DEFAULT_TENANT) == retrieval
    with pytest.raises(NotFound):
        repositories.requests.get(request.request_id, "acme")


def test_anothers_id_is_taken_whatever_the_content(repositories: Repositories) -> None:
    request = request_of(repositories, "acme", "r1")

    with pytest.raises(Conflict, match="^the request r1 exists with other content$"):
        request_of(repositories, "globex", "r1")

    assert repositories.requests.get("r1") == request == request_of(repositories, "acme", "r1")


def test_each_lists_its_own(repositories: Repositories) -> None:
    made = {tenant: [retrieval_of(repositories, tenant) for _ in range(6)] for tenant in _TENANTS}

    for tenant, retrievals in made.items():
        listed, cursor = repositories.retrievals.newest(limit=100, cursor=None, tenant=tenant)
        assert {r.request_id for r in listed} == {r.request_id for r in retrievals}
        assert cursor is None


def test_each_finds_its_own_failed_deliveries(repositories: Repositories) -> None:
    since = repositories.clock()
    made = {}
    for tenant in _TENANTS:
        request = request_of(repositories, tenant)
        repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
        repositories.deliveries.attempt_failed(repositories.requests.get(request.request_id), "HTTP 410", None)
        made[tenant] = request.request_id

    for tenant, request_id in made.items():
        assert repositories.due.undelivered(since, limit=10, tenant=tenant) == [request_id]


def test_no_two_tenants_or_kinds_share_a_partition() -> None:
    kinds = [kind_of(kind, tenant) for kind in ("open", "undelivered", "newest") for tenant in _TENANTS]

    shards = [f"{kind}#{number}" for kind in kinds for number in range(10)]

    assert len(set(shards)) == len(shards)


def test_idempotency_keys_are_each_tenants_own(repositories: Repositories) -> None:
    for tenant in _TENANTS:
        claim = repositories.keys.claim("k", {}, f"r-{tenant}", tenant=tenant)
        repositories.keys.answered(claim, tenant)

    for tenant in _TENANTS:
        assert repositories.keys.claim("k", {}, "r2", tenant=tenant).answer == tenant
        with pytest.raises(KeyReused):
            repositories.keys.claim("k", {"other": True}, "r2", tenant=tenant)


def test_a_key_given_back_is_given_back_by_its_own_tenant(repositories: Repositories) -> None:
    mine, other = (repositories.keys.claim("k", {}, "r1", tenant=tenant) for tenant in ("acme", "globex"))

    repositories.keys.release(mine)

    assert repositories.keys.claim("k", {}, "r2", tenant="acme").request_id == "r2"
    assert other.request_id == "r1"


def test_still_open_are_ones_own_that_have_not_ended_or_gone(repositories: Repositories) -> None:
    table = repositories.aggregator_table
    items = Items(table, "request", Request.from_item, shards=Shards(table, 1), clock=repositories.clock)
    mine, ended, theirs = (request_of(repositories, tenant) for tenant in ("acme", "acme", "globex"))
    repositories.requests.finish_job(ended.attempt(ended.jobs[0]), b"1")

    ids = [mine.request_id, ended.request_id, theirs.request_id, "nobodys"]

    assert items.still_open("acme", ids) == {mine.request_id}


def test_a_key_says_whose_it_is_and_whether_limits_hold(repositories: Repositories) -> None:
    table = Table(Transport(repositories.dynamodb), keys_table(repositories.prefix))
    keys = ApiKeys(table, clock=repositories.clock)
    keys.create("Ada", ["admin"])
    keys.create("client", ["admin"], tenant="acme", unlimited=True)

    found = {key.name: (key.tenant, key.unlimited) for key in keys.list()}
    assert found == {"Ada": (DEFAULT_TENANT, False), "client": ("acme", True)}

    # As keys were kept before there were tenants.
    for item in table.query("#pk = :pk", {"pk": "keys"}):
        table.put({name: value for name, value in item.items() if name not in ("tenant", "unlimited")})
    assert {(key.tenant, key.unlimited) for key in keys.list()} == {(DEFAULT_TENANT, False)}
