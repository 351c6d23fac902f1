"""The world: providers and receivers, with a log of all that they sent and received."""

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.faults.chaos.side import Side
from tests.support.servers.outside import Answer, Outside
from tests.support.system import SECRET

# How undisturbed providers and receivers behave: the share of each manner.
_PROVIDERS_USUALLY = {"fail": 0.15, "garbage": 0.02, "cut": 0.02}
_RECEIVERS_USUALLY = {"fail": 0.05, "cut": 0.02}
# Seconds. `_TOO_LONG` is longer than both timeouts.
READ_TIMEOUT, DELIVERY_TIMEOUT = 2, 4
_TOO_LONG = 5
# One of so many responses is larger, in bytes, than a result in the request's own item may be.
_LARGE_EVERY, _LARGE = 25, 40_000


@dataclass(frozen=True)
class Sent:
    """One response of a provider; `result` is None where it has no result."""

    provider: str
    at: float
    result: object


@dataclass(frozen=True)
class Taken:
    """One callback as its receiver got it."""

    hook: str
    webhook_id: str
    signed: bool
    body: bytes
    at: float


class World(Outside):
    """All providers and receivers. Times are those of `time.time`."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.providers = Side(f"{seed} providers", _PROVIDERS_USUALLY)
        self.receivers = Side(f"{seed} receivers", _RECEIVERS_USUALLY)
        self.sent: list[Sent] = []
        self.taken: list[Taken] = []
        self._rng = random.Random(f"{seed} results")
        self._number = 0
        self._lock = threading.Lock()
        self._webhook = Webhook(SECRET)

    def answer(self, provider: str) -> Answer:
        """A provider's next response, which differs from all others."""
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

    def take(self, hook: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """A receiver's response, by its manner."""
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
