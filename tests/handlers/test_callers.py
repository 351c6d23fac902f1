"""Callers: known and unknown keys cost few lookups in the database."""

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
    """Replaces the repository: holds one key, records each lookup, and can be unavailable."""

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
    """A clock in seconds that the test sets."""

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
    """Checks a key for a scope; returns the slug of the problem, or None."""
    made = Callers(cast(Any, type("Repository", (), {"get": staticmethod(keys.look_up)})), clock=watch)

    def check(text: str, scope: str = "requests:read") -> str | None:
        try:
            asyncio.run(made.check(text, scope))
        except Problem as problem:
            return problem.slug
        return None

    return check


def test_a_key_is_looked_up_once_per_cache_period(check: Any, keys: Keys, watch: Watch) -> None:
    assert [check(keys.text) for _ in range(3)] == [None] * 3
    assert len(keys.asked) == 1

    watch.now += REMEMBERED
    assert check(keys.text) is None
    assert len(keys.asked) == 2


def test_a_revoked_key_is_refused_after_cache_expiry(check: Any, keys: Keys, watch: Watch) -> None:
    check(keys.text)
    keys.table[id_of(keys.text) or ""]["revokedAt"] = "2026-11-24T10:00:00.000Z"

    watch.now += REMEMBERED
    assert check(keys.text) == "unauthorized"


def test_a_missing_scope_differs_from_an_unknown_key(check: Any, keys: Keys) -> None:
    assert check(keys.text, "admin") == "forbidden"
    assert check(new_key(), "admin") == "unauthorized"


def test_a_known_id_with_a_wrong_secret_is_refused(check: Any, keys: Keys) -> None:
    check(keys.text)

    assert check(keys.text[:20] + new_key()[20:]) == "unauthorized"


def test_guessed_keys_cost_few_lookups(check: Any, keys: Keys) -> None:
    guess = new_key()

    assert [check(text) for text in ("", "dh_", "x" * 100, guess, guess, guess)] == ["unauthorized"] * 6
    assert keys.asked == [id_of(guess)]


def test_guesses_evict_no_key_from_the_bounded_cache(check: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_cache, "_MOST_GUESSES", 3)
    check(keys.text)

    assert {check(new_key()) for _ in range(10)} == {"unauthorized"}
    assert check(keys.text) is None
    assert keys.asked.count(id_of(keys.text) or "") == 1


def test_guess_lookups_are_limited_and_known_keys_unaffected(
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


def test_existing_keys_do_not_count_as_guesses(check: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_cache, "_GUESSES", 1)

    assert [check(keys.repository.create("Bob", ["requests:read"])) for _ in range(5)] == [None] * 5


def test_concurrent_calls_with_a_new_key_share_few_lookups(keys: Keys) -> None:
    made = Callers(cast(Any, type("Repository", (), {"get": staticmethod(keys.look_up)})))

    async def many() -> None:
        await asyncio.gather(*(made.check(keys.text, "requests:read") for _ in range(200)))

    asyncio.run(many())

    assert len(keys.asked) <= api_key_cache._AT_ONCE


def test_an_unavailable_database_is_not_a_wrong_key(check: Any, keys: Keys) -> None:
    keys.away = True

    with pytest.raises(Unavailable):
        check(keys.text)


def test_the_local_key_needs_no_lookup(keys: Keys) -> None:
    local = new_key()
    made = Callers(cast(Any, None), local_key=local)

    caller = asyncio.run(made.check(local, "admin"))

    assert (caller.tenant, caller.unlimited) == (DEFAULT_TENANT, False)


def test_a_caller_has_the_id_and_tenant_of_its_key(keys: Keys) -> None:
    text = keys.repository.create("client", ["admin"], tenant="acme", unlimited=True)

    caller = asyncio.run(Callers(keys.repository).check(text, "admin"))

    assert caller == Caller(id_of(text) or "", "acme", unlimited=True)
