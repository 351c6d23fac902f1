"""Listing retrievals: pages hold each retrieval once, newest first."""

import base64
from typing import Any

import pytest

from persistence.errors import BadCursor
from persistence.index.shards import shard_of
from tests.support.repositories import RETENTION, Repositories

SHARDS = 4


@pytest.fixture
def repositories(dynamodb: Any) -> Repositories:
    """The repositories over this test's own tables; the list index has a sixteenth of the shards."""
    return Repositories(dynamodb, shards=16 * SHARDS)


def encoded(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


BAD_CURSORS = {
    "not base64": "%%%",
    "not a whole number of bytes": "abcde",
    "not ASCII": "\xe9\N{PILE OF POO}",
    "binary": encoded(bytes(range(256))),
    "nothing in it": encoded(" "),
    "no time": encoded("#abc"),
    "no id": encoded("2026-11-24T10:00:00.000Z#"),
    "a time alone": encoded("2026-11-24T10:00:00.000Z"),
    "a key of DynamoDB": encoded('{"pk": {"S": "abc"}}'),
    "an id that is none": encoded("2026-11-24T10:00:00.000Z#a b"),
    "a zero byte": encoded("2026-11-24T10:00:00.000Z#abc\x00"),
    "a line end": encoded("2026-11-24T10:00:00.000Z#abc\n"),
    "digits of another script": encoded("\u0662\u0660\u0662\u0666-11-24T10:00:00.000Z#abc"),
    "a time of another form": encoded("9#abc"),
    "longer than a key may be": encoded("2026-11-24T10:00:00.000Z#" + "a" * 5000),
    "huge": "A" * 1_000_000,
    "of another alphabet": encoded("2026-11-24T10:00:00.000Z#abc") + "%%%%",
}


def pages(repositories: Repositories, limit: int) -> list[list[str]]:
    """The ids on each page of the whole list."""
    found, cursor = [], None
    while True:
        page, cursor = repositories.retrievals.newest(limit=limit, cursor=cursor)
        found.append([retrieval.request_id for retrieval in page])
        if cursor is None:
            return found


def create(repositories: Repositories, count: int, *, together: int = 1) -> list[str]:
    """Creates retrievals, some in the same millisecond; returns their ids, newest first."""
    made = []
    for number in range(count):
        if number % together == 0:
            repositories.clock.advance(milliseconds=1)
        made.append(repositories.retrieval())
    made.sort(key=lambda retrieval: (retrieval.created_at, retrieval.request_id), reverse=True)
    return [retrieval.request_id for retrieval in made]


@pytest.mark.parametrize("together", [1, 5, 100])
@pytest.mark.parametrize("limit", [1, 7, 20, 100])
def test_pages_hold_each_retrieval_once_newest_first(repositories: Repositories, limit: int, together: int) -> None:
    ids = create(repositories, 40, together=together)

    found = pages(repositories, limit)

    assert len({shard_of("newest", request_id, SHARDS) for request_id in ids}) == SHARDS
    assert [request_id for page in found for request_id in page] == ids
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1], "the last page is empty"


def test_a_page_of_the_largest_size_is_full(repositories: Repositories) -> None:
    ids = create(repositories, 101)

    assert pages(repositories, 100) == [ids[:100], ids[100:]]


def test_an_empty_list_has_one_empty_page(repositories: Repositories) -> None:
    assert pages(repositories, 20) == [[]]


def test_records_created_between_pages_shift_no_page(repositories: Repositories) -> None:
    ids = create(repositories, 10)
    first, cursor = repositories.retrievals.newest(limit=5, cursor=None)
    newer = create(repositories, 5)

    second, end = repositories.retrievals.newest(limit=5, cursor=cursor)

    assert [retrieval.request_id for retrieval in (*first, *second)] == ids
    assert end is None
    assert pages(repositories, 100) == [newer + ids]


def test_an_ended_retrieval_is_listed_until_it_expires(repositories: Repositories) -> None:
    ids = create(repositories, 6)
    for request_id in ids[::2]:
        repositories.retrievals.refused(repositories.retrievals.get(request_id), "HTTP 422")

    assert pages(repositories, 100) == [ids]
    repositories.clock.advance(seconds=RETENTION)

    assert pages(repositories, 100) == [ids[1::2]]
    assert pages(repositories, 2) == [[ids[1]], [ids[3]], [ids[5]]]


def test_the_list_shows_current_statuses(repositories: Repositories) -> None:
    retrieval = repositories.retrieval("gas", "water")
    repositories.retrievals.accepted(retrieval)

    (listed,), _ = repositories.retrievals.newest(limit=20, cursor=None)

    assert listed == repositories.retrievals.get(retrieval.request_id)


def test_a_cursor_holds_url_safe_characters_only(repositories: Repositories) -> None:
    create(repositories, 2)

    _, cursor = repositories.retrievals.newest(limit=1, cursor=None)

    assert cursor
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert len(cursor) <= 512


@pytest.mark.parametrize("cursor", BAD_CURSORS.values(), ids=list(BAD_CURSORS))
def test_a_forged_cursor_is_refused(repositories: Repositories, cursor: str) -> None:
    create(repositories, 2)

    with pytest.raises(BadCursor):
        repositories.retrievals.newest(limit=1, cursor=cursor)
