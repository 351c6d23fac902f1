"""Fixtures of the fault tests: a running system whose parts may be killed, and the receiver of its calls."""

from collections.abc import Iterator

import pytest

from tests.support.providers import providers_of
from tests.support.servers.receiver import Receiver
from tests.support.system import System, system_settings


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The server of the tests' callback URLs and providers."""
    with Receiver() as running:
        yield running


@pytest.fixture(scope="session")
def _fragile(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("fragile")
    (directory / "providers.yaml").write_text(providers_of(receiver))
    with System(system_settings(directory, delivery_timeout=2, worker_grace=3)) as system:
        system.start()
        yield system


@pytest.fixture
def fragile(_fragile: System) -> Iterator[System]:
    """A whole running system; a test may kill any part of it, and the fixture restarts the part afterwards."""
    yield _fragile
    _fragile.mend()
