"""The world of the herd: one provider that can be down, one that never is, and the receiver of all callbacks."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

DOWN, OTHER = "down", "other"


@dataclass(frozen=True)
class Span:
    """One call of a provider, from when it came to when it was answered, by `time.monotonic`."""

    begun: float
    ended: float


class World:
    """Listens on a free port of this machine while its block runs. Providers take `latency` seconds to answer."""

    def __init__(self, *, latency: float) -> None:
        self.is_down = False
        self.calls: dict[str, list[Span]] = {DOWN: [], OTHER: []}
        self.received: defaultdict[str, list[float]] = defaultdict(list)
        """When each callback came, by the request's id."""
        self._latency = latency
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    def provider_url(self, name: str) -> str:
        """The URL of a provider."""
        return f"{self._url}/providers/{name}"

    def hook_url(self, request_id: str) -> str:
        """Where the callback of a request goes."""
        return f"{self._url}/hooks/{request_id}"

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, provider: str) -> tuple[int, bytes]:
        """What a provider answers, when it has taken its time."""
        begun = time.monotonic()
        time.sleep(self._latency)
        fails = provider == DOWN and self.is_down
        self.calls[provider].append(Span(begun, time.monotonic()))
        return (503, b"down") if fails else (200, b'{"amount": 22.27}')

    def __enter__(self) -> "World":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def most_at_once(spans: Sequence[Span]) -> int:
    """How many calls there were at the same moment, at most."""
    steps = sorted([(span.begun, 1) for span in spans] + [(span.ended, -1) for span in spans])
    at_once = most = 0
    for _, step in steps:
        at_once += step
        most = max(most, at_once)
    return most


def per_second(spans: Sequence[Span], begun: float, ended: float) -> list[int]:
    """How many calls came in each whole second of a time."""
    counts = [0] * max(1, int(ended - begun))
    for span in spans:
        second = int(span.begun - begun)
        if 0 <= second < len(counts) and span.begun >= begun:
            counts[second] += 1
    return counts


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer are two packets, of which the second would wait for the first's acknowledgement.
        disable_nagle_algorithm: ClassVar[bool] = True

        def do_GET(self) -> None:
            self._say(*world.answer(self.path.rpartition("/")[2]))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            world.received[self.path.rpartition("/")[2]].append(time.monotonic())
            self._say(204, b"")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the world has its own logs."""

    return Handler
