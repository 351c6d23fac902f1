"""Receivers that misbehave: a result is posted until it is acknowledged, under one webhook-id."""

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

import specs
from tests.support.providers import path_of
from tests.support.servers.receiver import Answer, Call, Receiver
from tests.support.system import SECRET, System, eventually

NOT_ACKNOWLEDGED = {
    "error": Answer(500),
    "redirect": Answer(302, headers={"Location": "/hooks/elsewhere"}),
    "too slow": Answer(delay=3),
    "accepted, then the connection cut": Answer(cut=True),
}


@pytest.fixture
def path(receiver: Receiver, request: pytest.FixtureRequest) -> str:
    """The test's own callback path; the provider responds at once."""
    receiver.answers(path_of("steady"), Answer(200, body=b'{"amount": 22.27}'))
    return f"/hooks/{hash(request.node.name)}"


@pytest.mark.parametrize("first", NOT_ACKNOWLEDGED.values(), ids=NOT_ACKNOWLEDGED)
def test_an_unacknowledged_result_is_posted_again_with_its_id(
    first: Answer, path: str, fragile: System, receiver: Receiver
) -> None:
    receiver.answers(path, first, Answer(204))

    request_id = fragile.hand_over("steady", callback_url=receiver.url(path))
    delivery = settled_delivery(fragile, request_id)

    calls = receiver.calls(path)
    assert delivery["status"] == "SUCCEEDED"
    assert [call.webhook_id for call in calls] == [delivery["webhookId"]] * 2
    assert calls[0].body == calls[1].body
    for call in calls:
        assert_signed(call)
    assert not receiver.calls("/hooks/elsewhere")


def test_429_with_retry_after_delays_the_next_attempt(path: str, fragile: System, receiver: Receiver) -> None:
    receiver.answers(path, Answer(429, headers={"Retry-After": "2"}), Answer(204))

    request_id = fragile.hand_over("steady", callback_url=receiver.url(path))

    assert settled_delivery(fragile, request_id)["status"] == "SUCCEEDED"
    first, second = receiver.calls(path)
    assert second.at - first.at >= 2


@pytest.mark.parametrize("one", [True, False], ids=["one", "all since"])
def test_410_stops_a_delivery_until_it_is_redelivered(
    one: bool, path: str, fragile: System, receiver: Receiver
) -> None:
    receiver.answers(path, Answer(410), Answer(204))
    request_id = fragile.hand_over("steady", callback_url=receiver.url(path))
    gone = settled_delivery(fragile, request_id)

    if one:
        answer = fragile.order(request_id, "redeliver")
    else:
        since = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
        answer = fragile.call(specs.AGGREGATOR, "redeliverFailed", json={"since": since})

    assert (gone["status"], gone["attempts"]) == ("FAILED", 1)
    assert answer.status_code == 202
    eventually(lambda: fragile.look(request_id)["delivery"]["status"] == "SUCCEEDED")
    first, second = receiver.calls(path)
    assert first.webhook_id == second.webhook_id


def test_a_receiver_down_beyond_the_schedule_gets_a_redelivery(
    make_system: Callable[..., System],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    system = make_system(delivery_schedule=(0, 0.2, 0.2), simulator_failure_rate=0)
    system.start()
    request_id = system.hand_over("gas", callback_url=f"http://127.0.0.1:{port}/hooks/down")

    given_up = settled_delivery(system, request_id)
    with Receiver(port) as back:
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        answer = system.call(specs.AGGREGATOR, "redeliverFailed", json={"since": since})
        calls = eventually(lambda: back.calls("/hooks/down"))
        delivered = eventually(lambda: (d := system.look(request_id)["delivery"])["status"] == "SUCCEEDED" and d)

    assert (given_up["status"], given_up["attempts"]) == ("FAILED", 3)
    assert "connection" in str(given_up["lastError"])
    assert answer.json()["requestIds"] == [request_id]
    assert [call.webhook_id for call in calls] == [given_up["webhookId"]] == [delivered["webhookId"]]


def settled_delivery(system: System, request_id: str) -> dict[str, object]:
    """Wait until the delivery is no longer pending, and return it."""
    return eventually(lambda: (d := system.look(request_id)["delivery"])["status"] != "PENDING" and d)


def assert_signed(call: Call) -> None:
    """Assert that the call has a valid signature of Standard Webhooks; header names come in any case."""
    headers = {name.lower(): value for name, value in call.headers.items()}
    assert Webhook(SECRET).verify(call.body, headers) == json.loads(call.body)
