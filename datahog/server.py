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


class _Protocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:
        """Called for what cannot be parsed, which no application gets to see."""
        problem = Problem("bad-request", "this is not HTTP, or broken HTTP; the connection is closed")
        body = orjson.dumps(problem.document)
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
