"""One DynamoDB table spoken to in plain Python values, its failures told apart."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

Item = dict[str, Any]
Key = Mapping[str, str]

_serialize = TypeSerializer().serialize
_NAME = re.compile(r"#(\w+)")


class ConditionFailed(Exception):
    """The item was not as the write's condition demanded; nothing was written."""


class Unavailable(Exception):
    """DynamoDB did not answer, or refused for now (throttled, in trouble); whether a write was done is unknown."""


class _Deserializer(TypeDeserializer):
    """Numbers become int and binaries bytes: the records hold no other numbers."""

    def _deserialize_n(self, value: str) -> int:
        return int(value)

    def _deserialize_b(self, value: bytes | Binary) -> bytes:
        return bytes(value.value if isinstance(value, Binary) else value)  # type: ignore[attr-defined]


_deserialize = _Deserializer().deserialize


class Table:
    """A table by name. Each method raises Unavailable when DynamoDB cannot answer."""

    def __init__(self, client: BaseClient, name: str) -> None:
        self._client = client
        self.name = name

    def get(self, key: Key) -> Item | None:
        """The item under the key, read consistently; None when there is none."""
        answer = self._call("get_item", TableName=self.name, Key=_to_dynamodb(key), ConsistentRead=True)
        return _from_dynamodb(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[Key]) -> list[Item]:
        """The items that are there under at most 100 keys (the limit of BatchGetItem), in no order."""
        items: list[Item] = []
        wanted = [_to_dynamodb(key) for key in keys]
        while wanted:
            answer = self._call("batch_get_item", RequestItems={self.name: {"Keys": wanted, "ConsistentRead": True}})
            items += [_from_dynamodb(item) for item in answer["Responses"].get(self.name, [])]
            wanted = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
        return items

    def put(self, item: Item, *, condition: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Write the whole item. Raises ConditionFailed."""
        self._call(
            "put_item",
            TableName=self.name,
            Item=_to_dynamodb(item),
            **_expressions(values, ConditionExpression=condition),
        )

    def update(
        self, key: Key, update: str, *, condition: str, values: Mapping[str, Any], returned: str = "NONE"
    ) -> Item:
        """Change an item in one conditional write and return what DynamoDB's `ReturnValues` names.

        Expressions write every attribute as `#name` and every value as `:name`. Raises ConditionFailed.
        """
        expressions = _expressions(values, UpdateExpression=update, ConditionExpression=condition)
        answer = self._call(
            "update_item", TableName=self.name, Key=_to_dynamodb(key), ReturnValues=returned, **expressions
        )
        return _from_dynamodb(answer.get("Attributes", {}))

    def delete(self, key: Key, *, condition: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Delete the item under the key, if there is one. Raises ConditionFailed."""
        expressions = _expressions(values, ConditionExpression=condition)
        self._call("delete_item", TableName=self.name, Key=_to_dynamodb(key), **expressions)

    def query(
        self,
        condition: str,
        values: Mapping[str, Any],
        *,
        index: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Item]:
        """The items that a key condition names, in key order, at most `limit`; pages are fetched as they are read."""
        arguments = _expressions(values, KeyConditionExpression=condition) | {"TableName": self.name}
        arguments["ScanIndexForward"] = not newest_first
        arguments |= {"IndexName": index} if index else {"ConsistentRead": True}
        left = limit
        while left is None or left > 0:
            if left is not None:
                arguments["Limit"] = left
            answer = self._call("query", **arguments)
            for item in answer["Items"]:
                yield _from_dynamodb(item)
            if left is not None:
                left -= len(answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise ConditionFailed(self.name) from error
            # A wrong call is a bug and must be seen as one; anything else may pass.
            if code in ("ValidationException", "SerializationException"):
                raise
            raise Unavailable(f"DynamoDB: {code}") from error
        except BotoCoreError as error:
            raise Unavailable(f"DynamoDB: {error}") from error


def _to_dynamodb(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _serialize(value) for name, value in item.items()}


def _from_dynamodb(item: Mapping[str, Any]) -> Item:
    return {name: _deserialize(value) for name, value in item.items()}


def _expressions(values: Mapping[str, Any] | None, **expressions: str | None) -> dict[str, Any]:
    """The given expressions with the names and values they mention."""
    given: dict[str, Any] = {name: text for name, text in expressions.items() if text}
    names = {f"#{name}": name for text in given.values() for name in _NAME.findall(text)}
    if names:
        given["ExpressionAttributeNames"] = names
    if values:
        given["ExpressionAttributeValues"] = {f":{name}": _serialize(v) for name, v in values.items()}
    return given
