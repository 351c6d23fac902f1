"""Calls on one table: all pages are read, any attribute name works, and each failure raises its own error."""

import socket
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

import persistence.dynamodb.table
from datahog.bootstrap.connections import dynamodb_client
from datahog.settings import Settings
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import ConditionFailed, Unavailable
from tests.support.repositories import Repositories, answer_in_small_pages

ITEM = {
    "pk": "a",
    "sk": "b",
    "text": "\N{PILE OF POO}",
    "empty": "",
    "number": 10**20,
    "bytes": b"\x00\xff",
    "none": None,
}


def test_values_come_back_unchanged(repositories: Repositories) -> None:
    item = ITEM | {"list": [1, {"true": True, "deep": [b"x", ""]}], "map": {}}

    repositories.aggregator_table.put(item)

    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) == item


def test_an_unknown_key_has_no_item(repositories: Repositories) -> None:
    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) is None
    assert repositories.aggregator_table.get_many([]) == []
    assert repositories.aggregator_table.get_many([{"pk": "a", "sk": "b"}]) == []


def test_words_reserved_by_dynamodb_can_name_attributes(repositories: Repositories) -> None:
    key = {"pk": "a", "sk": "b"}
    repositories.aggregator_table.put({**key, "status": {"size": 1}})

    changed = repositories.aggregator_table.update(
        key,
        "SET #status.#size = :value REMOVE #name ADD #count :value",
        condition="attribute_exists(#status) AND attribute_not_exists(#name)",
        values={"value": 2},
        returned="ALL_NEW",
    )

    assert changed == {**key, "status": {"size": 2}, "count": 2}


def test_a_failed_condition_leaves_the_item_unchanged(repositories: Repositories) -> None:
    key = {"pk": "a", "sk": "b"}
    repositories.aggregator_table.put(ITEM)

    with pytest.raises(ConditionFailed):
        repositories.aggregator_table.put(key, condition="attribute_not_exists(#pk)")
    with pytest.raises(ConditionFailed):
        repositories.aggregator_table.update(
            key, "SET #number = :value", condition="#number = :value", values={"value": 1}
        )

    assert repositories.aggregator_table.get(key) == ITEM


def test_a_query_over_a_megabyte_is_read_in_pages_in_order(repositories: Repositories) -> None:
    # A query returns at most 1 MB; not every engine enforces that.
    for number in range(8):
        repositories.aggregator_table.put({"pk": "a", "sk": f"part#{number}", "part": bytes(380_000)})
    answer_in_small_pages(repositories.dynamodb, 3)

    def numbers(**options: object) -> list[str]:
        items = repositories.aggregator_table.query("#pk = :pk", {"pk": "a"}, **options)  # type: ignore[arg-type]
        return [item["sk"][-1] for item in items]

    assert numbers() == list("01234567")
    assert numbers(limit=5) == list("01234")
    assert numbers(limit=5, newest_first=True) == list("76543")


def test_large_items_over_the_batch_limit_are_all_read(repositories: Repositories) -> None:
    # BatchGetItem returns at most 16 MB and names the remaining keys.
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(60)]
    for key in keys:
        repositories.aggregator_table.put({**key, "part": bytes(380_000)})

    items = repositories.aggregator_table.get_many(keys)

    assert sorted(int(item["pk"]) for item in items) == list(range(60))


class Throttled(Transport):
    """Returns from each batch call as many items as the next of `numbers` says, and none after the last number."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.asked: list[int] = []

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        assert operation == "BatchGetItem"
        assert len(self.asked) < 100, "asked without end"
        [(table, wanted)] = arguments["RequestItems"].items()
        keys, number = wanted["Keys"], self.numbers.pop(0) if self.numbers else 0
        self.asked.append(len(keys))
        left = {table: {**wanted, "Keys": keys[number:]}} if keys[number:] else {}
        return {"Responses": {table: keys[:number]}, "UnprocessedKeys": left}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses (seconds) that the table made; none of them takes time."""
    made: list[float] = []
    monkeypatch.setattr(persistence.dynamodb.table, "time", SimpleNamespace(sleep=made.append))
    return made


def test_unread_keys_are_retried_with_pauses_if_none_was_read(pauses: list[float]) -> None:
    transport = Throttled(2, 0, 0, 1, 0, 1)
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    assert Table(transport, "any").get_many(keys) == keys

    assert transport.asked == [4, 2, 2, 2, 1, 1]
    assert pauses == [0.05, 0.1, 0.2]


