"""Request bodies: bounded, strictly JSON (RFC 8259), and valid by a compiled schema before a handler sees them."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson
from connexion.validators import AbstractRequestBodyValidator
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope

from handlers.problems import Problem

# Enough for fifty providers and the longest URL.
DEFAULT_LIMIT = 65_536


def json_bodies(limits: Mapping[str, int]) -> type[AbstractRequestBodyValidator]:
    """The validator class for Connexion's `validator_map`; `limits` is the largest body in bytes by operationId."""
    compiled: dict[int, tuple[Any, jsonschema_rs.Draft4Validator]] = {}

    class JsonBody(AbstractRequestBodyValidator):  # type: ignore[misc]
        """Reads and checks a body, then plays it again for the application."""

        async def wrap_receive(self, receive: Receive, *, scope: Scope) -> tuple[Receive, Scope]:
            headers = MutableHeaders(scope=scope)
            if "content-type" not in headers:
                raise Problem("unsupported-media-type", "say Content-Type: application/json")
            operation_id = scope["extensions"]["connexion_routing"]["operation_id"]
            body = await _read(receive, limits.get(operation_id, DEFAULT_LIMIT))
            self._check(body)
            headers["content-length"] = str(len(body))
            if "transfer-encoding" in headers:
                del headers["transfer-encoding"]
            return _replay(body, receive), scope

        def _check(self, body: bytes) -> None:
            if not body:
                raise Problem("bad-request", "the body must be a JSON document; it is empty")
            try:
                document = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                raise Problem("bad-request", f"the body is not JSON: {error}") from None
            wrong = next(self._compiled().iter_errors(document), None)
            if wrong is not None:
                place = "/".join(str(part) for part in wrong.instance_path)
                raise Problem("bad-request", f"body{f' at {place}' if place else ''}: {_cut(wrong.message)}")

        def _compiled(self) -> jsonschema_rs.Draft4Validator:
            # Connexion makes a validator for each request, but hands over the same schema each time; it is kept
            # beside its validator, so that its id cannot come to mean another one.
            key = id(self._schema)
            if key not in compiled:
                compiled[key] = self._schema, jsonschema_rs.Draft4Validator(self._schema, validate_formats=True)
            return compiled[key][1]

    return JsonBody


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("bad-request", "the body ended before its length")
        body += message.get("body", b"")
        if len(body) > limit:
            raise Problem("payload-too-large", f"the body must not be larger than {limit} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _cut(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + "..."
