"""Idempotency keys: the same key and body are answered as before (IETF draft idempotency-key-header)."""

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from persistence.dynamodb import ConditionFailed, Item, Table
from persistence.tenants import DEFAULT_TENANT, kind_of
from persistence.times import Clock, utc_now

KEPT = timedelta(hours=24)
# A request that holds a key for longer than this has died on the way; the next one takes its place, and its id.
UNDER_WAY = timedelta(seconds=30)


class KeyReused(Exception):
    """The key was used before, with another body."""


class KeyUnderWay(Exception):
    """The first request with this key has not been answered yet."""


@dataclass(frozen=True)
class Claim:
    """What a key stands for: the request's id, and the answer if it was given."""

    key: str
    request_id: str
    answer: Any | None
    tenant: str = DEFAULT_TENANT


class IdempotencyKeys:
    """The keys, in the aggregator's table. Every method raises Unavailable when DynamoDB cannot answer."""

    def __init__(self, table: Table, *, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    def claim(self, key: str, body: Any, request_id: str, *, tenant: str = DEFAULT_TENANT) -> Claim:
        """Take the tenant's key for a request (`body` is what the caller sent, `request_id` the id it shall have).

        Returns the claim, with the earlier request's id and answer where the key was taken before.
        Raises KeyReused and KeyUnderWay.
        """
        now = self._clock()
        fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        facts = {
            "fingerprint": fingerprint,
            "requestId": request_id,
            "lockedUntil": int((now + UNDER_WAY).timestamp()),
            "expiresAt": math.ceil((now + KEPT).timestamp()),
        }
        now_seconds = int(now.timestamp())
        try:
            condition = "attribute_not_exists(#pk) OR #expiresAt <= :now"
            self._table.put(_key(key, tenant) | facts, condition=condition, values={"now": now_seconds})
            return Claim(key, request_id, None, tenant)
        except ConditionFailed:
            earlier = self._table.get(_key(key, tenant))
        if earlier is None:
            raise KeyUnderWay("the first request with this Idempotency-Key has only just failed; try again")
        if earlier["fingerprint"] != fingerprint:
            raise KeyReused("this Idempotency-Key was used before, with another body")
        if "answer" in earlier:
            return Claim(key, earlier["requestId"], json.loads(earlier["answer"]), tenant)
        try:
            self._table.update(
                _key(key, tenant),
                "SET #lockedUntil = :until",
                condition="#lockedUntil <= :now AND #requestId = :id",
                values={"until": facts["lockedUntil"], "now": now_seconds, "id": earlier["requestId"]},
            )
        except ConditionFailed:
            raise KeyUnderWay("the first request with this Idempotency-Key is still under way") from None
        return Claim(key, earlier["requestId"], None, tenant)

    def answered(self, claim: Claim, answer: Any) -> None:
        """Keep the answer (any JSON value) for those who come with the same key."""
        values = {"answer": json.dumps(answer), "id": claim.request_id}
        try:
            self._table.update(
                _key(claim.key, claim.tenant), "SET #answer = :answer", condition="#requestId = :id", values=values
            )
        except ConditionFailed:
            return

    def release(self, claim: Claim) -> None:
        """Give the key back: the request was refused, and nothing came of it, unless another took it over."""
        condition = "#requestId = :id AND attribute_not_exists(#answer)"
        try:
            self._table.delete(_key(claim.key, claim.tenant), condition=condition, values={"id": claim.request_id})
        except ConditionFailed:
            return


def _key(key: str, tenant: str) -> Item:
    # Any characters may come in a key; its hash always fits DynamoDB's 2,048 bytes.
    return {"pk": f"{kind_of('idempotency', tenant)}#{hashlib.sha256(key.encode()).hexdigest()}", "sk": "key"}
