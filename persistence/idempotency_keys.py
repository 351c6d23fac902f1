"""Idempotency keys: the same key and body are answered as before (IETF draft idempotency-key-header)."""

import hashlib
import json
import math
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from persistence.dynamodb.table import Item, Table
from persistence.errors import ConditionFailed, KeyReused, KeyUnderWay
from persistence.records.tenants import DEFAULT_TENANT, kind_of
from persistence.records.timestamps import Clock, utc_now

KEPT = timedelta(hours=24)
# A request that holds a key for longer than this has died on the way; the next one takes its place, and its id.
UNDER_WAY = timedelta(seconds=30)


@dataclass(frozen=True)
class Claim:
    """A key held for one request: its id, and the answer if it was given.

    `owner` names this very claim, and `fingerprint` the body. `first` tells whether nobody held the key before.
    """

    key: str
    request_id: str
    answer: Any | None
    tenant: str = DEFAULT_TENANT
    owner: str = field(default="", compare=False)
    fingerprint: str = field(default="", compare=False)
    first: bool = field(default=True, compare=False)


class IdempotencyKeys:
    """The keys, in the aggregator's table. Every method raises Unavailable when DynamoDB cannot answer.

    A key stands for one id, until it is forgotten. Who was too slow, and has lost it to another, may go on all the
    same, at any later time: so a key is given back only by who held it first, while nobody has taken it over. By then
    nobody else knows its id. After that it keeps its id, and whoever comes with it makes the same request.
    """

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
        claim = Claim(key, request_id, None, tenant, uuid.uuid4().hex, fingerprint)
        facts = {
            "fingerprint": fingerprint,
            "requestId": request_id,
            "owner": claim.owner,
            "lockedUntil": int((now + UNDER_WAY).timestamp()),
            "expiresAt": math.ceil((now + KEPT).timestamp()),
        }
        try:
            condition = "attribute_not_exists(#pk) OR #expiresAt <= :now"
            self._table.put(_key(key, tenant) | facts, condition=condition, values={"now": int(now.timestamp())})
            return claim
        except ConditionFailed:
            earlier = self._table.get(_key(key, tenant))
        if earlier is None:
            raise KeyUnderWay("the first request with this Idempotency-Key has only just failed; try again")
        if earlier.get("owner") == claim.owner:
            # boto3 repeats a write whose answer was lost, which then finds what it has written itself.
            return claim
        if earlier["fingerprint"] != fingerprint:
            raise KeyReused("this Idempotency-Key was used before, with another body")
        if "answer" in earlier:
            return replace(claim, request_id=earlier["requestId"], answer=json.loads(earlier["answer"]), first=False)
        return self._take_over(replace(claim, request_id=earlier["requestId"], first=False), earlier, now)

    def _take_over(self, claim: Claim, earlier: Item, now: datetime) -> Claim:
        values: dict[str, Any] = {
            "until": int((now + UNDER_WAY).timestamp()),
            # So that it is not forgotten while this one is at it.
            "expires": math.ceil((now + KEPT).timestamp()),
            "owner": claim.owner,
            "now": int(now.timestamp()),
        }
        condition = "#lockedUntil <= :now AND attribute_not_exists(#answer) AND "
        if "owner" in earlier:
            condition += "#owner = :earlier"
            values["earlier"] = earlier["owner"]
        else:
            # Written before claims had names.
            condition += "attribute_not_exists(#owner) AND #requestId = :id"
            values["id"] = claim.request_id
        update = "SET #lockedUntil = :until, #expiresAt = :expires, #owner = :owner"
        try:
            self._table.update(_key(claim.key, claim.tenant), update, condition=condition, values=values)
        except ConditionFailed:
            held = self._table.get(_key(claim.key, claim.tenant))
            # Its own write may have been repeated, as above.
            if held is None or held.get("owner") != claim.owner:
                raise KeyUnderWay("the first request with this Idempotency-Key is still under way") from None
        return claim

    def answered(self, claim: Claim, answer: Any) -> None:
        """Keep the answer (any JSON value) for those who come with the same key, unless there is one already.

        Whoever was let through may have made the request that the key stands for, also one who was too slow.
        """
        values = {"answer": json.dumps(answer), "id": claim.request_id, "fingerprint": claim.fingerprint}
        condition = "#requestId = :id AND #fingerprint = :fingerprint AND attribute_not_exists(#answer)"
        with suppress(ConditionFailed):
            self._table.update(
                _key(claim.key, claim.tenant), "SET #answer = :answer", condition=condition, values=values
            )

    def release(self, claim: Claim) -> None:
        """The request was refused, and nothing came of it: another may have the key, unless another has it already.

        It is free then for any body; where this claim was not the first one, for the same body only, under the same id.
        """
        key, values = _key(claim.key, claim.tenant), {"owner": claim.owner}
        condition = "#owner = :owner AND attribute_not_exists(#answer)"
        with suppress(ConditionFailed):
            if claim.first:
                self._table.delete(key, condition=condition, values=values)
            else:
                self._table.update(key, "SET #lockedUntil = :zero", condition=condition, values={**values, "zero": 0})


def _key(key: str, tenant: str) -> Item:
    # Any characters may come in a key; its hash always fits DynamoDB's 2,048 bytes.
    return {"pk": f"{kind_of('idempotency', tenant)}#{hashlib.sha256(key.encode()).hexdigest()}", "sk": "key"}
