"""The clock is set by an hour in mid-run: nothing is lost or counted twice, and nothing waits for an hour."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.leftovers import open_records, queued
from tests.support.load import assert_complete_and_accepted_once, some_under_way
from tests.support.providers import SIMULATED
from tests.support.system import System, eventually, providers_file

pytestmark = pytest.mark.timeout(400)

# Seconds.
HOUR = 3600
PROCESSES = ("aggregator", "client", "worker", "reconciler")
# Seconds within which the requests under way must end: much less than the hour.
SETTLED = 90


class WallClock:
    """A wall clock for some processes, made by libfaketime; a test can set it while they run."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make a process use this clock."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, seconds: int) -> None:
        """Put the clock so many seconds ahead of the true time."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._file)

    def works(self) -> bool:
        """Whether a process on this machine follows the clock."""
        command = (sys.executable, "-c", "import time; print(time.time())")
        self.set(HOUR)
        try:
            answer = subprocess.run(
                command, env=os.environ | self.variables, capture_output=True, text=True, check=False, timeout=30
            )
            return answer.returncode == 0 and float(answer.stdout) > time.time() + HOUR / 2
        finally:
            self.set(0)


def _library() -> Path | None:
    spec = importlib.util.find_spec("libfaketime")
    places = (spec.submodule_search_locations or []) if spec else []
    return next((found for place in places for found in Path(place).rglob("libfaketime.so.1")), None)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """A clock that can be set; skips where libfaketime does not work, but not in CI."""
    clock = WallClock(tmp_path)
    if _library() is None or not clock.works():
        assert not os.environ.get("CI"), "libfaketime does not work here"
        pytest.skip("the clock of a process cannot be set here: its libfaketime is for Linux on x86-64")
    return clock


def test_a_clock_set_forward_and_back_loses_and_delays_nothing(
    clock: WallClock, tmp_path: Path, make_system: Callable[..., System]
) -> None:
    (tmp_path / "providers.yaml").write_text(providers_file(breaker={"failures": 3, "openSeconds": 1}))
    system = make_system(heal_after=2, simulator_failure_rate=0.6)
    system.start("dynamodb", "redis", "tables", "simulator")
    system.environment = clock.variables
    system.start(*PROCESSES)

    forward = some_under_way(system, 20)
    clock.set(HOUR)
    assert_complete_and_accepted_once(system, forward, SETTLED)
    back = some_under_way(system, 20)
    clock.set(0)
    asked_then = system.ask(*SIMULATED)

    assert_complete_and_accepted_once(system, [*back, asked_then], SETTLED)
    assert "the clock was set back by 3600 s" in system.log("worker")
    for name in PROCESSES:
        assert system.exit_code(name) is None, name
    eventually(lambda: not queued(system))
    eventually(lambda: not open_records(system))
