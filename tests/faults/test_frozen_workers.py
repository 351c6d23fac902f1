"""Workers that are stopped (SIGSTOP) for longer than their lease, and continue when another has done their work."""

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import redis
import rq

from tests.support.leftovers import open_records, queued
from tests.support.providers import path_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually, system_settings
from tests.support.workers.freezing import FREEZES

_PROVIDERS = ("steady", "late", FREEZES)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """Two workers; each takes the other's jobs over after two seconds without a heartbeat."""
    directory = tmp_path_factory.mktemp("frozen")
    options = {"retry": {"initialDelay": 0.1, "jitter": 0}}
    providers = {name: options | {"url": receiver.url(path_of(name))} for name in _PROVIDERS}
    (directory / "providers.yaml").write_text(json.dumps({"providers": providers}))
    settings = system_settings(directory, worker_lease=2, heal_after=1, reconciler_period=0.2, delivery_timeout=4)
    with System(settings, {"worker": "tests.support.workers.freezing"}) as running:
        running.start("dynamodb", "redis", "tables", "aggregator", "worker", "reconciler")
        running.start_another("worker")
        with redis.Redis.from_url(settings.redis_url) as connection:
            eventually(lambda: rq.Worker.count(connection=connection) == 2)
        yield running


@pytest.fixture
def go_on() -> Iterator[Callable[[int], None]]:
    """Stops a process; a second call, or the end of the test, continues it."""
    stopped: list[int] = []

    def toggle(pid: int) -> None:
        stop = pid not in stopped
        os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)
        stopped.append(pid)

    yield toggle
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def holder(system: System, job_id: str) -> int:
    """The id of the process that runs a job."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        name = eventually(lambda: connection.hget(f"rq:job:{job_id}", "worker_name")).decode()
        return next(int(w.pid or 0) for w in rq.Worker.all(connection=connection) if w.name == name)


def logs(system: System) -> str:
    """The logs of all workers."""
    return "".join(path.read_text() for path in system.settings.data_dir.glob("worker*.log"))


def assert_nothing_is_left(system: System) -> None:
    eventually(lambda: not queued(system) and not open_records(system))


def test_a_worker_stopped_in_mid_fetch_changes_nothing_later(
    system: System, receiver: Receiver, go_on: Callable[[int], None]
) -> None:
    path, hook = path_of("late"), "/hooks/frozen-fetch"
    receiver.answers(path, Answer(200, body=b'"stale"', delay=1), Answer(200, body=b'"fresh"'))
    request_id = system.hand_over("late", callback_url=receiver.url(hook))
    eventually(lambda: receiver.calls(path))
    stopped = holder(system, f"fetch-{request_id}-0-1-0")

    go_on(stopped)
    eventually(lambda: receiver.calls(hook))
    before = eventually(lambda: (d := system.look(request_id))["delivery"]["status"] == "SUCCEEDED" and d)
    go_on(stopped)
    eventually(lambda: f"{request_id} late: the request {request_id} has ended already" in logs(system))

    assert_nothing_is_left(system)
    assert system.look(request_id) == before
    [job] = before["jobs"]
    assert (job["status"], job["result"], job["attempts"]) == ("DONE", "fresh", 1)
    assert [call.webhook_id for call in receiver.calls(hook)] == [f"msg_{request_id}_1"]


def test_a_late_enqueue_of_a_stopped_worker_changes_nothing(system: System, receiver: Receiver) -> None:
    path, hook = path_of(FREEZES), "/hooks/frozen-enqueue"
    receiver.answers(path, Answer(500), Answer(200, body=b'"fresh"'), Answer(200, body=b'"stale"'))
    request_id = system.hand_over(FREEZES, callback_url=receiver.url(hook))

    file = system.settings.data_dir / "frozen"
    stopped = int(eventually(lambda: file.exists() and file.read_text()))
    try:
        eventually(lambda: receiver.calls(hook))
        before = eventually(lambda: (d := system.look(request_id))["delivery"]["status"] == "SUCCEEDED" and d)
        assert_nothing_is_left(system)
    finally:
        os.kill(stopped, signal.SIGCONT)
    eventually(lambda: len(receiver.calls(path)) == 3)

    assert_nothing_is_left(system)
    assert system.look(request_id) == before
    [job] = before["jobs"]
    assert (job["status"], job["result"], job["attempts"]) == ("DONE", "fresh", 2)
    assert [call.webhook_id for call in receiver.calls(hook)] == [f"msg_{request_id}_1"]


def test_a_stopped_workers_delivery_is_repeated_under_its_id(
    system: System, receiver: Receiver, go_on: Callable[[int], None]
) -> None:
    hook = "/hooks/frozen-delivery"
    receiver.answers(path_of("steady"), Answer(200, body=b"1"))
    receiver.answers(hook, Answer(204, delay=1), Answer(204))
    request_id = system.hand_over("steady", callback_url=receiver.url(hook))
    eventually(lambda: receiver.calls(hook))
    stopped = holder(system, f"fetch-{request_id}-0-1-0")

    go_on(stopped)
    before = eventually(lambda: (d := system.look(request_id))["delivery"]["status"] == "SUCCEEDED" and d)
    go_on(stopped)
    eventually(lambda: f"{request_id}: the request {request_id} has been delivered already" in logs(system))

    assert_nothing_is_left(system)
    assert system.look(request_id) == before
    assert before["delivery"]["attempts"] == 1
    assert [call.webhook_id for call in receiver.calls(hook)] == [f"msg_{request_id}_1"] * 2


def test_many_reconciler_scans_make_a_slow_delivery_only_once(system: System, receiver: Receiver) -> None:
    hook = "/hooks/slow-receiver"
    receiver.answers(path_of("steady"), Answer(200, body=b"1"))
    receiver.answers(hook, Answer(204, delay=2))
    request_id = system.hand_over("steady", callback_url=receiver.url(hook))

    eventually(lambda: system.look(request_id)["delivery"]["status"] == "SUCCEEDED")
    assert len(receiver.calls(hook)) == 1

    # A redelivery has its own job on the queue, from the first attempt on.
    assert system.order(request_id, "redeliver").status_code == 202
    eventually(lambda: system.look(request_id)["delivery"]["status"] == "SUCCEEDED")

    assert_nothing_is_left(system)
    assert [call.webhook_id for call in receiver.calls(hook)] == [f"msg_{request_id}_1"] * 2
