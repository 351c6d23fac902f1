"""DynamoDB refuses a job's writes: the worker repeats the write, and calls no provider or receiver again."""

import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from datahog.local import stack
from tests.support.engines.proxy import THROTTLED, Proxy
from tests.support.providers import path_of, providers_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually, system_settings

# Seconds for which writes are refused. A job that ran again would make a call every two seconds.
REFUSED = 15.0
# Seconds: the longest pause between two writes, and the time that a busy machine takes.
WRITTEN = 30.0
# Seconds.
GRACE = 5.0
HOUR = 3600


@pytest.fixture(scope="module")
def _behind(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[tuple[System, Proxy]]:
    directory = tmp_path_factory.mktemp("refused")
    (directory / "providers.yaml").write_text(providers_of(receiver))
    # The reconciler enqueues a first delivery that is not recorded by then.
    settings = system_settings(directory, worker_grace=GRACE, delivery_timeout=3, heal_after=1)
    with Proxy(settings.dynamodb_port, seed="refused") as proxy:
        url = stack.url("127.0.0.1", proxy.port)
        with System(settings.model_copy(update={"dynamodb_endpoint_url": url})) as system:
            system.start()
            yield system, proxy


@pytest.fixture
def system(_behind: tuple[System, Proxy]) -> Iterator[System]:
    """A whole system that reaches its DynamoDB through the proxy."""
    yield _behind[0]
    _behind[0].mend()


@pytest.fixture
def proxy(_behind: tuple[System, Proxy]) -> Iterator[Proxy]:
    """The proxy, which disturbs nothing before and after the test."""
    yield _behind[1]
    _behind[1].calm()


@pytest.fixture
def hook() -> str:
    """The test's own callback path."""
    return f"/hooks/{uuid.uuid4().hex}"


@pytest.fixture
def asked(receiver: Receiver) -> Callable[[str], int]:
    """Returns how many calls a provider got during this test."""
    before = Counter({name: len(receiver.calls(path_of(name))) for name in ("steady", "late", "narrow", "once")})
    return lambda name: len(receiver.calls(path_of(name))) - before[name]


def refuse_writes(proxy: Proxy) -> None:
    """Throttle the writes that change a record; new records are still written."""
    proxy.disturb(THROTTLED, operations=("UpdateItem",))


def delivered(system: System, request_id: str) -> dict[str, Any]:
    """Wait until the request's delivery has succeeded, and return the request."""
    return eventually(lambda: (d := system.look(request_id))["delivery"]["status"] == "SUCCEEDED" and d, WRITTEN)


def test_a_provider_is_asked_once_while_its_result_is_unwritten(
    system: System, proxy: Proxy, receiver: Receiver, asked: Callable[[str], int], hook: str
) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b'"there"'))
    refuse_writes(proxy)
    request_id = system.hand_over("steady", callback_url=receiver.url(hook))
    eventually(lambda: asked("steady"))

    time.sleep(REFUSED)
    proxy.calm()

    document = delivered(system, request_id)
    assert (document["status"], document["jobs"][0]["result"]) == ("COMPLETE", "there")
    assert document["jobs"][0]["attempts"] == 1
    assert asked("steady") == 1
    assert len(receiver.calls(hook)) == 1


def test_a_provider_with_a_retry_after_is_asked_once(
    system: System, proxy: Proxy, receiver: Receiver, asked: Callable[[str], int], hook: str
) -> None:
    receiver.answers(path_of("late"), Answer(503, headers={"Retry-After": str(HOUR)}))
    refuse_writes(proxy)
    request_id = system.hand_over("late", callback_url=receiver.url(hook))
    eventually(lambda: asked("late"))
    asked_at = time.time()

    time.sleep(REFUSED)
    proxy.calm()

    job = eventually(lambda: (j := system.look(request_id)["jobs"][0])["attempts"] and j, WRITTEN)
    assert (job["status"], job["attempts"]) == ("INIT", 1)
    assert "503" in job["lastError"]
    assert HOUR - 1 <= moment(job["nextAttemptAt"]) - asked_at < 1.5 * HOUR
    assert asked("late") == 1
    system.order(request_id, "cancel")


def test_refused_writes_hold_no_permit_of_the_provider(
    system: System, proxy: Proxy, receiver: Receiver, asked: Callable[[str], int], hook: str
) -> None:
    receiver.answers(path_of("narrow"), Answer(200, body=b'"there"'))
    refuse_writes(proxy)
    requests = [system.hand_over("narrow", callback_url=receiver.url(hook)) for _ in range(4)]

    # Its concurrency is one.
    eventually(lambda: asked("narrow") == len(requests), REFUSED)
    proxy.calm()

    for request_id in requests:
        delivered(system, request_id)
    assert asked("narrow") == len(requests)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Answer(204, delay=2), "SUCCEEDED"), (Answer(429, headers={"Retry-After": str(HOUR)}, delay=2), "PENDING")],
    ids=["acknowledged", "Retry-After"],
)
def test_a_receiver_is_called_once_while_the_result_is_unwritten(
    answer: Answer,
    status: str,
    system: System,
    proxy: Proxy,
    receiver: Receiver,
    asked: Callable[[str], int],
    hook: str,
) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b'"there"'))
    receiver.answers(hook, answer)
    request_id = system.hand_over("steady", callback_url=receiver.url(hook))
    eventually(lambda: receiver.calls(hook))
    refuse_writes(proxy)

    time.sleep(answer.delay + REFUSED)
    proxy.calm()

    delivery = eventually(lambda: (d := system.look(request_id)["delivery"])["attempts"] and d, WRITTEN)
    assert (delivery["status"], delivery["attempts"]) == (status, 1)
    assert len(receiver.calls(hook)) == 1


def test_a_worker_stopped_while_writes_are_refused_loses_nothing(
    system: System, proxy: Proxy, receiver: Receiver, asked: Callable[[str], int], hook: str
) -> None:
    receiver.answers(path_of("once"), Answer(200, body=b'"there"'))
    refuse_writes(proxy)
    request_id = system.hand_over("once", callback_url=receiver.url(hook))
    eventually(lambda: asked("once"))
    eventually(lambda: f"{request_id} once: held for" in system.log("worker"))

    began = time.monotonic()
    system.kill("worker", signal.SIGTERM)
    took = time.monotonic() - began
    proxy.calm()
    system.start("worker")

    assert took < GRACE
    assert delivered(system, request_id)["jobs"][0]["result"] == "there"
    # The process held the first response in memory.
    assert asked("once") == 2


def moment(text: str) -> float:
    """Convert an RFC 3339 time to epoch seconds."""
    return datetime.fromisoformat(text).timestamp()
