"""Missing callbacks: the client was away for longer than the schedule, and gets its results nevertheless."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

import specs
from datahog.bootstrap.wiring import Wiring
from specs.operations import operations
from tests.support.providers import path_of, providers_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually

TEXT = b'{"n": 1.0000000000000000001, "n": -0}'


@pytest.fixture
def system(make_system: Callable[..., System], tmp_path: Path, receiver: Receiver) -> System:
    """A running system that gives a delivery up within a second, and allows a caller two open requests."""
    (tmp_path / "providers.yaml").write_text(providers_of(receiver))
    made = make_system(delivery_schedule=(0, 0.2, 0.2), delivery_timeout=2, open_requests=2)
    made.start()
    return made


@pytest.fixture
def ask(system: System) -> Callable[..., requests.Response]:
    """Calls the client's createRequest as a caller with a quota of open requests."""
    key = Wiring(system.settings, {}).api_keys.create("somebody", ["requests:read", "requests:write"])
    operation = operations(specs.CLIENT)["createRequest"]

    def create(*providers: str, **members: str) -> requests.Response:
        url = system.settings.api_urls[specs.CLIENT] + operation.target({})
        headers = {"Authorization": f"Bearer {key}"}
        return requests.post(url, headers=headers, json={"providers": providers, **members}, timeout=20)

    return create


def away_for_the_callbacks(system: System, *request_ids: str) -> None:
    """Stop the client until the deliveries of these requests have failed for good."""
    for request_id in request_ids:
        eventually(lambda: system.read(request_id)["submission"]["status"] == "ACCEPTED")  # noqa: B023
    system.kill("client")
    for request_id in request_ids:
        eventually(lambda: system.look(request_id)["delivery"]["status"] == "FAILED")  # noqa: B023
    system.start("client")
    for request_id in request_ids:
        assert system.read(request_id)["status"] == "OPEN"


def test_a_request_without_its_callback_ends_after_the_deadline(
    system: System, receiver: Receiver, ask: Callable[..., requests.Response]
) -> None:
    receiver.answers(path_of("slow"), Answer(200, body=TEXT, delay=2))
    soon = (datetime.now(UTC) + timedelta(seconds=12)).isoformat()
    there, lost = (ask("slow", deadline=soon).json()["requestId"] for _ in range(2))
    away_for_the_callbacks(system, there, lost)
    Wiring(system.settings, {})._aggregator_table.delete({"pk": lost, "sk": "request"})
    assert ask("steady").status_code == 429

    ended = system.read_until_ended(there, 80)
    failed = system.read_until_ended(lost, 40)

    assert ended["status"] == "COMPLETE"
    answer = system.call(specs.CLIENT, "getRequest", {"requestId": there})
    assert b'"result":' + TEXT in answer.content
    assert failed["status"] == "FAILED"
    assert "no more" in failed["jobs"][0]["lastError"]
    eventually(lambda: ask("steady").status_code == 202, 20, pause=0.5)


def test_cancelling_an_undelivered_request_fetches_its_result(
    system: System, receiver: Receiver, ask: Callable[..., requests.Response]
) -> None:
    receiver.answers(path_of("slow"), Answer(200, body=TEXT, delay=2))
    receiver.answers(path_of("twice"), Answer(500), Answer(500), Answer(200, body=b"2"))
    request_id = ask("slow", "twice").json()["requestId"]
    away_for_the_callbacks(system, request_id)

    cancelled = system.call(specs.CLIENT, "cancelRequest", {"requestId": request_id})
    ended = system.read_until_ended(request_id, 20)

    assert cancelled.status_code == 202
    assert ended["status"] == "PARTIAL"
    assert system.call(specs.CLIENT, "cancelRequest", {"requestId": request_id}).status_code == 409
    assert system.order(request_id, "redeliver").status_code == 202
    eventually(lambda: system.look(request_id)["delivery"]["status"] == "SUCCEEDED")
    assert system.read(request_id) == ended
    # The later revision counts.
    assert system.order(request_id, "retry").status_code == 202
    eventually(lambda: system.read(request_id)["status"] == "COMPLETE")
    assert [job["result"] for job in system.read(request_id)["jobs"]] == [{"n": 0}, 2]
