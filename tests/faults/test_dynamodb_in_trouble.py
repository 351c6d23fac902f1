"""DynamoDB throttles, fails, loses responses, or hangs: no request is lost, and none counts twice."""

import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import specs
from datahog.local import stack
from tests.support.engines.proxy import AWAY, BROKEN, LOST, THROTTLED, THROTTLED_AT_ALL, Proxy
from tests.support.load import accepted_callbacks, assert_complete_and_accepted_once, some_under_way
from tests.support.providers import path_of, providers_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually, system_settings

# Seconds: until all requests have ended, and how long DynamoDB hangs.
SETTLED = 60
FROZEN = 30.0
# Seconds within which an API must respond, on a busy machine: it tries twice, for up to three seconds each.
QUICKLY = 15.0
PROCESSES = ("worker", "reconciler", "client", "aggregator")


@pytest.fixture(scope="module")
def _behind(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[tuple[System, Proxy]]:
    directory = tmp_path_factory.mktemp("behind")
    (directory / "providers.yaml").write_text(providers_of(receiver))
    settings = system_settings(directory, delivery_timeout=2, heal_after=2)
    with Proxy(settings.dynamodb_port, seed="dynamodb") as proxy:
        url = stack.url("127.0.0.1", proxy.port)
        with System(settings.model_copy(update={"dynamodb_endpoint_url": url})) as system:
            system.start()
            yield system, proxy


@pytest.fixture
def system(_behind: tuple[System, Proxy]) -> System:
    """A whole system that reaches its DynamoDB through the proxy."""
    return _behind[0]


@pytest.fixture
def proxy(_behind: tuple[System, Proxy]) -> Iterator[Proxy]:
    """The proxy, which disturbs nothing before and after the test."""
    proxy = _behind[1]
    proxy.faults.clear()
    yield proxy
    proxy.calm()


def test_requests_complete_once_despite_refusals_of_every_kind(system: System, proxy: Proxy) -> None:
    proxy.disturb(THROTTLED, THROTTLED_AT_ALL, BROKEN, AWAY, share=0.25)
    asked = [ask_until_accepted(system, specs.CLIENT) for _ in range(20)]
    # The APIs would refuse to read them, too.
    eventually(lambda: set(asked) <= set(accepted_callbacks(system)), SETTLED)
    proxy.calm()

    assert_complete_and_accepted_once(system, asked)
    occurred = {fault for fault, _ in proxy.faults}
    assert occurred == {THROTTLED, THROTTLED_AT_ALL, BROKEN, AWAY}
    assert_all_alive(system)


def test_while_all_calls_are_throttled_apis_are_unavailable(system: System, proxy: Proxy) -> None:
    asked = some_under_way(system, 10)
    held = system.log("worker").count(": held for ")
    proxy.disturb(THROTTLED)
    for api in (specs.CLIENT, specs.AGGREGATOR):
        assert_unavailable(system, api)
    eventually(lambda: system.log("worker").count(": held for ") > held)
    proxy.calm()

    assert_complete_and_accepted_once(system, asked, SETTLED)
    assert_all_alive(system)


def test_lost_responses_to_writes_count_nothing_twice(system: System, proxy: Proxy, receiver: Receiver) -> None:
    providers = ("steady", "failing")
    receiver.answers(path_of("steady"), Answer(200, body=b'"there"'))
    receiver.answers(path_of("failing"), *[Answer(500), Answer(200, body=b'"at last"')] * 200)
    before = {name: len(receiver.calls(path_of(name))) for name in providers}

    proxy.disturb(LOST, share=0.3, operations=("UpdateItem", "PutItem"))
    at_client = [ask_until_accepted(system, specs.CLIENT, *providers) for _ in range(5)]
    hooks = [f"/hooks/lost-{number}" for number in range(5)]
    handed_over = [
        ask_until_accepted(system, specs.AGGREGATOR, *providers, callbackUrl=receiver.url(hook)) for hook in hooks
    ]
    records = [settled(system, request_id) for request_id in at_client + handed_over]
    documents = [system.read_until_ended(request_id, SETTLED) for request_id in at_client]
    proxy.calm()

    assert {operation for _, operation in proxy.faults} == {"UpdateItem", "PutItem"}
    for document in [*records, *documents]:
        assert document["status"] == "COMPLETE"
        assert [job["result"] for job in document["jobs"]] == ["there", "at last"]
    assert all(record["openJobs"] == 0 for record in records)
    assert max(accepted_callbacks(system)[request_id] for request_id in at_client) <= 1
    for number, name in enumerate(providers):
        attempts = sum(record["jobs"][number]["attempts"] for record in records)
        # An attempt may be on the queue twice, because the first enqueueing is not recorded; one counts.
        assert len(records) <= attempts <= len(receiver.calls(path_of(name))) - before[name]
    for hook, request_id in zip(hooks, handed_over, strict=True):
        webhook_ids = {call.webhook_id for call in receiver.calls(hook)}
        assert webhook_ids == {system.look(request_id)["delivery"]["webhookId"]}
    assert_all_alive(system)


@pytest.mark.timeout(180)
def test_a_frozen_dynamodb_holds_jobs_and_loses_nothing(system: System, proxy: Proxy) -> None:
    asked = some_under_way(system, 10)
    held = system.log("worker").count(": held for ")
    system.kill("dynamodb", signal.SIGSTOP)
    try:
        thaws = time.monotonic() + FROZEN
        while time.monotonic() < thaws:
            for api in (specs.CLIENT, specs.AGGREGATOR):
                assert_unavailable(system, api)
        assert system.log("worker").count(": held for ") > held
    finally:
        system.kill("dynamodb", signal.SIGCONT)

    assert_complete_and_accepted_once(system, asked, SETTLED)
    assert_all_alive(system)


def ask_until_accepted(system: System, api: str, *providers: str, **members: str) -> str:
    """Create a request, and try again while the API is unavailable; at the aggregator always under the same id."""
    body = {"providers": providers or ("gas", "water"), **members}
    if api == specs.AGGREGATOR:
        body["requestId"] = uuid.uuid4().hex

    def ask() -> requests.Response | None:
        answer = system.call(api, "createRequest", json=body)
        assert answer.status_code in (202, 503), answer.text
        return answer if answer.status_code == 202 else None

    request_id: str = eventually(ask).json()["requestId"]
    return request_id


def settled(system: System, request_id: str) -> dict[str, Any]:
    """Wait until the result is delivered, and return the aggregator's record."""

    def look() -> dict[str, Any] | None:
        answer = system.call(specs.AGGREGATOR, "getRequest", {"requestId": request_id})
        document: dict[str, Any] = answer.json()
        return document if answer.status_code == 200 and document["delivery"]["status"] == "SUCCEEDED" else None

    return eventually(look, SETTLED)


def assert_unavailable(system: System, api: str) -> None:
    """Assert that the API soon responds 503 with a Retry-After."""
    began = time.monotonic()
    answer = system.call(api, "getRequest", {"requestId": "some"})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert time.monotonic() - began < QUICKLY


def assert_all_alive(system: System) -> None:
    for name in PROCESSES:
        assert system.exit_code(name) is None, name
    assert "ended with" not in system.log("worker")
