"""Providers that are offline for long, or send results of the largest size and larger."""

import base64
import json
import os
from itertools import pairwise
from typing import Any

import pytest

from tests.support.providers import OPEN_SECONDS, path_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually

# Bytes: the largest result.
LIMIT = 5 * 1024 * 1024


def test_waiting_behind_an_open_breaker_uses_up_no_attempt(fragile: System, receiver: Receiver) -> None:
    path = path_of("offline")
    receiver.answers(path, Answer(503, body=b"down"))
    asked = [fragile.ask("offline") for _ in range(8)]
    eventually(lambda: len(receiver.calls(path)) >= 8)
    receiver.answers(path, Answer(200, body=b'"back"'))

    jobs = [fragile.read_until_ended(request_id)["jobs"][0] for request_id in asked]

    assert [job["result"] for job in jobs] == ["back"] * len(asked)
    assert sum(job["attempts"] for job in jobs) == len(receiver.calls(path))


def test_an_open_breaker_lets_one_call_at_a_time_through(fragile: System, receiver: Receiver) -> None:
    path = path_of("broken")
    receiver.answers(path, Answer(503))
    asked = [fragile.ask("broken") for _ in range(4)]

    calls = eventually(lambda: len(c := receiver.calls(path)) >= 9 and c)
    # The breaker does not stop the calls that were under way when it opened, one for each request.
    probes = [call.at for call in calls[6:]]

    assert min(later - earlier for earlier, later in pairwise(probes)) >= OPEN_SECONDS
    for request_id in asked:
        fragile.order(request_id, "cancel")


@pytest.fixture
def huge(receiver: Receiver) -> str:
    """A text whose JSON is exactly 5 MiB and does not compress well; the provider `oversized` sends one byte more."""
    text = base64.b64encode(os.urandom(LIMIT)).decode()[: LIMIT - 2]
    receiver.answers(path_of("full"), Answer(200, body=f'"{text}"'.encode()))
    receiver.answers(path_of("oversized"), Answer(200, body=f'"{text}+"'.encode()))
    return text


def test_a_5_mb_result_comes_back_whole_and_a_larger_one_fails(huge: str, fragile: System) -> None:
    document = fragile.read_until_ended(fragile.ask("full", "oversized"))

    assert_full_and_oversized(document, huge)


def test_a_5_mb_result_is_posted_whole(huge: str, fragile: System, receiver: Receiver) -> None:
    fragile.hand_over("full", "oversized", callback_url=receiver.url("/hooks/huge"))

    posted = eventually(lambda: receiver.calls("/hooks/huge"))

    assert_full_and_oversized(json.loads(posted[0].body), huge)


def assert_full_and_oversized(document: dict[str, Any], huge: str) -> None:
    """Assert that the result of `full` is there, byte for byte, and that `oversized` has failed with the reason."""
    full, oversized = document["jobs"]
    assert document["status"] == "PARTIAL"
    assert full["status"] == "DONE"
    # `bool`, because pytest would take minutes to show the difference.
    assert bool(full["result"] == huge)
    assert (oversized["status"], oversized["attempts"]) == ("FAILED", 1)
    assert str(LIMIT) in oversized["lastError"]
    assert "result" not in oversized
