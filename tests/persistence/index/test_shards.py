"""Shards: their number is raised and lowered at any time, by any process, and no record is ever out of sight."""

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
    """The same tables, as a process sees them whose setting is so many."""
    return Repositories(repositories.dynamodb, prefix=repositories.prefix, clock=repositories.clock, shards=count)


def opened(repositories: Repositories, count: int = 20) -> set[str]:
    return {repositories.open_request().request_id for _ in range(count)}


def seen(repositories: Repositories) -> set[str]:
    return set(repositories.due_ids(repositories.clock() + timedelta(hours=1), limit=1000))


@pytest.mark.parametrize("counts", [(2, 8, 32), (32, 8, 1), (1, 64, 3)], ids=["raised", "lowered", "both"])
def test_what_was_opened_under_any_count_is_seen(repositories: Repositories, counts: Sequence[int]) -> None:
    processes = [with_shards(repositories, count) for count in counts]

    ids = set().union(*(opened(process) for process in processes))

    for process in processes:
        assert seen(process) == ids


def test_a_process_that_runs_sees_what_one_with_more_shards_opens(repositories: Repositories) -> None:
    small, large = with_shards(repositories, 2), with_shards(repositories, 40)
    before = opened(small)
    assert seen(small) == before

    after = opened(large)

    assert seen(small) == before | after


def test_lists_are_whole_after_a_change_of_the_count(repositories: Repositories) -> None:
    ids = set()
    for count in (200, 1, 64):
        process = with_shards(repositories, count)
        ids |= {process.retrieval().request_id for _ in range(10)}

    for count in (1, 64):
        found, _ = with_shards(repositories, count).retrievals.newest(limit=100, cursor=None)
        assert {retrieval.request_id for retrieval in found} == ids


def test_what_a_table_from_before_holds_is_seen(repositories: Repositories) -> None:
    old = {f"open#{number}": f"r{number}" for number in range(4)}
    for shard, request_id in old.items():
        request = repositories.open_request(request_id=request_id)
        key = {"pk": request.request_id, "sk": "request"}
        values = {"shard": shard}
        repositories.aggregator_table.update(key, "SET #dueShard = :shard", condition="#pk = #pk", values=values)

    assert seen(with_shards(repositories, 1)) == set(old.values())


def test_a_new_table_has_no_more_shards_than_it_is_told(dynamodb: Any, repositories: Repositories) -> None:
    prefix = f"{repositories.prefix}-new"
    create_tables(dynamodb, prefix, shards=2)
    # Those who are there already keep what they are told.
    create_tables(dynamodb, prefix, shards=9)

    for name in (aggregator_table(prefix), client_table(prefix)):
        assert Shards(Table(Transport(dynamodb), name), 1).names(OPEN) == ["open#0", "open#1"]


def test_processes_that_start_together_keep_the_largest_count(repositories: Repositories) -> None:
    counts = [5, 64, 17, 32, 8, 9]
    shards = [Shards(repositories.aggregator_table, count) for count in counts]

    assert at_once([one.tell for one in shards]) == [None] * len(counts)

    assert len(Shards(repositories.aggregator_table, 1).names(OPEN)) == 64


def test_the_number_is_kept_before_the_first_write_needs_it(
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
def test_what_people_list_has_fewer_shards(count: int, others: int) -> None:
    assert listed(count) == others


def test_records_are_read_in_batches_as_far_as_they_are_due(repositories: Repositories) -> None:
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
