"""A JavaScript receiver verifies posted callbacks with either secret, and refuses altered or late ones."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.npm import installed
from tests.contract.stack import NEXT_SECRET
from tests.support.servers.receiver import Call, Receiver
from tests.support.system import SECRET, System, eventually

_HERE = Path(__file__).parent
_OTHER = "whsec_dGhlIHNlY3JldCBvZiBzb21lYm9keSBlbHNlLi4uLg=="
_FORGED = "WebhookVerificationError: No matching signature found"
_LATE = "WebhookVerificationError: Message timestamp too old"
_EARLY = "WebhookVerificationError: Message timestamp too new"


@pytest.fixture
def posted(system: System, receiver: Receiver) -> Call:
    """A callback as it was received, from a system that is rotating its secret."""
    system.hand_over("gas", "water", callback_url=receiver.url("/javascript"))
    [call] = eventually(lambda: receiver.calls("/javascript"))
    return call


# The first run downloads the packages.
@pytest.mark.timeout(300)
def test_another_implementation_verifies_only_genuine_posts(posted: Call) -> None:
    installed(_HERE)
    text = posted.body.decode()
    time = int(posted.headers["webhook-timestamp"])
    first, second = posted.headers["webhook-signature"].split()

    def check(secret: str = NEXT_SECRET, body: str = text, later: int = 0, **headers: str) -> dict[str, Any]:
        changed = {f"webhook-{name}": value for name, value in headers.items()}
        return {"secret": secret, "headers": {**posted.headers, **changed}, "body": body, "later": later}

    checks = {
        "verified with the new secret": (check(), None),
        "verified with the old secret": (check(SECRET), None),
        "verified with an unrelated secret": (check(_OTHER), _FORGED),
        "signed with the old secret only, verified with the new": (check(signature=first), _FORGED),
        "signed with the new secret only, verified with the new": (check(signature=second), None),
        "another body": (check(body=text.replace('"COMPLETE"', '"FAILED"')), _FORGED),
        "an extra space": (check(body=text + " "), _FORGED),
        "another id": (check(id="msg_other"), _FORGED),
        "another time": (check(timestamp=str(time + 1)), _FORGED),
        "four minutes later": (check(later=240), None),
        "six minutes later": (check(later=360), _LATE),
        "six minutes later, with a corrected timestamp": (check(later=360, timestamp=str(time + 360)), _FORGED),
        "in the future": (check(later=-360), _EARLY),
    }
    refusals = _verify([given for given, _ in checks.values()])

    assert json.loads(text)["status"] == "COMPLETE"
    assert dict(zip(checks, refusals, strict=True)) == {name: refusal for name, (_, refusal) in checks.items()}


def _verify(checks: list[dict[str, Any]]) -> list[str | None]:
    done = subprocess.run(
        ["node", "verify.js"], cwd=_HERE, input=json.dumps(checks), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    refusals: list[str | None] = json.loads(done.stdout)
    return refusals
