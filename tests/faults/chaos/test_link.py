"""The link of the chaos run disturbs connections only in the manner that it is told."""

import time
from collections.abc import Iterator

import pytest
import requests

from tests.faults.chaos.link import Link
from tests.support.servers.receiver import Answer, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        running.answers("/", Answer(200, body=b"x" * 300_000))
        yield running


@pytest.fixture
def link(receiver: Receiver) -> Iterator[Link]:
    with Link(int(receiver.url("").rpartition(":")[2]), "seed") as running:
        yield running


def get(link: Link, session: requests.Session | None = None) -> int:
    return len((session or requests).get(f"http://127.0.0.1:{link.port}/", timeout=10).content)


def test_an_undisturbed_link_forwards_everything(link: Link) -> None:
    assert [get(link) for _ in range(3)] == [300_000] * 3


def test_a_cut_link_ends_open_and_new_connections_until_calm(link: Link, receiver: Receiver) -> None:
    with requests.Session() as session:
        get(link, session)
        link.disturb("cut")
        time.sleep(0.1)
        for caller in (session, None):
            with pytest.raises(requests.ConnectionError):
                get(link, caller)
    link.calm()

    assert get(link) == 300_000
    assert len(receiver.calls("/")) == 2


def test_a_link_that_loses_responses_forwards_the_requests(link: Link, receiver: Receiver) -> None:
    link.disturb("lose responses")
    lost = 0
    for _ in range(10):
        try:
            get(link)
        except requests.RequestException:
            lost += 1

    assert lost > 0
    assert len(receiver.calls("/")) == 10


def test_a_delaying_link_is_slow_and_loses_nothing(link: Link) -> None:
    link.disturb("delay")
    started = time.monotonic()

    assert get(link) == 300_000
    assert time.monotonic() - started > 0.5
