"""Fixtures of the contract tests: a running system, and both of its APIs."""

from collections.abc import Iterator

import pytest

import specs
from tests.contract.api import Api
from tests.contract.stack import running_system
from tests.support.servers.receiver import Receiver
from tests.support.system import System


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The server of the callback URLs and of some providers."""
    with Receiver() as running:
        yield running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """The running system, which the tests share."""
    with running_system(tmp_path_factory.mktemp("contract"), receiver) as running:
        yield running


@pytest.fixture(scope="session")
def aggregator(system: System) -> Api:
    """The aggregator's API."""
    return Api(specs.AGGREGATOR, system.aggregator)


@pytest.fixture(scope="session")
def client(system: System) -> Api:
    """The client's API."""
    return Api(specs.CLIENT, system.client)


@pytest.fixture(params=[specs.AGGREGATOR, specs.CLIENT])
def api(request: pytest.FixtureRequest) -> Api:
    """Each API in turn."""
    found: Api = request.getfixturevalue(request.param)
    return found
