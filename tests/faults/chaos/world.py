"""The world: the providers that are asked and the receivers that are called, with a log of all they said and got."""

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.faults.chaos.side import Side
from tests.system import SECRET

# How providers and receivers are in good times: the share of each manner.
_PROVIDERS_USUALLY = {"fail": 0.15, "garbage": 0.02, "cut": 0.02}
_RECEIVERS_USUALLY = {"fail": 0.05, "cut": 0.02}
# Seconds: longer than a provider's read timeout and than the delivery timeout are.
READ_TIMEOUT, DELIVERY_TIMEOUT = 2, 4
_TOO_LONG = 5
# Every so many answers, one is larger than what is kept in a request's own item.
_LARGE_EVERY, _LARGE = 25, 40_000


@dataclass(frozen=True)
class Sent:
    """One answer of a provider; `result` is None where it was none."""

    provider: str
    at: float
    result: object


@dataclass(frozen=True)
class Taken:
    """One callback as a receiver got it."""

    hook: str
    webhook_id: str
    signed: bool
    body: bytes
    at: float


class World:
    """Listens on a free port of this machine while its block runs. Times are those of `time.time`."""

    def __init__(self, seed: int) -> None:
        self.providers = Side(f"{seed} providers", _PROVIDERS_USUALLY)
        self.receivers = Side(f"{seed} receivers", _RECEIVERS_USUALLY)
        self.sent: list[Sent] = []
        self.taken: list[Taken] = []
        self._rng = random.Random(f"{seed} results")
        self._number = 0
        self._lock = threading.Lock()
        self._webhook = Webhook(SECRET)
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    def provider_url(self, name: str) -> str:
        """The URL of a provider."""
        return f"{self._url}/providers/{name}"

    def hook_url(self, hook: str) -> str:
        """The URL of a receiver."""
        return f"{self._url}/hooks/{hook}"

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, provider: str) -> tuple[int, bytes] | None:
        """Status and body of a provider's next answer, unlike every other; None where the connection is cut."""
        manner = self.providers.manner()
        with self._lock:
            self._number += 1
            result: dict[str, object] | None = None
            if manner in (None, "hang"):
                padding = self._rng.randbytes(_LARGE).hex() if self._number % _LARGE_EVERY == 0 else ""
                result = {"provider": provider, "number": self._number, "padding": padding}
            self.sent.append(Sent(provider, time.time(), result))
        match manner:
            case "fail":
                return 500, b"#fail"
            case "garbage":
                return 200, b'{"number": 1'
            case "cut":
                return None
            case "hang":
                time.sleep(_TOO_LONG)
        return 200, json.dumps(result).encode()

    def take(self, hook: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes] | None:
        """What a receiver answers to a callback; None where the connection is cut."""
        manner = self.receivers.manner()
        given = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            self.taken.append(Taken(hook, given.get("webhook-id", ""), self._signed(body, given), body, time.time()))
        match manner:
            case "fail":
                return 500, b""
            case "cut":
                return None
            case "slow":
                time.sleep(_TOO_LONG)
        return 204, b""

    def _signed(self, body: bytes, headers: dict[str, str]) -> bool:
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            return False
        return True

    def __enter__(self) -> "World":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Whatever tries to connect shall be logged, and not turned away by a full queue.
    request_queue_size = 512


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer are two packets, of which the second would wait for the first's acknowledgement.
        disable_nagle_algorithm: ClassVar[bool] = True

        def do_GET(self) -> None:
            self._say(world.answer(self.path.rpartition("/")[2]))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._say(world.take(self.path.rpartition("/")[2], dict(self.headers.items()), body))

        def _say(self, answer: tuple[int, bytes] | None) -> None:
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
            """Nothing: the world has its own logs."""

    return Handler
