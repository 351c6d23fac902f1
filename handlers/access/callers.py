"""Authenticates callers by API key, and checks that the key has the scope of the operation."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from handlers.access.api_key_cache import KnownKeys
from handlers.problems import Problem
from persistence.api_keys import ApiKeys, id_of
from persistence.records.tenants import DEFAULT_TENANT

_REALM = 'Bearer realm="datahog"'


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: its key, its tenant, and whether it is exempt from rate limits and quotas."""

    key_id: str
    tenant: str
    unlimited: bool = False


_LOCAL = Caller("local", DEFAULT_TENANT)


class Callers:
    """Authenticates callers. `local_key` has all scopes and is not stored; it is for use on one machine."""

    def __init__(
        self, keys: ApiKeys, *, local_key: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._known = KnownKeys(keys, clock=clock)
        self._local = _hash(local_key) if local_key else None

    async def check(self, text: str, scope: str) -> Caller:
        """Returns the caller that the key `text` identifies.

        Raises Problem: 401 for an unknown or revoked key, 403 for a key without the scope, and 429 when too many
        unknown keys are tried. Raises Unavailable when the database does not respond.
        """
        if self._local and hmac.compare_digest(_hash(text), self._local):
            return _LOCAL
        key_id = id_of(text)
        key = await self._known.find(key_id) if key_id else None
        if key is None or key.revoked_at or not key.matches(text):
            raise Problem(
                "unauthorized",
                "this API key is not known, or was revoked",
                headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
            )
        if scope not in key.scopes:
            raise Problem(
                "forbidden",
                f"this API key lacks the scope {scope}",
                headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
            )
        return Caller(key.key_id, key.tenant, key.unlimited)


def no_key() -> Problem:
    """Returns the problem for a call without a key."""
    detail = "send an API key, as Authorization: Bearer dh_... or as X-API-Key; python -m datahog keys makes one"
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": _REALM})


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
