"""One table: pages read to their end, names of every kind, and failures told apart."""

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


def test_values_come_back_as_they_were_given(repositories: Repositories) -> None:
    item = ITEM | {"list": [1, {"true": True, "deep": [b"x", ""]}], "map": {}}

    repositories.aggregator_table.put(item)

    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) == item


def test_nothing_is_under_an_unknown_key(repositories: Repositories) -> None:
    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) is None
    assert repositories.aggregator_table.get_many([]) == []
    assert repositories.aggregator_table.get_many([{"pk": "a", "sk": "b"}]) == []


def test_words_that_dynamodb_reserves_are_names_like_any_other(repositories: Repositories) -> None:
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


def test_a_condition_that_does_not_hold_leaves_the_item_as_it_was(repositories: Repositories) -> None:
    key = {"pk": "a", "sk": "b"}
    repositories.aggregator_table.put(ITEM)

    with pytest.raises(ConditionFailed):
        repositories.aggregator_table.put(key, condition="attribute_not_exists(#pk)")
    with pytest.raises(ConditionFailed):
        repositories.aggregator_table.update(
            key, "SET #number = :value", condition="#number = :value", values={"value": 1}
        )

    assert repositories.aggregator_table.get(key) == ITEM


def test_more_than_a_megabyte_is_read_page_by_page_in_order(repositories: Repositories) -> None:
    # A query answers with at most 1 MB; not every engine keeps to that.
    for number in range(8):
        repositories.aggregator_table.put({"pk": "a", "sk": f"part#{number}", "part": bytes(380_000)})
    answer_in_small_pages(repositories.dynamodb, 3)

    def numbers(**options: object) -> list[str]:
        items = repositories.aggregator_table.query("#pk = :pk", {"pk": "a"}, **options)  # type: ignore[arg-type]
        return [item["sk"][-1] for item in items]

    assert numbers() == list("01234567")
    assert numbers(limit=5) == list("01234")
    assert numbers(limit=5, newest_first=True) == list("76543")


def test_a_hundred_large_items_are_read_at_once(repositories: Repositories) -> None:
    # BatchGetItem answers with at most 16 MB and names the rest.
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(60)]
    for key in keys:
        repositories.aggregator_table.put({**key, "part": bytes(380_000)})

    items = repositories.aggregator_table.get_many(keys)

    assert sorted(int(item["pk"]) for item in items) == list(range(60))


class Throttled(Transport):
    """Answers each call for many items with so many of them as the next number says, and with none after the last."""

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
    """The pauses that were made, none of which takes time."""
    made: list[float] = []
    monkeypatch.setattr(persistence.dynamodb.table, "time", SimpleNamespace(sleep=made.append))
    return made


def test_what_is_left_of_a_batch_is_asked_for_after_a_pause_if_nothing_was_read(pauses: list[float]) -> None:
    transport = Throttled(2, 0, 0, 1, 0, 1)
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    assert Table(transport, "any").get_many(keys) == keys

    assert transport.asked == [4, 2, 2, 2, 1, 1]
    assert pauses == [0.05, 0.1, 0.2]


def test_a_batch_of_which_nothing_is_read_makes_the_engine_unavailable(pauses: list[float]) -> None:
    transport = Throttled(1)
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    with pytest.raises(Unavailable, match="3 items"):
        Table(transport, "any").get_many(keys)

    assert transport.asked == [4, 3, 3, 3, 3, 3]
    assert len(pauses) == 4


class Refusing(Throttled):
    """Refuses so many calls altogether, as DynamoDB does when it can do nothing of a batch."""

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
        # All but the first are left, once.
        left = requests[1:] if len(self.deleted) == 1 else []
        return {"UnprocessedItems": {table: left} if left else {}}


def test_a_batch_that_is_refused_altogether_is_asked_for_again(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    assert Table(Refusing(3), "any").get_many(keys) == keys

    assert pauses == [0.05, 0.1, 0.2]


def test_deletes_go_on_with_what_was_left(pauses: list[float]) -> None:
    transport = Refusing(2)

    Table(transport, "any").delete_many([{"pk": f"{number}", "sk": "b"} for number in range(30)])

    assert transport.deleted == [25, 24, 5]
    assert pauses == [0.05, 0.1]


def test_deletes_that_are_refused_for_ever_are_given_up(pauses: list[float]) -> None:
    with pytest.raises(Unavailable, match="1 items are not deleted"):
        Table(Refusing(99), "any").delete_many([{"pk": "a", "sk": "b"}], pauses=(1, 2))

    assert pauses == [1, 2]


def test_many_items_are_deleted_at_once(repositories: Repositories) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(60)]
    for key in keys[:40]:
        repositories.aggregator_table.put({**key, "part": bytes(1000)})

    repositories.aggregator_table.delete_many(keys)

    assert repositories.aggregator_table.get_many(keys) == []


def test_what_can_be_read_of_a_batch_is_told_apart_from_what_cannot(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    items, unread = Table(Throttled(1, 2), "any").get_available(keys)

    assert ([dict(item) for item in items], unread) == (keys[:3], keys[3:])
    assert len(pauses) == 4


def test_a_batch_of_which_nothing_can_be_read_is_not_read_in_part(pauses: list[float]) -> None:
    keys = [{"pk": f"{number}", "sk": "b"} for number in range(4)]

    with pytest.raises(Unavailable, match="4 items"):
        Table(Throttled(), "any").get_available(keys)

    assert len(pauses) == 4


@pytest.mark.parametrize("page", [1, 3, 100])
@pytest.mark.parametrize("limit", [None, 2, 7, 50])
def test_a_query_gives_the_same_by_pages_of_any_size(repositories: Repositories, page: int, limit: int | None) -> None:
    table = repositories.aggregator_table
    for number in range(9):
        table.put({"pk": "a", "sk": f"{number}"})

    found = table.query("#pk = :pk", {"pk": "a"}, limit=limit, page=page)

    assert [item["sk"] for item in found] == [f"{number}" for number in range(9)][:limit]


def test_deleting_what_is_not_there_is_no_error(repositories: Repositories) -> None:
    repositories.aggregator_table.put(ITEM)

    for _ in range(2):
        repositories.aggregator_table.delete({"pk": "a", "sk": "b"})

    assert repositories.aggregator_table.get({"pk": "a", "sk": "b"}) is None


def test_a_wrong_call_is_seen_as_one(repositories: Repositories) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        repositories.aggregator_table.put({"pk": "", "sk": "b"})


def test_a_table_that_is_not_there_makes_the_engine_unavailable(repositories: Repositories) -> None:
    table = Table(Transport(repositories.dynamodb), "nowhere")

    with pytest.raises(Unavailable, match="ResourceNotFoundException"):
        table.get({"pk": "a", "sk": "b"})


def test_an_engine_that_is_away_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = dynamodb_client(Settings(dynamodb_endpoint_url=f"http://127.0.0.1:{port}"), {})

    with pytest.raises(Unavailable, match="127.0.0.1"):
        Table(Transport(client), "any").get({"pk": "a", "sk": "b"})
