"""Known providers: a wrong name is refused at once; any name passes while the aggregator is unavailable."""

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
    """The known providers, with the stub as the aggregator."""
    return KnownProviders(Operations(specs.AGGREGATOR, stub.url, Http(pool_size=1), timeouts=Timeouts(1, 1, 2)))


def test_unknown_names_are_listed_with_the_known_ones(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [GAS]

    assert known.unknown(["gas", "gass"]) == (["gass"], ["gas"])


def test_provider_names_are_cached(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [GAS]

    for _ in range(5):
        assert known.unknown(["gas"]) == ([], ["gas"])
        assert known.unknown(["gass"]) == (["gass"], ["gas"])

    assert len(stub.asked) == 1


def test_a_new_provider_is_known_after_cache_expiry(
    known: KnownProviders, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_names, "_ANSWERED", 0)
    stub.replies = [GAS, GAS_AND_WATER]

    assert known.unknown(["gas"]) == ([], ["gas"])
    assert known.unknown(["water"]) == ([], ["gas", "water"])


def test_any_name_passes_while_the_aggregator_is_away(known: KnownProviders, stub: StubServer) -> None:
    stub.replies = [DOWN]

    assert known.unknown(["gass"]) == ([], [])
    assert known.unknown(["gass"]) == ([], [])
    assert len(stub.asked) == 1


def test_an_outdated_list_refuses_no_name(
    known: KnownProviders, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_names, "_HOLDS", 0)
    monkeypatch.setattr(provider_names, "_ANSWERED", 0)
    stub.replies = [GAS, DOWN]

    known.unknown(["gas"])

    assert known.unknown(["water"]) == ([], ["gas"])
