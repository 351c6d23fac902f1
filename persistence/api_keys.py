"""API keys: who may call, and what for. Of a key only a salted hash is kept; the key itself is told once."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from persistence.dynamodb.table import Item, Table
from persistence.errors import ConditionFailed, NotFound
from persistence.records.tenants import DEFAULT_TENANT, tenant_of
from persistence.records.timestamps import Clock, to_text, utc_now

PATTERN = r"^dh_[0-9a-f]{16}_[A-Za-z0-9_-]{43}$"
# 256 random bits cannot be guessed, so that a fast hash guards them as well as a slow one would.
_SECRET_BYTES, _SALT_BYTES, _ID_BYTES = 32, 16, 8
_PARTITION = "keys"
_KEY = re.compile(PATTERN, re.ASCII)


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key.

    `name` is for people; `scopes` are those of the documents' `x-required-scope`; `tenant` is whose requests it opens;
    for one that is `unlimited` neither the rate limit nor the quota of open requests holds.
    """

    key_id: str
    name: str
    scopes: frozenset[str]
    salt: bytes
    digest: bytes
    created_at: str
    revoked_at: str | None = None
    tenant: str = DEFAULT_TENANT
    unlimited: bool = False

    def matches(self, text: str) -> bool:
        """Whether the text is this very key, looked at in constant time."""
        return hmac.compare_digest(_digest(self.salt, text), self.digest)


def new_key() -> str:
    """A key that is kept nowhere yet."""
    return _text(secrets.token_hex(_ID_BYTES))


def id_of(text: str) -> str | None:
    """The id that a key names, None for what is no key."""
    return text.split("_")[1] if _KEY.fullmatch(text) else None


class ApiKeys:
    """The repository of keys. Every method raises `persistence.errors.Unavailable` when DynamoDB cannot answer."""

    def __init__(self, table: Table, *, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    def create(
        self, name: str, scopes: Collection[str], *, tenant: str = DEFAULT_TENANT, unlimited: bool = False
    ) -> str:
        """Make a key with these scopes and return it; it cannot be had again."""
        key_id, salt = secrets.token_hex(_ID_BYTES), secrets.token_bytes(_SALT_BYTES)
        text = _text(key_id)
        facts = {
            "name": name,
            "scopes": sorted(scopes),
            "tenant": tenant,
            "unlimited": unlimited,
            "salt": salt,
            "digest": _digest(salt, text),
            "createdAt": to_text(self._clock()),
        }
        self._table.put(_place(key_id) | facts)
        return text

    def get(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None when there never was one."""
        item = self._table.get(_place(key_id))
        return _from_item(item) if item else None

    def list(self) -> list[ApiKey]:
        """All keys, revoked ones included, the oldest first."""
        found = [_from_item(item) for item in self._table.query("#pk = :pk", {"pk": _PARTITION})]
        return sorted(found, key=lambda key: key.created_at)

    def revoke(self, key_id: str) -> None:
        """Let a key open nothing any more; revoking it again changes nothing. Raises NotFound."""
        try:
            self._table.update(
                _place(key_id),
                "SET #revokedAt = if_not_exists(#revokedAt, :now)",
                condition="attribute_exists(#pk)",
                values={"now": to_text(self._clock())},
            )
        except ConditionFailed:
            raise NotFound(f"no API key {key_id}") from None


def _text(key_id: str) -> str:
    # A prefix of its own lets scanners find keys in places where none belongs.
    return f"dh_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def _place(key_id: str) -> dict[str, Any]:
    # All in one partition: they are few, read seldom, and listed by one query.
    return {"pk": _PARTITION, "sk": key_id}


def _digest(salt: bytes, text: str) -> bytes:
    return hashlib.sha256(salt + text.encode()).digest()


def _from_item(item: Item) -> ApiKey:
    return ApiKey(
        item["sk"],
        item["name"],
        frozenset(item["scopes"]),
        item["salt"],
        item["digest"],
        item["createdAt"],
        item.get("revokedAt"),
        tenant_of(item),
        item.get("unlimited", False),
    )
