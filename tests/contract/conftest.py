"""What the contract tests share: a running system with providers of every kind, and both of its APIs."""

import json
from collections.abc import Iterator

import pytest

import specs
from tests.contract.api import Api
from tests.receiver import Answer, Receiver
from tests.system import System, providers_file, system_settings

_PROVIDERS = {
    "steady": (Answer(200, {"Content-Type": "application/json"}, b'[{"amount": 30.0}]'), {}),
    # Not for an hour: its jobs stay open, each after an attempt of its own.
    "mute": (Answer(503, {"Retry-After": "3600"}), {"breaker": {"failures": 1_000_000}}),
    "broken": (Answer(404), {"retry": {"maximumAttempts": 1}}),
}


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The callback URLs and some of the providers."""
    with Receiver() as running:
        for name, (answer, _) in _PROVIDERS.items():
            running.answers(f"/{name}", answer)
        yield running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """A whole running system; besides the simulator's providers it knows `steady`, `mute` and `broken`.

    Whatever the tests do to it, no part of it may meet a fault of its own.
    """
    directory = tmp_path_factory.mktemp("contract")
    own = {name: {"url": receiver.url(f"/{name}")} | options for name, (_, options) in _PROVIDERS.items()}
    lines = [f"  {name}: {json.dumps(options)}\n" for name, options in own.items()]
    (directory / "providers.yaml").write_text(providers_file() + "".join(lines))
    with System(system_settings(directory)) as running:
        running.start()
        yield running
        for name in ("aggregator", "client", "worker", "reconciler"):
            assert "Traceback" not in running.log(name), running.log(name)


@pytest.fixture(scope="session")
def aggregator(system: System) -> Api:
    """The aggregator."""
    return Api(specs.AGGREGATOR, system.aggregator)


@pytest.fixture(scope="session")
def client(system: System) -> Api:
    """The client."""
    return Api(specs.CLIENT, system.client)


@pytest.fixture(params=[specs.AGGREGATOR, specs.CLIENT])
def api(request: pytest.FixtureRequest) -> Api:
    """Each of the two."""
    found: Api = request.getfixturevalue(request.param)
    return found
