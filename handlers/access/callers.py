"""Callers: known by their API keys, which must have the scope that an operation needs."""

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
    """Who was let in: by which key, to whose requests, and whether no limit holds."""

    key_id: str
    tenant: str
    unlimited: bool = False


_LOCAL = Caller("local", DEFAULT_TENANT)


class Callers:
    """Lets those in who have a key. `local_key` is one with all scopes that is kept nowhere, for one machine's use."""

    def __init__(
        self, keys: ApiKeys, *, local_key: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._known = KnownKeys(keys, clock=clock)
        self._local = _hash(local_key) if local_key else None

    async def check(self, text: str, scope: str) -> Caller:
        """Who calls with that key. Raises Problem (401, 403, 429) unless it is one with the scope, and Unavailable."""
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
    """The refusal of a call without a key."""
    detail = "send an API key, as Authorization: Bearer dh_... or as X-API-Key; python -m datahog keys makes one"
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": _REALM})


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
