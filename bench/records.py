"""Writes many copies of a record that the repositories wrote."""

import base64
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from bench.load import Poster, all_accepted
from persistence.index.shards import OPEN, shard_of

_BATCH = 25
"""The most items of one BatchWriteItem."""

_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "DynamoDB_20120810.BatchWriteItem",
    # The embedded DynamoDB checks no signature, but reads the region from this header.
    "Authorization": "AWS4-HMAC-SHA256 Credential=embedded/20260101/us-east-1/dynamodb/aws4_request, "
    "SignedHeaders=host, Signature=00",
}


class Records:
    """Writes copies of a request's item without boto3, which would take most of the time."""

    def __init__(self, dynamodb: Any, table: str, url: str, shards: int) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._url = url
        self._shards = shards

    async def copy(self, request_id: str, count: int) -> list[str]:
        """Write `count` copies of the request, each with its own id, also in its callback URL; returns the ids."""
        key = {"pk": {"S": request_id}, "sk": {"S": "request"}}
        item = self._dynamodb.get_item(TableName=self._table, Key=key)["Item"]
        ids = [uuid.uuid4().hex for _ in range(count)]
        async with Poster(self._url, connections=4, headers=_HEADERS) as poster:
            all_accepted(await poster.flood(self._batches(item, ids)))
        return ids

    def _batches(self, item: Mapping[str, Any], ids: list[str]) -> Iterator[bytes]:
        for start in range(0, len(ids), _BATCH):
            puts = [
                {"PutRequest": {"Item": _copy(item, request_id, self._shards)}}
                for request_id in ids[start : start + _BATCH]
            ]
            yield orjson.dumps({"RequestItems": {self._table: puts}}, default=_base64)


def _base64(value: object) -> str:
    """Encode a binary value that boto3 has decoded as in DynamoDB's JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _copy(item: Mapping[str, Any], request_id: str, shards: int) -> Mapping[str, Any]:
    callbacks = item["callbackUrl"]["S"].rpartition("/")[0]
    copy = {**item, "pk": {"S": request_id}, "callbackUrl": {"S": f"{callbacks}/{request_id}"}}
    if "dueShard" in item:
        copy["dueShard"] = {"S": shard_of(OPEN, request_id, shards)}
    return copy
