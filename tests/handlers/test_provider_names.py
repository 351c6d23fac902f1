"""Known providers: a wrong name is told at once while the aggregator answers, and any name may be right while not."""

import pytest

import specs
from handlers import provider_names
from handlers.provider_names import KnownProviders
from outbound.http_client import Http, Timeouts
from outbound.openapi_caller import Operations
from tests.support.servers.stub import Reply, StubServer, json_reply

GAS = json_reply({"providers": [{"name": "gas", "url": "http://gas"}]})
GAS_AND_WATER = json_reply(
    {"providers": [{"name": "gas", "url": "http://gas"}, {"name": "water", "url": "http://water"}]}
)
DOWN = Reply(503, b"")


@pytest.fixture
def known(stub: StubServer) -> KnownProviders:
    """The providers of an aggregator that the stub stands in for."""
    return KnownProviders(Operations(specs.AGGREGATOR, stub.url, Http(pool_size=1), timeouts=Timeouts(1, 1, 2)))


def test_names_that_nobody_knows_are_told_with_those_that_are_known(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [GAS]

    assert known.unknown(["gas", "gass"]) == (["gass"], ["gas"])


def test_the_aggregator_is_not_asked_each_time(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [GAS]

    for _ in range(5):
        assert known.unknown(["gas"]) == ([], ["gas"])
        assert known.unknown(["gass"]) == (["gass"], ["gas"])

    assert len(stub.asked) == 1


def test_a_new_provider_is_heard_of(known: KnownProviders, stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_names, "_ANSWERED", 0)
    stub.replies = [GAS, GAS_AND_WATER]

    assert known.unknown(["gas"]) == ([], ["gas"])
    assert known.unknown(["water"]) == ([], ["gas", "water"])


def test_any_name_may_be_right_while_the_aggregator_is_away(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [DOWN]

    assert known.unknown(["gass"]) == ([], [])
    assert known.unknown(["gass"]) == ([], [])
    assert len(stub.asked) == 1


def test_what_it_said_too_long_ago_refuses_nobody(
    known: KnownProviders, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_names, "_HOLDS", 0)
    monkeypatch.setattr(provider_names, "_ANSWERED", 0)
    stub.replies = [GAS, DOWN]

    known.unknown(["gas"])

    assert known.unknown(["water"]) == ([], ["gas"])
