"""API keys: they are shown once, stored as salted hashes and revoked for good."""

import pytest

from persistence.api_keys import PATTERN, ApiKeys, id_of, new_key
from persistence.dynamodb.schema import keys_table
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import NotFound
from tests.support.repositories import Repositories


@pytest.fixture
def keys(repositories: Repositories) -> ApiKeys:
    return ApiKeys(Table(Transport(repositories.dynamodb), keys_table(repositories.prefix)), clock=repositories.clock)


def test_a_key_is_found_by_its_id_and_matches_its_text_only(keys: ApiKeys) -> None:
    text = keys.create("Ada", ["requests:write", "requests:read"])

    key = keys.get(id_of(text) or "")

    assert key is not None
    assert (key.name, sorted(key.scopes), key.revoked_at) == ("Ada", ["requests:read", "requests:write"], None)
    assert key.matches(text)
    assert not key.matches(text[:-1] + ("a" if text[-1] != "a" else "b"))
    assert not key.matches("")


def test_a_key_is_stored_as_a_hash_with_its_own_salt(keys: ApiKeys, repositories: Repositories) -> None:
    texts = [keys.create("Ada", ["admin"]) for _ in range(2)]

    items = repositories.dynamodb.scan(TableName=keys_table(repositories.prefix))["Items"]

    for text in texts:
        # The secret itself may contain underscores.
        assert text.split("_", 2)[2] not in str(items)
    assert len({item["salt"]["B"] for item in items}) == len({item["digest"]["B"] for item in items}) == 2


def test_revoking_again_keeps_the_first_revocation_time(keys: ApiKeys, repositories: Repositories) -> None:
    key_id = id_of(keys.create("Ada", ["admin"])) or ""
    keys.revoke(key_id)
    revoked = keys.get(key_id)

    repositories.clock.advance(hours=1)
    keys.revoke(key_id)

    assert revoked is not None
    assert revoked.revoked_at
    assert keys.get(key_id) == revoked


def test_revoking_an_unknown_key_is_not_found(keys: ApiKeys) -> None:
    with pytest.raises(NotFound, match="no API key nobody"):
        keys.revoke("nobody")

    assert keys.list() == []


def test_keys_are_listed_oldest_first(keys: ApiKeys, repositories: Repositories) -> None:
    for name in ("Ada", "Grace", "Mary"):
        keys.create(name, ["admin"])
        repositories.clock.advance(seconds=1)
    keys.revoke(keys.list()[1].key_id)

    assert [(key.name, bool(key.revoked_at)) for key in keys.list()] == [
        ("Ada", False),
        ("Grace", True),
        ("Mary", False),
    ]


def test_new_keys_are_unique_and_match_the_pattern() -> None:
    made = {new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(id_of(text) for text in made)
    assert PATTERN.startswith("^dh_")


_KEY = f"dh_{'0' * 16}_{'a' * 43}"


@pytest.mark.parametrize("text", ["", "dh_", "dh__", "x" * 63, "dh_" + "g" * 16 + "_" + "a" * 43, _KEY + "\n"])
def test_a_malformed_key_has_no_id(text: str) -> None:
    assert id_of(text) is None
