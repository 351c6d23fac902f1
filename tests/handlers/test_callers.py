"""Callers: a key is looked up seldom, and one that nobody has no oftener."""

import asyncio
from typing import Any, cast

import pytest

from handlers.access import api_key_cache
from handlers.access.api_key_cache import REMEMBERED
from handlers.access.callers import Caller, Callers
from handlers.problems import Problem
from persistence.api_keys import ApiKey, ApiKeys, id_of, new_key
from persistence.errors import Unavailable
from persistence.records.tenants import DEFAULT_TENANT


class Keys:
    """Stands in for the repository: knows the one key, counts how often it is asked, and can be away."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.away = False
        self.repository = ApiKeys(cast(Any, self))
        self.text = self.repository.create("Ada", ["requests:read"])

    def put(self, item: dict[str, Any]) -> None:
        self.table[item["sk"]] = item

    def get(self, key: Any) -> Any:
        return self.table.get(key["sk"])

    def look_up(self, key_id: str) -> ApiKey | None:
        self.asked.append(key_id)
        if self.away:
            raise Unavailable("DynamoDB: away")
        return self.repository.get(key_id)


class Watch:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def check(keys: Keys, watch: Watch) -> Any:
    """Checks a key for a scope; the slug of the problem, None if there is none."""
    made = Callers(cast(Any, type("Repository", (), {"get": staticmethod(keys.look_up)})), clock=watch)

    def check(text: str, scope: str = "requests:read") -> str | None:
        try:
            asyncio.run(made.check(text, scope))
        except Problem as problem:
            return problem.slug
        return None

    return check


def test_a_key_is_looked_up_once_in_a_while(check: Any, keys: Keys, watch: Watch) -> None:
    assert [check(keys.text) for _ in range(3)] == [None] * 3
    assert len(keys.asked) == 1

    watch.now += REMEMBERED
    assert check(keys.text) is None
    assert len(keys.asked) == 2


def test_a_revoked_key_opens_nothing_once_it_is_looked_up_again(check: Any, keys: Keys, watch: Watch) -> None:
    check(keys.text)
    keys.table[id_of(keys.text) or ""]["revokedAt"] = "2026-11-24T10:00:00.000Z"

    watch.now += REMEMBERED
    assert check(keys.text) == "unauthorized"


def test_a_scope_that_is_missing_is_told_apart_from_a_key_that_is_not_known(check: Any, keys: Keys) -> None:
    assert check(keys.text, "admin") == "forbidden"
    assert check(new_key(), "admin") == "unauthorized"


def test_the_right_id_with_a_wrong_secret_opens_nothing(check: Any, keys: Keys) -> None:
    check(keys.text)

    assert check(keys.text[:20] + new_key()[20:]) == "unauthorized"


def test_who_guesses_keeps_nobody_busy(check: Any, keys: Keys) -> None:
    guess = new_key()

    assert [check(text) for text in ("", "dh_", "x" * 100, guess, guess, guess)] == ["unauthorized"] * 6
    assert keys.asked == [id_of(guess)]


def test_what_is_remembered_is_bounded_and_guesses_push_out_no_key(
    check: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key_cache, "_MOST_GUESSES", 3)
    check(keys.text)

    assert {check(new_key()) for _ in range(10)} == {"unauthorized"}
    assert check(keys.text) is None
    assert keys.asked.count(id_of(keys.text) or "") == 1


def test_few_guesses_a_second_are_looked_up_and_no_key_that_is_known_waits(
    check: Any, keys: Keys, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key_cache, "_GUESSES", 3)
    check(keys.text)
    watch.now += REMEMBERED
    late = keys.repository.create("Bob", ["requests:read"])

    assert [check(new_key()) for _ in range(5)] == ["unauthorized"] * 3 + ["too-many-requests"] * 2
    assert check(keys.text) is None
    assert check(late) == "too-many-requests"

    watch.now += 1
    assert [check(late), check(new_key())] == [None, "unauthorized"]


def test_keys_that_there_are_count_as_no_guesses(check: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_cache, "_GUESSES", 1)

    assert [check(keys.repository.create("Bob", ["requests:read"])) for _ in range(5)] == [None] * 5


def test_many_who_come_with_a_new_key_at_once_have_it_looked_up_seldom(keys: Keys) -> None:
    made = Callers(cast(Any, type("Repository", (), {"get": staticmethod(keys.look_up)})))

    async def many() -> None:
        await asyncio.gather(*(made.check(keys.text, "requests:read") for _ in range(200)))

    asyncio.run(many())

    assert len(keys.asked) <= api_key_cache._AT_ONCE


def test_a_database_that_is_away_is_not_taken_for_a_wrong_key(check: Any, keys: Keys) -> None:
    keys.away = True

    with pytest.raises(Unavailable):
        check(keys.text)


def test_the_local_key_is_looked_up_nowhere(keys: Keys) -> None:
    local = new_key()
    made = Callers(cast(Any, None), local_key=local)

    caller = asyncio.run(made.check(local, "admin"))

    assert (caller.tenant, caller.unlimited) == (DEFAULT_TENANT, False)


def test_whoever_is_let_in_is_known_by_key_and_tenant(keys: Keys) -> None:
    text = keys.repository.create("client", ["admin"], tenant="acme", unlimited=True)

    caller = asyncio.run(Callers(keys.repository).check(text, "admin"))

    assert caller == Caller(id_of(text) or "", "acme", unlimited=True)
