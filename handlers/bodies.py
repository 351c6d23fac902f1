"""Request bodies: bounded, strictly JSON (RFC 8259), and valid by a compiled schema before a handler sees them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
from connexion.validators import AbstractRequestBodyValidator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope

from handlers.calls import given
from handlers.problems import Problem
from persistence import json_text

# Bytes: enough for fifty providers and the longest URL.
DEFAULT_LIMIT = 65_536
# Seconds between two pieces of a body.
_PATIENCE = 30.0
# It carries what providers have sent, as they sent it, inside a document of these many levels.
_RELAYED = frozenset({"receiveCallback"})
_AROUND_RESULTS = 10


BodyCheck = Callable[[Mapping[str, str], bytes], None]


def json_bodies(
    limits: Mapping[str, int], checks: Mapping[str, BodyCheck] | None = None
) -> type[AbstractRequestBodyValidator]:
    """The validator class for Connexion's `validator_map`, by operationId where operations differ.

    `limits` is the largest body in bytes; each of `checks` gets headers and body before anybody looks into the body,
    and may raise Problem.
    """
    compiled: dict[int, tuple[Any, jsonschema_rs.Draft4Validator]] = {}

    class JsonBody(AbstractRequestBodyValidator):  # type: ignore[misc]
        """Reads and checks a body, leaves it for the operation's method, and plays it again for who wants its bytes."""

        async def wrap_receive(self, receive: Receive, *, scope: Scope) -> tuple[Receive, Scope]:
            headers = MutableHeaders(scope=scope)
            operation_id = scope["extensions"]["connexion_routing"]["operation_id"]
            body = await _read(receive, headers, limits.get(operation_id, DEFAULT_LIMIT))
            if checks and operation_id in checks:
                await run_in_threadpool(checks[operation_id], headers, body)
            if len(body) > DEFAULT_LIMIT:
                # So long that others would wait for it.
                document = await run_in_threadpool(self._read, body, operation_id in _RELAYED)
            else:
                document = self._read(body, operation_id in _RELAYED)
            given(scope)["body"] = document
            headers["content-length"] = str(len(body))
            del headers["transfer-encoding"]
            return _replay(body, receive), scope

        def _read(self, body: bytes, relayed: bool) -> Any:
            document = _parse(body, deepest=json_text.DEEPEST + (_AROUND_RESULTS if relayed else 0))
            exact = document if relayed else _parse_distinct(body)
            wrong = next(self._compiled().iter_errors(document), None)
            if wrong is not None:
                place = "/".join(str(part) for part in wrong.instance_path)
                raise Problem("bad-request", f"body{f' at {place}' if place else ''}: {wrong.message}"[:300])
            return exact

        def _compiled(self) -> jsonschema_rs.Draft4Validator:
            # Connexion makes a validator for each request, but hands over the same schema each time; it is kept
            # beside its validator, so that its id cannot come to mean another one.
            key = id(self._schema)
            if key not in compiled:
                # What was sent may be long; the message says what it must be.
                validator = jsonschema_rs.Draft4Validator(self._schema, validate_formats=True, mask="the value")
                compiled[key] = self._schema, validator
            return compiled[key][1]

    return JsonBody


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


def _parse(body: bytes, *, deepest: int) -> Any:
    if not body:
        raise Problem("bad-request", "the body must be a JSON document; it is empty")
    try:
        return json_text.parse(body, deepest=deepest)
    except ValueError as error:
        raise Problem("bad-request", f"the body is {error}") from None


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
