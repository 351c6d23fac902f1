"""Fixtures of all tests: engines, tables and repositories per test, a whole running system, and small servers."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from datahog.bootstrap.connections import dynamodb_client
from datahog.bootstrap.wiring import Wiring
from datahog.settings import Settings
from persistence.dynamodb.schema import create_tables
from tests.support.engines.dynamodb_local import dynamodb_local
from tests.support.repositories import Repositories
from tests.support.servers.stub import StubServer
from tests.support.servers.tls import make_certificate
from tests.support.system import System, system_settings

# Each run uses the same examples, and a busy machine causes no failure.
hypothesis.settings.register_profile("datahog", deadline=None, derandomize=True)
hypothesis.settings.load_profile("datahog")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system whose engines the tests share; an engine starts when a test first needs it."""
    with System(system_settings(tmp_path_factory.mktemp("engines"))) as system:
        yield system


@pytest.fixture(scope="session")
def dynamodb_url(embedded: System) -> Iterator[str]:
    """The DynamoDB under test: the embedded one, or Amazon's DynamoDB Local with DATAHOG_TEST_DYNAMODB=local."""
    if os.environ.get("DATAHOG_TEST_DYNAMODB") == "local":
        with dynamodb_local() as url:
            yield url
    else:
        embedded.start("dynamodb")
        yield str(embedded.settings.dynamodb_endpoint_url)


@pytest.fixture(scope="session")
def engines(embedded: System, dynamodb_url: str) -> Settings:
    """The settings of both engines, which are started once."""
    embedded.start("redis")
    return embedded.settings.model_copy(update={"dynamodb_endpoint_url": dynamodb_url})


@pytest.fixture
def connection(engines: Settings) -> Iterator["redis.Redis"]:
    """Redis, empty."""
    with redis.Redis.from_url(engines.redis_url) as made:
        made.flushall()
        yield made


@pytest.fixture
def dynamodb(dynamodb_url: str) -> Any:
    """A boto3 client for this test."""
    return dynamodb_client(Settings(dynamodb_endpoint_url=dynamodb_url), {})


@pytest.fixture
def repositories(dynamodb: Any) -> Repositories:
    """The repositories, over new tables for this test."""
    return Repositories(dynamodb)


@pytest.fixture
def make_wiring(engines: Settings) -> Iterator[Callable[..., Wiring]]:
    """Makes the wiring of one process from changed settings, over new tables for this test; Redis is empty."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    made: list[Wiring] = []

    def make(**changes: object) -> Wiring:
        update = {"table_prefix": prefix, **changes}
        wiring = Wiring(Settings.model_validate(engines.model_dump() | update), {"DATAHOG_SIMULATOR_URL": "http://x"})
        if not made:
            create_tables(wiring.dynamodb, prefix)
            wiring.redis.flushall()
        made.append(wiring)
        return wiring

    yield make
    for wiring in made:
        wiring.redis.close()


@pytest.fixture
def wiring(make_wiring: Callable[..., Wiring]) -> Wiring:
    """The wiring of one process."""
    return make_wiring()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A whole running system that the tests share; a test must not stop any part of it."""
    with System(system_settings(tmp_path_factory.mktemp("system"))) as running:
        running.start()
        yield running


@pytest.fixture
def make_system(tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Makes a system for this test, not started, from changed settings."""
    made: list[System] = []

    def make(**changes: object) -> System:
        system = System(system_settings(tmp_path, **changes))
        made.append(system)
        return system

    yield make
    for system in made:
        system.__exit__()


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """An HTTP server for this test; by default it responds 200 with an empty list."""
    with StubServer() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one PEM file."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    make_certificate(file)
    return file
