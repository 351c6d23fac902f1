"""The world outside: one server that is all providers and all receivers, whose kinds decide what they say."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self

# Status and body; None where the connection is cut.
Answer = tuple[int, bytes] | None


class Outside(ABC):
    """Listens on a free port of this machine while its block runs. Its methods are called by many threads."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    def provider_url(self, name: str) -> str:
        """The URL of a provider."""
        return f"{self._url}/providers/{name}"

    def hook_url(self, name: str) -> str:
        """The URL of a receiver."""
        return f"{self._url}/hooks/{name}"

    @abstractmethod
    def answer(self, provider: str) -> Answer:
        """What a provider says when it is asked."""

    @abstractmethod
    def take(self, hook: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What a receiver says to a callback."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Whatever tries to connect shall be logged, and not turned away by a full queue.
    request_queue_size = 512


def _handler(outside: Outside) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer are two packets, of which the second would wait for the first's acknowledgement.
        disable_nagle_algorithm: ClassVar[bool] = True

        def do_GET(self) -> None:
            self._say(outside.answer(self.path.rpartition("/")[2]))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._say(outside.take(self.path.rpartition("/")[2], dict(self.headers.items()), body))

        def _say(self, answer: Answer) -> None:
            if answer is None:
                self.close_connection = True
                return
            status, body = answer
            try:
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                # Who asked has given up, or was killed.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: each kind keeps its own log."""

    return Handler
