"""Runs a system with providers of every kind; fails if one of its processes logs a traceback."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import SECRET, System, providers_file, system_settings

# The successor of `SECRET` during a rotation: both sign, either verifies.
NEXT_SECRET = "whsec_" + "dGhlIG5leHQgc2VjcmV0IG9mIHRoZSB0ZXN0cywgdG9v"

_PROVIDERS = {
    "steady": (Answer(200, {"Content-Type": "application/json"}, b'[{"amount": 30.0}]'), {}),
    # Retry-After is an hour, so its jobs stay open after one attempt.
    "mute": (Answer(503, {"Retry-After": "3600"}), {"breaker": {"failures": 1_000_000}}),
    "broken": (Answer(404), {"retry": {"maximumAttempts": 1}}),
}


@contextmanager
def running_system(directory: Path, receiver: Receiver) -> Iterator[System]:
    """A system with the simulator's providers and some of the receiver; `keyed` has a key in its query string."""
    for name, (response, _) in _PROVIDERS.items():
        receiver.answers(f"/{name}", response)
    own = {name: {"url": receiver.url(f"/{name}")} | options for name, (_, options) in _PROVIDERS.items()}
    own["keyed"] = {"url": receiver.url("/keyed?key=hunter2")}
    lines = [f"  {name}: {json.dumps(options)}\n" for name, options in own.items()]
    (directory / "providers.yaml").write_text(providers_file() + "".join(lines))
    with System(system_settings(directory, webhook_secrets=(SECRET, NEXT_SECRET))) as running:
        running.start()
        yield running
        for name in ("aggregator", "client", "worker", "reconciler"):
            assert "Traceback" not in running.log(name), running.log(name)
