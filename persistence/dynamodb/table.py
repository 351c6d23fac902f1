"""One DynamoDB table spoken to in plain Python values, its failures told apart."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from persistence.dynamodb.attribute_values import Decoded, decode_members, encode_members
from persistence.dynamodb.transport import Transport
from persistence.errors import ConditionFailed, Throttled, Unavailable

Item = dict[str, Any]
Key = Mapping[str, str]
Answer = TypeVar("Answer")

_NAME = re.compile(r"#(\w+)")
# Seconds before a batch of which nothing was read is asked for again; those who wait for it have seconds, too.
_PAUSES = (0.05, 0.1, 0.2, 0.4)
# What BatchWriteItem takes.
_MOST_WRITTEN = 25
_THROTTLED = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")


def patiently(call: Callable[[], Answer], pauses: Sequence[float]) -> Answer:
    """The answer to a call, made again after each pause (seconds) while DynamoDB throttles it. Raises Throttled."""
    for pause in pauses:
        try:
            return call()
        except Throttled:
            time.sleep(pause)
    return call()


class Table:
    """A table by name. Each method raises Unavailable when DynamoDB cannot answer."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = name

    def ping(self) -> None:
        """Read an item that is not there."""
        self.get({"pk": "-", "sk": "-"})

    def get(self, key: Key) -> Item | None:
        """The item under the key, read consistently; None when there is none."""
        answer = self._call("GetItem", TableName=self.name, Key=encode_members(key), ConsistentRead=True)
        return decode_members(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[Key], *, pauses: Sequence[float] = _PAUSES) -> list[Item]:
        """The items that are there under at most 100 keys (the limit of BatchGetItem), in no order.

        None is read twice: what is throttled is asked for again, after the next of the `pauses` (seconds) if nothing
        was read.
        """
        items, unread = self.get_available(keys, pauses=pauses)
        if unread:
            raise _unfinished(unread, "read")
        return [dict(item) for item in items]

    def get_available(
        self, keys: Sequence[Key], *, pauses: Sequence[float] = _PAUSES
    ) -> tuple[list[Mapping[str, Any]], list[Key]]:
        """The same, and the keys of those that DynamoDB would not read now, as those of a throttled partition.

        Of the items, each member is decoded when it is asked for.
        Raises Unavailable only when it would read none of them.
        """
        items: list[Mapping[str, Any]] = []

        def read(wanted: list[Item]) -> list[Item]:
            answer = self._call("BatchGetItem", RequestItems={self.name: {"Keys": wanted, "ConsistentRead": True}})
            items.extend(map(Decoded, answer["Responses"].get(self.name, [])))
            left: list[Item] = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            return left

        unread = _repeat(read, [encode_members(key) for key in keys], pauses)
        if unread and len(unread) == len(keys):
            raise _unfinished(unread, "read")
        return items, [decode_members(key) for key in unread]

    def delete_many(self, keys: Sequence[Key], *, pauses: Sequence[float] = _PAUSES) -> None:
        """Delete the items that are there under the keys; the `pauses` are those of `get_many`."""

        def delete(wanted: list[Item]) -> list[Item]:
            answer = self._call("BatchWriteItem", RequestItems={self.name: wanted})
            left: list[Item] = answer.get("UnprocessedItems", {}).get(self.name, [])
            return left

        wanted: list[Item] = [{"DeleteRequest": {"Key": encode_members(key)}} for key in keys]
        for start in range(0, len(wanted), _MOST_WRITTEN):
            if left := _repeat(delete, wanted[start : start + _MOST_WRITTEN], pauses):
                raise _unfinished(left, "deleted")

    def put(self, item: Item, *, condition: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Write the whole item. Raises ConditionFailed."""
        self._call(
            "PutItem",
            TableName=self.name,
            Item=encode_members(item),
            **_expressions(values, ConditionExpression=condition),
        )

    def update(
        self, key: Key, update: str, *, condition: str, values: Mapping[str, Any], returned: str = "NONE"
    ) -> Mapping[str, Any]:
        """Change an item in one conditional write and return what DynamoDB's `ReturnValues` names.

        Expressions write every attribute as `#name` and every value as `:name`. Raises ConditionFailed.
        """
        expressions = _expressions(values, UpdateExpression=update, ConditionExpression=condition)
        answer = self._call(
            "UpdateItem", TableName=self.name, Key=encode_members(key), ReturnValues=returned, **expressions
        )
        return Decoded(answer.get("Attributes", {}))

    def delete(self, key: Key, *, condition: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Delete the item under the key, if there is one. Raises ConditionFailed."""
        expressions = _expressions(values, ConditionExpression=condition)
        self._call("DeleteItem", TableName=self.name, Key=encode_members(key), **expressions)

    def query(
        self,
        condition: str,
        values: Mapping[str, Any],
        *,
        index: str | None = None,
        limit: int | None = None,
        page: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Item]:
        """The items that a key condition names, in key order, at most `limit`; pages are fetched as they are read.

        A page has at most `page` items, or as many as DynamoDB gives at once.
        """
        arguments = _expressions(values, KeyConditionExpression=condition) | {"TableName": self.name}
        arguments["ScanIndexForward"] = not newest_first
        arguments |= {"IndexName": index} if index else {"ConsistentRead": True}
        left = limit
        while left is None or left > 0:
            if sizes := [size for size in (left, page) if size is not None]:
                arguments["Limit"] = min(sizes)
            answer = self._call("Query", **arguments)
            for item in answer["Items"]:
                yield decode_members(item)
            if left is not None:
                left -= len(answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return self._transport.call(operation, arguments)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code == "ConditionalCheckFailedException":
                raise ConditionFailed(self.name) from error
            # A wrong call is a bug and must be seen as one; anything else may pass.
            if code in ("ValidationException", "SerializationException"):
                raise
            refused = Throttled if code in _THROTTLED else Unavailable
            raise refused(f"DynamoDB: {code}: {message}") from error
        except BotoCoreError as error:
            raise Unavailable(f"DynamoDB: {error}") from error


def _expressions(values: Mapping[str, Any] | None, **expressions: str | None) -> dict[str, Any]:
    """The given expressions with the names and values they mention."""
    given: dict[str, Any] = {name: text for name, text in expressions.items() if text}
    names = {f"#{name}": name for text in given.values() for name in _NAME.findall(text)}
    if names:
        given["ExpressionAttributeNames"] = names
    if values:
        given["ExpressionAttributeValues"] = encode_members({f":{name}": v for name, v in values.items()})
    return given


def _repeat(batch: Callable[[list[Item]], list[Item]], wanted: list[Item], pauses: Sequence[float]) -> list[Item]:
    """Call `batch`, which returns what it has left, until that is nothing or the pauses are over; returns what is left.

    Raises Unavailable when the first call is not answered.
    """
    pause, begun = iter(pauses), False
    while wanted:
        try:
            left = batch(wanted)
        except Throttled:
            # This is how DynamoDB says that all are left.
            left = wanted
        except Unavailable:
            if not begun:
                raise
            return wanted
        if len(left) == len(wanted):
            seconds = next(pause, None)
            if seconds is None:
                return left
            time.sleep(seconds)
        begun = begun or len(left) < len(wanted)
        wanted = left
    return []


def _unfinished(left: Sequence[object], done: str) -> Throttled:
    return Throttled(f"DynamoDB: {len(left)} items are not {done}, however often they are asked for")
