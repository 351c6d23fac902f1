"""Request bodies: bounded, strictly JSON (RFC 8259), and valid by a compiled schema before a handler sees them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from handlers import relayed
from handlers.calls import given
from handlers.problems import Problem
from persistence import json_text

# Bytes: enough for fifty providers and the longest URL.
DEFAULT_LIMIT = 65_536
# Seconds between two pieces of a body.
_PATIENCE = 30.0
# It carries what providers have sent, as they sent it.
_RELAYED = frozenset({"receiveCallback"})

BodyCheck = Callable[[Mapping[str, str], bytes], None]


class Body:
    """The body that one operation takes.

    `limit` is in bytes, `check` gets headers and body before anybody looks into the body, and may raise Problem.
    Results that are relayed are given to the method as JSON text.
    """

    def __init__(
        self, operation_id: str, schema: dict[str, Any], *, limit: int | None = None, check: BodyCheck | None = None
    ) -> None:
        self._relayed = operation_id in _RELAYED
        self._limit = limit or DEFAULT_LIMIT
        self._check = check
        # What was sent may be long; the message says what it must be.
        self._validator = jsonschema_rs.Draft4Validator(schema, validate_formats=True, mask="the value")

    async def read(self, scope: Scope, receive: Receive) -> Receive:
        """Leave the body's value for the operation's method, and return what plays the body again.

        Raises Problem for a body that is too large, late, no strict JSON, or not valid.
        """
        headers = Headers(scope=scope)
        body = await _read(receive, headers, self._limit)
        if self._check:
            await run_in_threadpool(self._check, headers, body)
        # So long that others would wait for it.
        long = len(body) > DEFAULT_LIMIT
        given(scope)["body"] = await run_in_threadpool(self._parse, body) if long else self._parse(body)
        return _replay(body, receive)

    def _parse(self, body: bytes) -> Any:
        if not body:
            raise Problem("bad-request", "the body must be a JSON document; it is empty")
        results: list[msgspec.Raw | None] = []
        try:
            if self._relayed:
                document, results = relayed.cut_out(body)
            else:
                document = json_text.parse(body)
        except ValueError as error:
            raise Problem("bad-request", f"the body is {error}") from None
        exact = document if self._relayed else _parse_distinct(body)
        wrong = next(self._validator.iter_errors(document), None)
        if wrong is not None:
            place = "/".join(str(part) for part in wrong.instance_path)
            raise Problem("bad-request", f"body{f' at {place}' if place else ''}: {wrong.message}"[:300])
        for index, result in enumerate(results):
            if result is not None:
                exact["jobs"][index]["result"] = result
        return exact


async def _read(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    too_large = Problem("payload-too-large", f"the body must not be larger than {limit} bytes")
    if int(headers.get("content-length", 0)) > limit:
        raise too_large
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout(_PATIENCE):
                message = await receive()
        except TimeoutError:
            raise Problem("request-timeout", f"no more of the body came for {_PATIENCE:g} s") from None
        if message["type"] == "http.disconnect":
            raise Problem("bad-request", "the body ended before its length")
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


def _parse_distinct(body: bytes) -> Any:
    """The value of a body, its integers exact.

    Raises Problem for two members of one name in an object: readers disagree on which counts (RFC 7493, 2.3).
    """
    return json.loads(body, object_pairs_hook=_distinct)


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise Problem("bad-request", f"the body has two members named {name[:100]!r} in one object")
        found[name] = value
    return found


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
