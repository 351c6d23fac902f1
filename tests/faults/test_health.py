"""Health of real processes: readiness names each part that is away, and recovers with it; liveness stays the same."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import requests

import specs
from specs.operations import target
from tests.support.system import System, eventually, system_settings

APIS = (specs.AGGREGATOR, specs.CLIENT)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a short lease, which soon notices that a worker is gone."""
    with System(system_settings(tmp_path_factory.mktemp("health"), worker_lease=2)) as system:
        system.start()
        yield system


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest, quick: System) -> str:
    """Each API, once it is ready."""
    name: str = request.param
    eventually(lambda: ask(quick, name, "getReadiness").status_code == 200)
    return name


@contextmanager
def killed(system: System, name: str) -> Iterator[None]:
    system.kill(name)
    yield
    system.start(name)


@contextmanager
def frozen(system: System, name: str) -> Iterator[None]:
    system.kill(name, signal.SIGSTOP)
    yield
    system.kill(name, signal.SIGCONT)


def test_a_healthy_system_is_alive_and_ready_without_a_key(api: str, quick: System) -> None:
    alive, ready = ask(quick, api, "getHealth"), ask(quick, api, "getReadiness")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    checks = dict.fromkeys(["dynamodb", "redis", "worker", "reconciler"], "ok")
    assert ready.json() == {"status": "ready", "checks": checks}


@pytest.mark.parametrize("gone", ["worker", "dynamodb"])
def test_readiness_names_a_killed_part_until_it_is_back(api: str, gone: str, quick: System) -> None:
    with killed(quick, gone):
        assert failed(quick, api, {gone}) == {gone}
        assert ask(quick, api, "getHealth").status_code == 200

    eventually(lambda: ask(quick, api, "getReadiness").status_code == 200)


def test_readiness_names_a_killed_reconciler_until_it_is_back(quick: System) -> None:
    with killed(quick, "reconciler"):
        for api in APIS:
            assert failed(quick, api, {"reconciler"}) == {"reconciler"}

    for api in APIS:
        eventually(lambda api=api: ask(quick, api, "getReadiness").status_code == 200)  # type: ignore[misc]


@pytest.mark.parametrize("away", [killed, frozen])
def test_readiness_soon_names_redis_and_all_that_it_reports_on(
    away: Callable[[System, str], AbstractContextManager[None]], api: str, quick: System
) -> None:
    with away(quick, "redis"):
        assert failed(quick, api, {"redis"}) == {"redis", "worker", "reconciler"}
        answer = ask(quick, api, "getReadiness")
        assert answer.elapsed.total_seconds() < 8
        assert int(answer.headers["Retry-After"]) > 0
        assert ask(quick, api, "getHealth").status_code == 200

    eventually(lambda: ask(quick, api, "getReadiness").status_code == 200)


def ask(system: System, api: str, operation_id: str) -> requests.Response:
    """Call an operation without a key, as a load balancer does."""
    return requests.get(system.settings.api_urls[api] + target(api, operation_id), timeout=20)


def failed(system: System, api: str, expected: set[str]) -> set[str]:
    """Wait until the expected checks have failed, and return all that have."""

    def look() -> set[str] | None:
        answer = ask(system, api, "getReadiness")
        if answer.status_code == 200:
            return None
        assert answer.status_code == 503
        document = answer.json()
        assert document["type"].endswith(":not-ready")
        found = {name for name, status in document["checks"].items() if status == "failed"}
        assert all(name in document["detail"] for name in found)
        return found if found >= expected else None

    return eventually(look)
