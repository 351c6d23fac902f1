"""Reads and validates request bodies before the handler sees them: bounded, strict JSON (RFC 8259), valid."""

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

# Bytes: enough for 50 providers and the longest URL.
DEFAULT_LIMIT = 65_536
# Seconds between two chunks of a body.
_PATIENCE = 30.0
# Bytes per second at which a body must arrive after these seconds.
_LEAST_RATE = 100_000
# Bytes of one operation's large bodies that a process holds in memory at once: twice the largest body.
_LARGE_AT_ONCE = 600_000_000
# Seconds for Retry-After when the memory for large bodies is full.
_FULL = 5


class BodyCheck(Protocol):
    """An operation's check of a body besides its schema. The application responds with what the methods raise."""

    async def expect(self, arguments: Mapping[str, Any]) -> None:
        """Checks the parameters before a body larger than DEFAULT_LIMIT is read."""

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Checks the whole body before it is parsed."""


class Body:
    """The request body of one operation.

    `limit` is in bytes. The method receives results as JSON text (`handlers.middleware.verbatim`).
    """

    def __init__(
        self, operation_id: str, schema: dict[str, Any], *, limit: int | None = None, check: BodyCheck | None = None
    ) -> None:
        self._operation_id = operation_id
        self._reader = verbatim.READERS.get(operation_id, verbatim.whole)
        self._limit = limit or DEFAULT_LIMIT
        self._check = check
        self._room = _Room(_LARGE_AT_ONCE)
        # The value may be long, so messages do not contain it.
        self._validator = validator(schema, mask="the value")

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive]:
        """Adds the body's value to the arguments of the operation's method, and yields a `receive` that replays it.

        Raises Problem for a body that is too large, too slow, not strict JSON or not valid, and when the memory for
        large bodies is full.
        """
        headers = Headers(scope=scope)
        # A body without a declared length may be as large as the limit.
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
            # Parsing a long body would block the event loop, so a thread does it.
            long = len(body) > DEFAULT_LIMIT
            given(scope)["body"] = await run_in_threadpool(self._parse, body) if long else self._parse(body)
            yield _replay(body, receive)

    def _parse(self, body: bytes) -> Any:
        try:
            return self._valid(body)
        except Problem as problem:
            if self._check:
                # One of our own services sent it, and sending it again changes nothing: an operator must act.
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
        """Reserves `size` bytes. Raises Problem (503) when fewer are free."""
        if size > self._free:
            detail = "too many large bodies are being received; this one was not read: send it again soon"
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
            raise Problem("bad-request", "the connection closed before the whole body arrived")
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
