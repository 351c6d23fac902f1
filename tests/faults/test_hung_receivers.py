"""Receivers that hang: they occupy the worker's delivery threads, and none of the threads for fetching."""

import time
from collections.abc import Iterator

import pytest

from tests.support.providers import path_of, providers_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually, system_settings

# Worker slots.
CONCURRENCY = 20
# Seconds that a delivery waits for its receiver.
HANGS = 25


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """A system of one small worker; its reconciler heals deliveries only after the worker has given receivers up."""
    directory = tmp_path_factory.mktemp("hung")
    (directory / "providers.yaml").write_text(providers_of(receiver))
    settings = system_settings(
        directory, worker_concurrency=CONCURRENCY, worker_processes=1, delivery_timeout=HANGS, worker_grace=1
    )
    with System(settings) as running:
        running.start()
        yield running


def test_hung_receivers_do_not_stop_fetching_for_others(system: System, receiver: Receiver) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b'"there"'))
    receiver.answers("/hooks/hung", Answer(204, delay=60))
    hung = [system.hand_over("steady", callback_url=receiver.url("/hooks/hung")) for _ in range(2 * CONCURRENCY)]
    posts = eventually(lambda: len(p := receiver.calls("/hooks/hung")) >= CONCURRENCY // 2 and p)

    others = [system.hand_over("steady", callback_url=receiver.url("/hooks/good")) for _ in range(5)]

    for request_id in [*others, *hung]:
        eventually(lambda id_=request_id: system.look(id_)["status"] == "COMPLETE")  # type: ignore[misc]
    # The worker has given no receiver up meanwhile.
    assert time.monotonic() - posts[0].at < HANGS
    # A fifth of the threads stays free.
    assert len(receiver.calls("/hooks/hung")) == CONCURRENCY * 4 // 5
    for request_id in others:
        eventually(lambda id_=request_id: system.look(id_)["delivery"]["status"] == "SUCCEEDED", 3 * HANGS)  # type: ignore[misc]
