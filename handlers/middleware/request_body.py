"""Request bodies: bounded, strictly JSON (RFC 8259), and valid by a compiled schema before a handler sees them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from handlers.middleware import verbatim
from handlers.middleware.dispatch import given
from handlers.problems import Problem
from specs.schemas import validator

log = logging.getLogger(__name__)

# Bytes: enough for fifty providers and the longest URL.
DEFAULT_LIMIT = 65_536
# Seconds between two pieces of a body, and bytes a second that it must come in at, once these seconds are over.
_PATIENCE = 30.0
_LEAST_RATE = 100_000
# Bytes of an operation's larger bodies that a process has in memory at once: twice the largest that there is.
_LARGE_AT_ONCE = 600_000_000
# Seconds after which there may be room again.
_FULL = 5


class BodyCheck(Protocol):
    """What an operation asks of a body besides its schema. Both methods raise what the application answers with."""

    async def expect(self, arguments: Mapping[str, Any]) -> None:
        """Called with the parameters before a body larger than DEFAULT_LIMIT is read."""

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Called before anybody looks into the body."""


class Body:
    """The body that one operation takes.

    `limit` is in bytes. Results are given to the method as JSON text (`handlers.middleware.verbatim`).
    """

    def __init__(
        self, operation_id: str, schema: dict[str, Any], *, limit: int | None = None, check: BodyCheck | None = None
    ) -> None:
        self._operation_id = operation_id
        self._reader = verbatim.READERS.get(operation_id, verbatim.whole)
        self._limit = limit or DEFAULT_LIMIT
        self._check = check
        self._room = _Room(_LARGE_AT_ONCE)
        # What was sent may be long; the message says what it must be.
        self._validator = validator(schema, mask="the value")

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive]:
        """Leave the body's value for the operation's method, and give what plays the body again while it is needed.

        Raises Problem for a body that is too large, late, no strict JSON, or not valid, and when there is no room.
        """
        headers = Headers(scope=scope)
        # Who does not say how much comes may send it all.
        size = int(headers.get("content-length", self._limit))
        if size > self._limit:
            raise _too_large(self._limit)
        with ExitStack() as held:
            if size > DEFAULT_LIMIT:
                if self._check:
                    await self._check.expect(given(scope))
                held.enter_context(self._room.taken(size))
            body = await _read(receive, self._limit)
            if self._check:
                await run_in_threadpool(self._check.check, headers, body)
            # So long that others would wait for it.
            long = len(body) > DEFAULT_LIMIT
            given(scope)["body"] = await run_in_threadpool(self._parse, body) if long else self._parse(body)
            yield _replay(body, receive)

    def _parse(self, body: bytes) -> Any:
        try:
            return self._valid(body)
        except Problem as problem:
            if self._check:
                # It was sent by a part of ours, and no repetition changes it.
                log.error(
                    "%s: a signed body is refused, and its results are not kept: %s; see that the client and the "
                    "aggregator's workers run the same version of Datahog",
                    self._operation_id,
                    problem.detail,
                )
            raise

    def _valid(self, body: bytes) -> Any:
        if not body:
            raise Problem("bad-request", "the body must be a JSON document; it is empty")
        try:
            document, put_back = self._reader(body)
        except ValueError as error:
            raise Problem("bad-request", f"the body is {error}") from None
        wrong = next(self._validator.iter_errors(document), None)
        if wrong is not None:
            place = "/".join(str(part) for part in wrong.instance_path)
            raise Problem("bad-request", f"body{f' at {place}' if place else ''}: {wrong.message}"[:300])
        put_back()
        return document


class _Room:
    """Memory for large bodies, in bytes."""

    def __init__(self, size: int) -> None:
        self._free = size

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Keep so much of it. Raises Problem (503) when there is less."""
        if size > self._free:
            detail = "too many large bodies are being received; nothing of this one was read, send it again soon"
            raise Problem("unavailable", detail, headers={"Retry-After": str(_FULL)})
        self._free -= size
        try:
            yield
        finally:
            self._free += size


def _too_large(limit: int) -> Problem:
    return Problem("payload-too-large", f"the body must not be larger than {limit} bytes")


async def _read(receive: Receive, limit: int) -> bytes:
    now = asyncio.get_running_loop().time
    begun = now()
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout_at(_PATIENCE + min(now(), begun + len(body) / _LEAST_RATE)):
                message = await receive()
        except TimeoutError:
            detail = f"no more of the body came for {_PATIENCE:g} s, or less than {_LEAST_RATE} bytes a second"
            raise Problem("request-timeout", detail) from None
        if message["type"] == "http.disconnect":
            raise Problem("bad-request", "the body ended before its length")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
