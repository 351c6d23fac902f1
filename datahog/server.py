"""The HTTP server of both APIs: uvicorn, stopped in good order, and with a problem for what is no HTTP at all."""

from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.problems import MEDIA_TYPE, Problem

# Seconds that requests under way get when the server is told to stop.
_GRACE = 5
# Bytes of a request's head, give or take what comes at once; others allow 8 to 64 KiB.
_HEAD = 65_536


class _Protocol(HttpToolsProtocol):
    # What comes next is of a head; all that has just come was; so many bytes of it have come.
    _in_head = True
    _all_head = True
    _head_size = 0

    def data_received(self, data: bytes) -> None:
        """Called with what comes; a head is kept in memory as it comes, and the parser sets it no limit."""
        self._all_head = self._in_head
        super().data_received(data)
        if self._all_head:
            self._head_size += len(data)
            if self._head_size > _HEAD and not self.transport.is_closing():
                self._refuse(f"the request line and the headers are larger than {_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head, self._all_head, self._head_size = False, False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for what cannot be parsed, which no application gets to see."""
        self._refuse("this is not HTTP, or broken HTTP")

    def _refuse(self, why: str) -> None:
        body = orjson.dumps(Problem("bad-request", f"{why}; the connection is closed").document)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
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
