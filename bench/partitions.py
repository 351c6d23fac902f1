"""Simulates the limits of DynamoDB's partitions and partition keys in virtual time."""

import heapq
import itertools
import json
import math
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from persistence.dynamodb.transport import Transport

# Units a second that a partition takes, and also each partition key: writes of 1 KB, consistent reads of 4 KB.
UNITS = {"write": 1000.0, "read": 3000.0}
# Bytes.
_UNIT_SIZE = {"write": 1024, "read": 4096}
# Seconds of units that an idle partition saves up at best; AWS does not promise them.
BURST = 300
# Seconds of one call, and of each megabyte in either direction.
_CALL, _MEGABYTE = 0.005, 0.02

_Key = tuple[str, str]


class VirtualTime:
    """Time that passes only while all threads sleep. One thread runs at a time, so that all runs are the same."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._asleep: list[tuple[float, int, threading.Event]] = []

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Run each of the works in its own thread until all have returned. Raises the first error of a thread."""
        errors: list[BaseException] = []

        def run(work: Callable[[], None], turn: threading.Event) -> None:
            turn.wait()
            try:
                work()
            except BaseException as error:
                errors.append(error)
            with self._lock:
                self._wake_next()

        threads = [threading.Thread(target=run, args=(work, self._bed(0))) for work in works]
        for thread in threads:
            thread.start()
        with self._lock:
            self._wake_next()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def sleep(self, seconds: float) -> None:
        """Let the calling thread of `run` sleep for so many seconds."""
        with self._lock:
            turn = self._bed(seconds)
            self._wake_next()
        turn.wait()

    def _bed(self, seconds: float) -> threading.Event:
        turn = threading.Event()
        heapq.heappush(self._asleep, (self.now + seconds, next(self._order), turn))
        return turn

    def _wake_next(self) -> None:
        if self._asleep:
            self.now, _, turn = heapq.heappop(self._asleep)
            turn.set()


class Buckets:
    """Token buckets: one for each partition and one for each partition key; a call needs the units of both."""

    def __init__(self, time: VirtualTime, *, partitions: int, burst: bool) -> None:
        self._time = time
        self._partitions = partitions
        self._seconds = BURST if burst else 1
        self._left: dict[tuple[str, object], tuple[float, float]] = {}

    def take(self, kind: str, pk: str, units: float) -> bool:
        """Take the units from a key and its partition, and return True; False if either has too few left."""
        owners = [(kind, zlib.crc32(pk.encode()) % self._partitions), (kind, pk)]
        most = UNITS[kind] * self._seconds
        now_left = []
        for owner in owners:
            left, at = self._left.get(owner, (most, 0.0))
            now_left.append(min(most, left + UNITS[kind] * (self._time.now - at)))
        if min(now_left) < units:
            return False
        for owner, left in zip(owners, now_left, strict=True):
            self._left[owner] = (left - units, self._time.now)
        return True


class PartitionedTransport(Transport):
    """Counts and limits the units of the calls to an engine. It keeps the parts of results itself.

    It repeats a throttled call once, as boto3 does in its standard mode. An update costs by the item's size before it.
    """

    def __init__(self, inner: Transport, time: VirtualTime, buckets: Buckets) -> None:
        self._inner = inner
        self._time = time
        self._buckets = buckets
        self._rng = random.Random(1)  # noqa: S311 -- spreads retries
        self._parts: dict[_Key, Any] = {}
        # Equal texts are kept once.
        self._values: dict[str, str] = {}
        self.units: Counter[str] = Counter()
        self.writes: Counter[_Key] = Counter()
        """The number of writes of each part."""
        self.throttled = 0

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Call an operation and return its response. Raises ClientError."""
        self._time.sleep(_CALL)
        for attempt in (1, 2):
            answer = self._answer(operation, arguments)
            if answer is not None:
                return answer
            self.throttled += 1
            if attempt == 1:
                self._time.sleep(self._rng.random())
        raise ClientError(
            {"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "simulated"}}, operation
        )

    def _answer(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        match operation:
            case "Query":
                return self._inner.call(operation, arguments)
            case "BatchGetItem":
                return self._batch_get(arguments)
            case "BatchWriteItem":
                return self._batch_delete(arguments)
        item: Any = arguments.get("Item")
        key: Any = arguments.get("Key") or {"pk": item["pk"], "sk": item["sk"]}
        size = _size(item) if item else self._size_of(arguments["TableName"], key)
        if not self._take("read" if operation == "GetItem" else "write", key, size):
            return None
        if not _is_part(key):
            return self._inner.call(operation, arguments)
        self._time.sleep(size / 1e6 * _MEGABYTE)
        if operation == "PutItem":
            self.writes[_key(key)] += 1
            text = item["part"]["B"]
            self._parts[_key(key)] = item | {"part": {"B": self._values.setdefault(text, text)}}
        else:
            self._parts.pop(_key(key), None)
        return {}

    def _batch_get(self, arguments: Mapping[str, Any]) -> Any:
        [(table, wanted)] = arguments["RequestItems"].items()
        found, left, size = [], [], 0
        for key in wanted["Keys"]:
            item = self._parts.get(_key(key))
            if not self._take("read", key, _size(item)):
                left.append(key)
            elif item:
                found.append(item)
                size += _size(item)
        if len(left) == len(wanted["Keys"]):
            return None
        self._time.sleep(size / 1e6 * _MEGABYTE)
        return {"Responses": {table: found}, "UnprocessedKeys": {table: {"Keys": left}} if left else {}}

    def _batch_delete(self, arguments: Mapping[str, Any]) -> Any:
        [(table, wanted)] = arguments["RequestItems"].items()
        left = []
        for request in wanted:
            key = request["DeleteRequest"]["Key"]
            if self._take("write", key, _size(self._parts.get(_key(key)))):
                self._parts.pop(_key(key), None)
            else:
                left.append(request)
        if len(left) == len(wanted):
            return None
        return {"UnprocessedItems": {table: left} if left else {}}

    def _take(self, kind: str, key: Any, size: int) -> bool:
        units = max(1, math.ceil(size / _UNIT_SIZE[kind]))
        taken = self._buckets.take(kind, key["pk"]["S"], units)
        self.units[kind] += units if taken else 0
        return taken

    def _size_of(self, table: str, key: Any) -> int:
        if _is_part(key):
            return _size(self._parts.get(_key(key)))
        return _size(self._inner.call("GetItem", {"TableName": table, "Key": key}).get("Item"))


def _key(key: Any) -> _Key:
    return key["pk"]["S"], key["sk"]["S"]


def _is_part(key: Any) -> bool:
    return str(key["sk"]["S"]).startswith("part")


def _size(item: Any) -> int:
    """Roughly the bytes that DynamoDB counts for an item."""
    if not item:
        return 0
    binary = len(item["part"]["B"]) * 3 // 4 if "part" in item else 0
    return binary + len(json.dumps({name: value for name, value in item.items() if name != "part"}))
