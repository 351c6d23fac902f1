"""An HTTP server whose answers a test chooses, and which records every call: a callback URL, or a provider."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Call:
    """One request as it came in; `at` is on the monotonic clock, in seconds."""

    method: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def webhook_id(self) -> str:
        """The id that Standard Webhooks gives a message."""
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Answer:
    """What is answered, after `delay` seconds; with `cut` the connection ends without an answer."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0
    cut: bool = False


class Receiver:
    """Listens on a port of this machine, a free one if none is named, while its block runs."""

    def __init__(self, port: int = 0) -> None:
        self._calls: defaultdict[str, list[Call]] = defaultdict(list)
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._take))
        self._server.daemon_threads = True

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def answers(self, path: str, *answers: Answer) -> None:
        """Answer a path so, one call after the other; the last answer holds for all further ones."""
        with self._lock:
            self._answers[path] = list(answers)

    def calls(self, path: str) -> list[Call]:
        """The calls that a path has got, the first one first."""
        with self._lock:
            return list(self._calls[path])

    def _take(self, path: str, call: Call) -> Answer:
        with self._lock:
            self._calls[path].append(call)
            answers = self._answers.get(path) or [Answer()]
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(take: Callable[[str, Call], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = take(self.path, Call(self.command, dict(self.headers.items()), body, time.monotonic()))
            time.sleep(answer.delay)
            if answer.cut:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            """Nothing: the calls are recorded."""

    return Handler
