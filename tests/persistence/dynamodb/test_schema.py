"""Tables: each is created once, with its TTL and its index of open records, also by concurrent creators."""

from typing import Any

import pytest

from persistence.dynamodb.schema import create_tables, table_names
from tests.support.repositories import Repositories, at_once


def test_creating_names_the_new_tables_and_again_none(repositories: Repositories) -> None:
    created = create_tables(repositories.dynamodb, "other")
    again = create_tables(repositories.dynamodb, "other")

    assert created == ["other-aggregator", "other-client", "other-keys"]
    assert again == []


def test_creating_again_keeps_the_items(repositories: Repositories) -> None:
    request = repositories.open_request()

    create_tables(repositories.dynamodb, repositories.prefix)

    assert repositories.requests.get(request.request_id) == request


def test_concurrent_creators_make_each_table_once(repositories: Repositories) -> None:
    outcomes = at_once([lambda: create_tables(repositories.dynamodb, "raced")] * 8)

    made = [name for outcome in outcomes if isinstance(outcome, list) for name in outcome]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sorted(made) == ["raced-aggregator", "raced-client", "raced-keys"]


def test_expires_at_is_the_ttl_attribute(repositories: Repositories) -> None:
    for name in table_names(repositories.prefix):
        ttl = repositories.dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]

        assert ttl["AttributeName"] == "expiresAt"
        assert ttl["TimeToLiveStatus"] in ("ENABLING", "ENABLED")


def test_tables_bill_per_request_and_indexes_hold_keys_only(repositories: Repositories) -> None:
    for name, indexes in table_names(repositories.prefix).items():
        table = repositories.dynamodb.describe_table(TableName=name)["Table"]

        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        found = table.get("GlobalSecondaryIndexes", [])
        kinds = {index["IndexName"]: index["Projection"]["ProjectionType"] for index in found}
        assert kinds == dict.fromkeys(indexes, "KEYS_ONLY")


def test_an_undescribable_new_table_is_waited_for(repositories: Repositories, monkeypatch: pytest.MonkeyPatch) -> None:
    # On AWS, DescribeTable may not find a table right after its creation.
    describe, asked = repositories.dynamodb.describe_table, []

    def describe_late(**arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise repositories.dynamodb.exceptions.ResourceNotFoundException({}, "DescribeTable")
        return describe(**arguments)

    monkeypatch.setattr(repositories.dynamodb, "describe_table", describe_late)

    create_tables(repositories.dynamodb, "late")

    assert len(asked) == 1 + len(table_names("late"))


def test_waiting_for_a_table_times_out(repositories: Repositories, monkeypatch: pytest.MonkeyPatch) -> None:
    creating = {"Table": {"TableStatus": "CREATING"}}
    monkeypatch.setattr(repositories.dynamodb, "describe_table", lambda **_: creating)

    with pytest.raises(TimeoutError, match="never-aggregator is not active after 0 s"):
        create_tables(repositories.dynamodb, "never", timeout=0)


def test_the_due_index_holds_open_and_undelivered_requests_only(repositories: Repositories) -> None:
    opened, pending, failed = (
        repositories.open_request(),
        repositories.ended_request(result=b"[" + b"1," * 9000 + b"1]"),
        repositories.ended_request(),
    )
    delivered = repositories.ended_request()
    repositories.deliveries.attempt_failed(failed, "HTTP 410", None)
    repositories.deliveries.succeeded(delivered)

    assert repositories.indexed("aggregator") == {opened.request_id, pending.request_id, failed.request_id}


def test_the_clients_due_index_holds_all_that_is_open(repositories: Repositories) -> None:
    pending, accepted, refused = (repositories.retrieval() for _ in range(3))
    repositories.retrievals.accepted(accepted)
    repositories.retrievals.refused(refused, "HTTP 422")

    assert repositories.indexed("client") == {pending.request_id, accepted.request_id}
    assert repositories.indexed("client", "newest") == {
        retrieval.request_id for retrieval in (pending, accepted, refused)
    }
