"""The HTTP server of both APIs: uvicorn, stopped in good order, and with a problem for what is no HTTP at all."""

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.problems import MEDIA_TYPE, Problem

# Seconds that requests under way get when the server is told to stop.
_GRACE = 5
# Bytes of a request's head, or of its trailers, give or take what comes at once, and seconds that a head may take;
# others allow 8 to 64 KiB.
_HEAD = 65_536
_HEAD_SECONDS = 20.0
# Requests of one connection that may wait for the answers to those before them.
_PIPELINED = 16


class _Protocol(HttpToolsProtocol):
    # What comes next is of a head; so many bytes have come since the parser last got on.
    _in_head = True
    _unfinished = 0
    _got_on = False
    _late: asyncio.TimerHandle | None = None
    # So many wait that the connection ends with their answers; what comes after them is not looked at.
    _full = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called first; who then says nothing would keep the connection for ever."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called last."""
        self._expect_head_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called with what comes; heads, trailers and the sizes of chunks may be endless, as the parser has it."""
        if self._full:
            return
        if self._in_head and self._late is None:
            self._expect_head()
        self._got_on = False
        super().data_received(data)
        self._unfinished = 0 if self._got_on else self._unfinished + len(data)
        if self._unfinished > _HEAD:
            self._refuse("bad-request", f"the request line and the headers, or the trailers, exceed {_HEAD} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; nobody asks for trailers."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head, self._got_on = False, True
        self._expect_head_no_more()
        if len(self.pipeline) >= _PIPELINED:
            self._full = True
            self.cycle.keep_alive = False
            # The parser gives up what it has been given.
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
        """Called when an answer is sent, which may be before its request is: who then sends on and on is not kept."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_head and self._late is None:
            self._late = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Called for what cannot be parsed, which no application gets to see."""
        if not self._full:
            self._refuse("bad-request", "this is not HTTP, or broken HTTP")

    def _expect_head(self) -> None:
        why = f"the request line and the headers have not come within {_HEAD_SECONDS:g} s"
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
        """Called by the signals that end it."""
        self._stopping()
        super().handle_exit(sig, frame)


def serve(app: Any, host: str, port: int, *, stopping: Callable[[], None]) -> None:
    """Serve the ASGI application until SIGTERM or SIGINT; `stopping` is called by the signal's handler then."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        # Neither document has a WebSocket.
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
        server_header=False,
    )
    _Server(config, stopping).run()
