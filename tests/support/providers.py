"""The providers of the fault tests: the simulator's five, and some whose answers a test chooses."""

import json
from typing import Any

from tests.support.servers.receiver import Receiver
from tests.support.system import providers_file

SIMULATED = ("gas", "internet", "water", "electricity", "phone")

OPEN_SECONDS = 1.0

_QUICK: dict[str, float] = {"initialDelay": 0.1, "maximumDelay": 0.5, "jitter": 0.2}
_BREAKER = {"failures": 3, "openSeconds": OPEN_SECONDS}
_OWN: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("steady", "slow", "late", "once", "failing", "full", "oversized")},
    **{name: {"breaker": _BREAKER} for name in ("offline", "broken")},
    "narrow": {"concurrency": 1},
    "twice": {"retry": _QUICK | {"maximumAttempts": 2}},
}


def path_of(name: str) -> str:
    """The receiver's path that is the provider of this name."""
    return f"/providers/{name}"


def providers_of(receiver: Receiver) -> str:
    """A providers' file."""
    own = {name: {"url": receiver.url(path_of(name)), "retry": _QUICK} | options for name, options in _OWN.items()}
    return providers_file() + "".join(f"  {name}: {json.dumps(options)}\n" for name, options in own.items())