def test_a_batch_that_stays_unread_raises_unavailable(pauses: list[float]) -> None:
    transport = Throttled(1)
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    with pytest.raises(Unavailable, match="3 items"):
        Table(transport, "any").get_many(keys)

    assert transport.asked == [4, 3, 3, 3, 3, 3]
    assert len(pauses) == 4


class Refusing(Throttled):
    """Refuses the first `times` calls altogether, as DynamoDB does when it can process no item of a batch."""

    def __init__(self, times: int) -> None:
        super().__init__(99)
        self.times = times
        self.deleted: list[int] = []

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        self.times -= 1
        if self.times >= 0:
            error = {"Code": "ProvisionedThroughputExceededException", "Message": "too much"}
            raise ClientError({"Error": error}, operation)  # type: ignore[typeddict-item]
        if operation == "BatchGetItem":
            return super().call(operation, arguments)
        [(table, requests)] = arguments["RequestItems"].items()
        self.deleted.append(len(requests))
        # The first accepted call leaves all items but one unprocessed.
        left = requests[1:] if len(self.deleted) == 1 else []
        return {"UnprocessedItems": {table: left} if left else {}}


def test_a_refused_batch_is_retried(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    assert Table(Refusing(3), "any").get_many(keys) == keys

    assert pauses == [0.05, 0.1, 0.2]


def test_deletes_are_retried_for_the_unprocessed_keys(pauses: list[float]) -> None:
    transport = Refusing(2)

    Table(transport, "any").delete_many([{"pk": f"{number}", "sk": "b"} for number in range(30)])

    assert transport.deleted == [25, 24, 5]
    assert pauses == [0.05, 0.1]


def test_deletes_that_stay_refused_are_given_up(pauses: list[float]) -> None:
    with pytest.raises(Unavailable, match="1 items are not deleted"):
        Table(Refusing(99), "any").delete_many([{"pk": "a", "sk": "b"}], pauses=(1, 2))

    assert pauses == [1, 2]


def test_items_over_the_batch_limit_are_all_deleted(repositories: Repositories) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(60)]
    for key in keys[:40]:
        repositories.aggregator_table.put({**key, "part": bytes(1000)})

    repositories.aggregator_table.delete_many(keys)

    assert repositories.aggregator_table.get_many(keys) == []


def test_a_partly_readable_batch_returns_items_and_unread_keys(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    items, unread = Table(Throttled(1, 2), "any").get_available(keys)

    assert ([dict(item) for item in items], unread) == (keys[:3], keys[3:])
    assert len(pauses) == 4


def test_an_unreadable_batch_raises_unavailable(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    with pytest.raises(Unavailable, match="4 items"):
        Table(Throttled(), "any").get_available(keys)

    assert len(pauses) == 4


@pytest.mark.parametrize("page", [1, 3, 100])
@pytest.mark.parametrize("limit", [None, 2, 7, 50])
def test_a_query_returns_the_same_with_any_page_size(repositories: Repositories, page: int, limit: int | None) -> None:
    table = repositories.aggregator_table
    for number in range(9):
        table.put({"pk": "a", "sk": f"{number}"})

    found = table.query("#pk = :pk", {"pk": "a"}, limit=limit, page=page)

    assert [item["sk"] for item in found] == [f"{number}" for number in range(9)][:limit]


def test_deleting_a_missing_item_is_no_error(repositories: Repositories) -> None:
    repositories.aggregator_table.put(ITEM)

    for _ in range(2):
        repositories.aggregator_table.delete({"pk": "a", "sk": "b"})

    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) is None


def test_an_invalid_call_raises_the_validation_error(repositories: Repositories) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        repositories.aggregator_table.put({"pk": "", "sk": "b"})


def test_a_missing_table_raises_unavailable(repositories: Repositories) -> None:
    table = Table(Transport(repositories.dynamodb), "nowhere")

    with pytest.raises(Unavailable, match="ResourceNotFoundException"):
        table.get({"pk": "a", "sk": "b"})


def test_an_unreachable_engine_raises_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = dynamodb_client(Settings(dynamodb_endpoint_url=f"http://127.0.0.1:{port}"), {})

    with pytest.raises(Unavailable, match="127.0.0.1"):
        Table(Transport(client), "any").get({"pk": "a", "sk": "b"})
