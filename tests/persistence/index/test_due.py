"""The due index: it lists the open records of all shards in the order in which they are due."""

from datetime import timedelta
from functools import partial

import pytest

from persistence.index.due import UNDELIVERED
from persistence.index.shards import OPEN, shard_of
from persistence.records.request import Request
from persistence.records.timestamps import to_text
from tests.support.engines.reads import Reads
from tests.support.repositories import Repositories, answer_in_small_pages, at_once

HEAL_AFTER = 10  # seconds
SHARDS = 4


def opened_one_second_apart(repositories: Repositories, count: int) -> list[str]:
    requests = []
    for _ in range(count):
        requests.append(repositories.open_request())
        repositories.clock.advance(seconds=1)
    return [request.request_id for request in requests]


def test_records_spread_over_all_shards_and_each_keeps_its_own() -> None:
    shards = [shard_of(OPEN, f"request-{number}", SHARDS) for number in range(1000)]

    assert {shards.count(f"open#{number}") // 200 for number in range(SHARDS)} == {1}
    assert shards == [shard_of(OPEN, f"request-{number}", SHARDS) for number in range(1000)]
    assert {shard_of(UNDELIVERED, "a", SHARDS)[:-1], shard_of(OPEN, "a", SHARDS)[:-1]} == {"undelivered#", "open#"}


def test_records_are_due_oldest_first_across_shards(repositories: Repositories) -> None:
    ids = opened_one_second_apart(repositories, 30)
    later = repositories.clock.advance(minutes=1)

    assert len({shard_of(OPEN, request_id, SHARDS) for request_id in ids}) == SHARDS
    assert repositories.due_ids(later, limit=100) == ids
    assert repositories.due_ids(later, limit=7) == ids[:7]
    assert repositories.due_ids(later, limit=1) == ids[:1]


def test_a_record_is_not_due_before_its_time(repositories: Repositories) -> None:
    opened = repositories.clock()
    ids = opened_one_second_apart(repositories, 3)
    due = opened + timedelta(seconds=HEAL_AFTER)

    assert repositories.due_ids(due - timedelta(milliseconds=1), limit=10) == []
    assert repositories.due_ids(due, limit=10) == ids[:1]
    assert repositories.due_ids(due + timedelta(seconds=1), limit=10) == ids[:2]


def test_every_page_of_every_shard_is_read(repositories: Repositories) -> None:
    ids = opened_one_second_apart(repositories, 30)
    later = repositories.clock.advance(minutes=1)
    answer_in_small_pages(repositories.dynamodb, 2)

    assert repositories.due_ids(later, limit=100) == ids
    assert repositories.due_ids(later, limit=25) == ids[:25]


def test_a_completion_with_open_jobs_left_keeps_the_due_time(repositories: Repositories) -> None:
    request = repositories.open_request(3)

    for job in request.jobs[:2]:
        repositories.clock.advance(minutes=10)
        repositories.requests.finish_job(request.attempt(job), b"1")
        assert repositories.requests.get(request.request_id).due_at == request.due_at


def test_the_last_completion_makes_the_request_due_soon(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    repositories.clock.advance(minutes=10)
    repositories.requests.look_again(request, repositories.clock() + timedelta(minutes=5))

    for job in request.jobs:
        assert repositories.due_ids(repositories.clock.advance(seconds=HEAL_AFTER), limit=10) == []
        repositories.requests.finish_job(request.attempt(job), b"1")

    assert repositories.due_ids(repositories.clock(), limit=10) == []
    assert repositories.due_ids(repositories.clock.advance(seconds=HEAL_AFTER), limit=10) == [request.request_id]


@pytest.mark.parametrize("seconds", [0, HEAL_AFTER - 1, 3600])
def test_a_due_time_that_is_soon_enough_is_kept(repositories: Repositories, seconds: float) -> None:
    request = repositories.open_request()
    repositories.clock.advance(seconds=seconds)

    ended = repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    assert ended
    assert ended.due_at == request.due_at


def test_a_later_due_time_is_brought_forward(repositories: Repositories) -> None:
    request = repositories.open_request()
    now = repositories.clock.advance(seconds=HEAL_AFTER)
    repositories.requests.look_again(request, now + timedelta(minutes=5))

    ended = repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")

    assert ended
    assert ended.due_at == to_text(now + timedelta(seconds=HEAL_AFTER))


def test_combined_last_completions_make_the_request_due_soon(repositories: Repositories) -> None:
    request = repositories.open_request(5)
    now = repositories.clock.advance(minutes=10)

    repositories.requests.look_again(request, now + timedelta(minutes=5))

    at_once([partial(repositories.requests.finish_job, request.attempt(job), b"1") for job in request.jobs])

    ended = repositories.requests.get(request.request_id)
    assert (ended.ended, ended.due_at) == (True, to_text(now + timedelta(seconds=HEAL_AFTER)))


def test_an_entry_moved_meanwhile_is_not_deferred(repositories: Repositories) -> None:
    request = repositories.open_request()
    now = repositories.clock.advance(minutes=1)
    (entry,) = repositories.due.due(now, limit=1)
    repositories.due.defer(entry, now + timedelta(seconds=5))

    repositories.due.defer(entry, now + timedelta(days=1))

    assert repositories.requests.get(request.request_id).due_at == to_text(now + timedelta(seconds=5))


def test_a_planned_attempt_does_not_delay_the_next_check(repositories: Repositories) -> None:
    request = repositories.open_request()

    repositories.requests.record_failure(
        request.attempt(request.jobs[0]), "timeout", repositories.clock.advance(hours=1)
    )

    assert repositories.due_ids(repositories.clock(), limit=10) == [request.request_id]


def test_a_record_is_not_due_before_its_next_check(repositories: Repositories) -> None:
    request = repositories.open_request()
    now = repositories.clock.advance(minutes=1)

    repositories.requests.look_again(request, now + timedelta(minutes=5))

    assert repositories.due_ids(now, limit=10) == []
    assert repositories.due_ids(now + timedelta(minutes=5), limit=10) == [request.request_id]


def test_scheduling_the_next_check_keeps_the_version(repositories: Repositories) -> None:
    request = repositories.open_request()
    later = repositories.clock() + timedelta(minutes=5)

    repositories.requests.look_again(request, later)

    looked_at = repositories.requests.get(request.request_id)
    assert looked_at.due_at == to_text(later)
    assert (looked_at.version, looked_at.updated_at) == (request.version, request.updated_at)


def test_a_stale_record_does_not_defer_the_next_check(repositories: Repositories) -> None:
    request = repositories.open_request(2)
    repositories.requests.finish_job(request.attempt(request.jobs[0]), b"1")
    changed = repositories.requests.get(request.request_id)

    repositories.requests.look_again(request, repositories.clock() + timedelta(days=1))

    assert repositories.requests.get(request.request_id) == changed


def test_a_deleted_record_gets_no_next_check(repositories: Repositories) -> None:
    request = repositories.open_request()
    repositories.aggregator_table.delete({"pk": request.request_id, "sk": "request"})

    repositories.requests.look_again(request, repositories.clock())

    assert repositories.indexed("aggregator") == set()


def test_undelivered_requests_are_listed_since_a_time_in_order(repositories: Repositories) -> None:
    def give_up() -> Request:
        request = repositories.ended_request()
        repositories.deliveries.attempt_failed(request, "HTTP 410", None)
        repositories.clock.advance(seconds=1)
        return request

    start = repositories.clock()
    ids = [give_up().request_id for _ in range(12)]

    assert repositories.due.undelivered(start, limit=100) == ids
    assert repositories.due.undelivered(start, limit=5) == ids[:5]
    assert repositories.due.undelivered(start + timedelta(seconds=9), limit=100) == ids[9:]
    assert repositories.due_ids(repositories.clock(), limit=100) == []


def test_ended_requests_do_not_add_to_the_cost_of_a_due_query(repositories: Repositories) -> None:
    def query_due() -> tuple[int, float | None]:
        reads.reset()
        assert set(repositories.due_ids(repositories.clock(), limit=500)) == due
        # One small item holds the number of shards.
        assert set(reads.calls) == {"Query", "GetItem"}
        assert reads.calls["GetItem"] == 1
        return reads.items["Query"], reads.units.get("Query")

    due = {repositories.open_request().request_id for _ in range(7)}
    repositories.clock.advance(seconds=10)
    reads = Reads(repositories.dynamodb)
    before = query_due()

    for number in range(40):
        request = repositories.ended_request()
        if number % 2:
            repositories.deliveries.succeeded(request)
        else:
            repositories.deliveries.attempt_failed(request, "HTTP 410", None)
    for _ in range(40):
        repositories.open_request()

    # DynamoDB reports the read units of a query; the embedded engine does not.
    assert query_due() == before == (len(due), before[1])
