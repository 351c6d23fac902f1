"""Shards: any process may raise or lower their number at any time, and every record stays visible."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from persistence.dynamodb.schema import aggregator_table, client_table, create_tables
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import Unavailable
from persistence.index.due import Due, DueIndex
from persistence.index.shards import OPEN, Shards, listed
from persistence.items import Items
from persistence.records.request import Request
from tests.support.repositories import HandClock, Repositories, at_once


def with_shards(repositories: Repositories, count: int) -> Repositories:
    """The same tables, as a process with this shard count in its settings sees them."""
    return Repositories(repositories.dynamodb, prefix=repositories.prefix, clock=repositories.clock, shards=count)


def opened(repositories: Repositories, count: int = 20) -> set[str]:
    return {repositories.open_request().request_id for _ in range(count)}


def seen(repositories: Repositories) -> set[str]:
    return set(repositories.due_ids(repositories.clock() + timedelta(hours=1), limit=1000))


@pytest.mark.parametrize("counts", [(2, 8, 32), (32, 8, 1), (1, 64, 3)], ids=["raised", "lowered", "both"])
def test_records_opened_with_any_shard_count_are_seen(repositories: Repositories, counts: Sequence[int]) -> None:
    processes = [with_shards(repositories, count) for count in counts]

    ids = set().union(*(opened(process) for process in processes))

    for process in processes:
        assert seen(process) == ids


def test_a_running_process_sees_records_in_added_shards(repositories: Repositories) -> None:
    small, large = with_shards(repositories, 2), with_shards(repositories, 40)
    before = opened(small)
    assert seen(small) == before

    after = opened(large)

    assert seen(small) == before | after


def test_lists_are_complete_after_a_change_of_the_shard_count(repositories: Repositories) -> None:
    ids = set()
    for count in (200, 1, 64):
        process = with_shards(repositories, count)
        ids |= {process.retrieval().request_id for _ in range(10)}

    for count in (1, 64):
        found, _ = with_shards(repositories, count).retrievals.newest(limit=100, cursor=None)
        assert {retrieval.request_id for retrieval in found} == ids


def test_records_of_a_table_without_a_stored_count_are_seen(repositories: Repositories) -> None:
    old = {f"open#{number}": f"r{number}" for number in range(4)}
    for shard, request_id in old.items():
        request = repositories.open_request(request_id=request_id)
        key = {"pk": request.request_id, "sk": "request"}
        values = {"shard": shard}
        repositories.aggregator_table.update(
            key, "SET #dueShard = :shard", condition="attribute_exists(#pk)", values=values
        )

    assert seen(with_shards(repositories, 1)) == set(old.values())


def test_a_new_table_keeps_its_first_shard_count(dynamodb: Any, repositories: Repositories) -> None:
    prefix = f"{repositories.prefix}-new"
    create_tables(dynamodb, prefix, shards=2)
    # The tables exist already, so the second call does not change their count.
    create_tables(dynamodb, prefix, shards=9)

    for name in (aggregator_table(prefix), client_table(prefix)):
        assert Shards(Table(Transport(dynamodb), name), 1).names(OPEN) == ["open#0", "open#1"]


def test_concurrent_starts_keep_the_largest_shard_count(repositories: Repositories) -> None:
    counts = [5, 64, 17, 32, 8, 9]
    shards = [Shards(repositories.aggregator_table, count) for count in counts]

    assert at_once([one.tell for one in shards]) == [None] * len(counts)

    assert len(Shards(repositories.aggregator_table, 1).names(OPEN)) == 64


def test_the_shard_count_is_stored_before_the_first_record(
    repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = with_shards(repositories, 100)

    def fail(*_: object, **__: object) -> None:
        raise Unavailable("DynamoDB")

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "tell", fail)
        with pytest.raises(Unavailable):
            process.open_request()
    ids = opened(process)

    assert seen(with_shards(repositories, 1)) == ids


@pytest.mark.parametrize(("count", "others"), [(1, 1), (16, 1), (17, 2), (128, 8)])
def test_the_list_index_has_fewer_shards(count: int, others: int) -> None:
    assert listed(count) == others


def test_due_records_are_read_in_batches_and_moved_ones_left_out(repositories: Repositories) -> None:
    table, clock = repositories.aggregator_table, HandClock()
    clock.now = repositories.clock() + timedelta(minutes=1)
    items = Items(table, "request", Request.from_item, shards=Shards(table, 1), clock=clock)
    ids = opened(repositories, 3)
    moved = repositories.open_request()
    index = DueIndex(table, Shards(table, 1))
    entries = [*index.due(clock(), limit=9), Due(moved.due_at or "", "gone", "request")]
    repositories.requests.look_again(moved, clock() + timedelta(seconds=1))

    found = items.get_due(entries, clock())

    assert {entry.record_id for entry in found} == ids
    assert all(isinstance(record, Request) for record in found.values())
