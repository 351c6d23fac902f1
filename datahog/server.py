"""The HTTP server of both APIs: uvicorn with limits on request heads, and problems for input that is not HTTP."""

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.problems import MEDIA_TYPE, Problem

# Requests under way get this time to finish when the server is told to stop.
_GRACE_SECONDS = 5
# The maximum size of a request's head, and of its trailers, plus one read; other servers allow 8 to 64 KiB.
_HEAD_BYTES = 65_536
# The maximum time in which a head must be complete.
_HEAD_SECONDS = 20.0
# The maximum number of requests of one connection that wait for the responses to earlier ones.
_PIPELINED = 16


class _Protocol(HttpToolsProtocol):
    # Whether the next bytes belong to a head.
    _in_head = True
    # The number of bytes since the parser last completed something, and whether it did so in the current read.
    _unfinished = 0
    _got_on = False
    # Closes the connection when a head is late.
    _late: asyncio.TimerHandle | None = None
    # Whether too many requests wait: the connection ends with their responses and ignores further bytes.
    _full = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called first. Starts the timer of the head, so that a silent peer does not hold the connection for ever."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called last. Stops the timer."""
        self._expect_head_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called with each read. Bounds heads, trailers and chunk sizes, which the parser does not bound."""
        if self._full:
            return
        if self._in_head and self._late is None:
            self._expect_head()
        self._got_on = False
        super().data_received(data)
        self._unfinished = 0 if self._got_on else self._unfinished + len(data)
        if self._unfinished > _HEAD_BYTES:
            self._refuse("bad-request", f"the request line and headers, or the trailers, exceed {_HEAD_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for headers and for trailers; ignores the latter, which no operation uses."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser. Stops the timer, and ends a connection with too many waiting requests."""
        self._in_head, self._got_on = False, True
        self._expect_head_no_more()
        if len(self.pipeline) >= _PIPELINED:
            self._full = True
            self.cycle.keep_alive = False
            # An exception makes the parser drop the rest of the read.
            raise OverflowError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_head, self._got_on = True, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called when a response is sent. Bounds the time of a request body that is still being received."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_head and self._late is None:
            self._late = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Called for input that is not HTTP, which does not reach the application."""
        if not self._full:
            self._refuse("bad-request", "the input is not valid HTTP")

    def _expect_head(self) -> None:
        why = f"the request line and headers were not complete after {_HEAD_SECONDS:g} s"
        self._late = self.loop.call_later(_HEAD_SECONDS, self._refuse, "request-timeout", why)

    def _expect_head_no_more(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None

    def _refuse(self, slug: str, why: str) -> None:
        if self.transport.is_closing():
            return
        problem = Problem(slug, f"{why}; the connection is closed")
        body = orjson.dumps(problem.document)
        head = f"HTTP/1.1 {problem.status} {problem.document['title']}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signals that end the server."""
        self._stopping()
        super().handle_exit(sig, frame)


def serve(app: Any, host: str, port: int, *, stopping: Callable[[], None]) -> None:
    """Serves the ASGI application until SIGTERM or SIGINT; the signal's handler then calls `stopping`."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        # Neither document declares a WebSocket.
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    _Server(config, stopping).run()
