"""The main job on real processes: every request completes, and is delivered once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.leftovers import open_records, queued
from tests.support.load import ask_many, assert_complete_and_accepted_once, sent_by
from tests.support.providers import SIMULATED, providers_of
from tests.support.servers.receiver import Receiver
from tests.support.system import System, eventually, system_settings


@pytest.fixture(scope="module")
def _fragile(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """A system of this module's own, because the tests check that its queue is empty."""
    directory = tmp_path_factory.mktemp("alone")
    (directory / "providers.yaml").write_text(providers_of(receiver))
    with System(system_settings(directory)) as system:
        system.start()
        yield system


def test_a_request_is_aggregated_from_flaky_providers(fragile: System) -> None:
    document = fragile.read_until_ended(fragile.ask("gas", "internet", "water"))

    assert document["status"] == "COMPLETE"
    assert [job["provider"] for job in document["jobs"]] == ["gas", "internet", "water"]
    for job in document["jobs"]:
        assert job["result"] == sent_by(job)


def test_200_requests_of_five_providers_complete_once(fragile: System) -> None:
    started = time.monotonic()

    documents = assert_complete_and_accepted_once(fragile, ask_many(fragile, 200))

    assert time.monotonic() - started < 60
    sent = {job["provider"]: sent_by(job) for job in documents[0]["jobs"]}
    for document in documents:
        assert {job["provider"]: job["result"] for job in document["jobs"]} == sent
    eventually(lambda: not open_records(fragile), 10)
    eventually(lambda: not queued(fragile), 10)


def test_many_requests_post_one_callback_each(fragile: System, receiver: Receiver) -> None:
    url = receiver.url("/hooks/many")

    with ThreadPoolExecutor(8) as people:
        asked = list(people.map(lambda _: fragile.hand_over(*SIMULATED, callback_url=url), range(20)))
    eventually(lambda: len(receiver.calls("/hooks/many")) >= len(asked))
    eventually(lambda: not queued(fragile))

    posted = [call.webhook_id for call in receiver.calls("/hooks/many")]
    assert sorted(posted) == sorted(fragile.look(request_id)["delivery"]["webhookId"] for request_id in asked)
