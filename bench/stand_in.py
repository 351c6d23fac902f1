"""A stand-in for DynamoDB with up to a million open requests, in memory: as slow as AWS, and it records all reads.

It supports only the calls of a reconciler. Each reconciler has its own port, which identifies it.
"""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import httptools
import orjson

from bench.world import HOST
from persistence.index.shards import OPEN, shard_of

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n%b"


class StandIn:
    """Holds copies of the `template` item of a request under `ids`; every call takes `latency` seconds."""

    def __init__(
        self, table: str, template: Mapping[str, Any], ids: list[str], *, shards: int, callers: int, latency: float
    ) -> None:
        self._table = table
        self._template = template
        self._shards = shards
        self._callers = callers
        self.latency = latency
        self.calls: Counter[str] = Counter()
        self.reads: list[Counter[str]] = [Counter() for _ in range(callers)]
        """The number of reads of each record, by caller."""
        self.moved: dict[str, str] = {}
        """The records that are no longer due, with their next due time."""
        self.is_due = False
        self._entries: dict[str, list[str]] = {f"{OPEN}#{number}": [] for number in range(shards)}
        for request_id in sorted(ids):
            self._entries[shard_of(OPEN, request_id, shards)].append(request_id)

    async def __aenter__(self) -> "StandIn":
        loop = asyncio.get_running_loop()
        self._servers = [
            await loop.create_server(lambda caller=caller: _Exchange(self, caller), HOST, 0)  # type: ignore[misc]
            for caller in range(self._callers)
        ]
        self.urls = [f"http://{HOST}:{server.sockets[0].getsockname()[1]}" for server in self._servers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    @property
    def read_by_two(self) -> int:
        """The number of records that more than one caller has read."""
        callers = Counter(request_id for reads in self.reads for request_id in reads)
        return sum(count > 1 for count in callers.values())

    @property
    def read_again(self) -> int:
        """The number of records that one caller has read more than once."""
        return sum(count > 1 for reads in self.reads for count in reads.values())

    def answer(self, caller: int, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Respond to a caller's call. Raises NotImplementedError."""
        self.calls[operation] += 1
        match operation:
            case "GetItem":
                return {"Item": {"open": {"N": str(self._shards)}, "listed": {"N": "8"}}}
            case "Query":
                return self._query(arguments)
            case "BatchGetItem":
                ids = [key["pk"]["S"] for key in arguments["RequestItems"][self._table]["Keys"]]
                self.reads[caller].update(ids)
                return {"Responses": {self._table: [{**self._template, "pk": {"S": name}} for name in ids]}}
            case "UpdateItem":
                self.moved[arguments["Key"]["pk"]["S"]] = arguments["ExpressionAttributeValues"][":due"]["S"]
                return {}
        raise NotImplementedError(operation)

    def _query(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        entries = self._entries.get(arguments["ExpressionAttributeValues"][":shard"]["S"], [])
        if not self.is_due or arguments["TableName"] != self._table:
            entries = []
        last = arguments.get("ExclusiveStartKey", {}).get("pk", {}).get("S", "")
        found: list[Mapping[str, Any]] = []
        at = bisect_right(entries, last)
        while at < len(entries) and len(found) < arguments["Limit"]:
            if entries[at] not in self.moved:
                found.append({"pk": {"S": entries[at]}, "sk": {"S": "request"}, "dueAt": self._template["dueAt"]})
            at += 1
        return {"Items": found} | ({"LastEvaluatedKey": found[-1]} if at < len(entries) else {})


class _Exchange(asyncio.Protocol):
    """One connection, kept alive; its callers do not pipeline."""

    def __init__(self, stand_in: StandIn, caller: int) -> None:
        self._stand_in = stand_in
        self._caller = caller
        self._parser = httptools.HttpRequestParser(self)
        self._operation = ""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each event loop has its own class for TCP transports.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-amz-target":
            self._operation = value.decode().rpartition(".")[2]

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body = orjson.dumps(self._stand_in.answer(self._caller, self._operation, orjson.loads(self._body)))
        asyncio.get_running_loop().call_later(self._stand_in.latency, self._write, _OK % (len(body), body))

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)
