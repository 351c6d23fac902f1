"""A proxy in front of DynamoDB that knows its operations: refuses some, loses answers, throttles single records."""

import json
import random
import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

_HOST = "127.0.0.1"
_OF_THE_CONNECTION = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})


@dataclass(frozen=True)
class Refusal:
    """What DynamoDB says to a call that it does not carry out."""

    status: int
    error: str


@dataclass(frozen=True)
class Loss:
    """The call is carried out, and the connection ends without an answer."""


Fault = Refusal | Loss

THROTTLED = Refusal(400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException")
THROTTLED_AT_ALL = Refusal(400, "com.amazon.coral.availability#ThrottlingException")
BROKEN = Refusal(500, "com.amazonaws.dynamodb.v20120810#InternalServerError")
AWAY = Refusal(503, "com.amazonaws.dynamodb.v20120810#ServiceUnavailable")
LOST = Loss()


class Proxy:
    """Forwards calls to a port of this machine while its block runs."""

    def __init__(self, upstream: int, seed: str = "") -> None:
        self.upstream = upstream
        self.faults: Counter[tuple[Fault, str]] = Counter()
        """How often each fault befell each operation."""
        self._rng = random.Random(seed)
        self._now: tuple[tuple[Fault, ...], float, Collection[str]] = ((), 0.0, ())
        self.throttled: frozenset[str] = frozenset()
        """The ids of records whose partitions are throttled: nothing of them is read or written."""
        self.read: set[str] = set()
        """The ids of all records that were asked for in batches."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((_HOST, 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_port

    def disturb(self, *faults: Fault, share: float = 1.0, operations: Collection[str] = ()) -> None:
        """Have such faults befall a share of the calls of these operations, or of all, until `calm`."""
        self._now = (faults, share, operations)

    def calm(self) -> None:
        """Forward everything."""
        self._now = ((), 0.0, ())
        self.throttled = frozenset()

    def fault_of(self, operation: str) -> Fault | None:
        """What befalls the next call of this operation."""
        faults, share, operations = self._now
        with self._lock:
            if not faults or (operations and operation not in operations) or self._rng.random() >= share:
                return None
            fault = self._rng.choice(faults)
            self.faults[fault, operation] += 1
            return fault

    def note(self, operation: str, body: bytes) -> None:
        """Remember which records are read together."""
        if operation == "BatchGetItem":
            for wanted in json.loads(body)["RequestItems"].values():
                self.read |= {key["pk"]["S"] for key in wanted["Keys"]}

    def refused_keys(self, operation: str, body: bytes) -> tuple[bytes, dict[str, Any]]:
        """What is forwarded of a call, empty if nothing is, and the keys of a batch that are not read, by table."""
        if not self.throttled:
            return body, {}
        arguments = json.loads(body)
        if operation != "BatchGetItem":
            key = arguments.get("Item" if operation == "PutItem" else "Key", {}).get("pk", {}).get("S")
            if key not in self.throttled:
                return body, {}
            with self._lock:
                self.faults[THROTTLED, operation] += 1
            return b"", {}
        unread = {}
        for table, wanted in arguments["RequestItems"].items():
            refused = [key for key in wanted["Keys"] if key["pk"]["S"] in self.throttled]
            wanted["Keys"] = [key for key in wanted["Keys"] if key not in refused]
            if refused:
                unread[table] = {"Keys": refused}
                with self._lock:
                    self.faults[THROTTLED, operation] += 1
        some = any(wanted["Keys"] for wanted in arguments["RequestItems"].values())
        # As DynamoDB does when it can read none of a batch.
        return (json.dumps(arguments).encode(), unread) if some else (b"", {})

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer are two packets, of which the second would wait for the first's acknowledgement.
        disable_nagle_algorithm: ClassVar[bool] = True

        def setup(self) -> None:
            super().setup()
            self._far = HTTPConnection(_HOST, proxy.upstream)

        def finish(self) -> None:
            self._far.close()
            super().finish()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            proxy.note(operation, body)
            fault = proxy.fault_of(operation)
            body, unread = proxy.refused_keys(operation, body)
            if not body:
                fault = THROTTLED
            try:
                if isinstance(fault, Refusal):
                    document = json.dumps({"__type": fault.error, "message": "as the test wants it"})
                    self._answer(fault.status, [("Content-Type", "application/x-amz-json-1.0")], document.encode())
                    return
                answer = self._forward(body)
                content = answer.read()
                headers = answer.getheaders()
                if unread:
                    content = json.dumps(json.loads(content) | {"UnprocessedKeys": unread}).encode()
                    headers = [(name, value) for name, value in headers if name.lower() != "x-amz-crc32"]
                if fault is None:
                    self._answer(answer.status, headers, content)
                else:
                    self.close_connection = True
            except (OSError, HTTPException):
                # One of the two ends is gone, and so must the other be.
                self.close_connection = True

        def _forward(self, body: bytes) -> HTTPResponse:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
            self._far.request("POST", self.path, body, headers)
            return self._far.getresponse()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the faults are counted."""

    return Handler
