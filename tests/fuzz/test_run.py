"""The long fuzzing run resumes after a stop, and its report covers all batches."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import __main__ as long_run
from tests.fuzz.campaign import Caller, Outcome
from tests.support.system import System, system_settings


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The seeds of the campaigns; each reports ten cases, starts no process, and fails for callers without a key."""
    found: list[int] = []

    def fuzz(_name: str, _url: str, caller: Caller, *, seed: int, **_: Any) -> Outcome:
        found.append(seed)
        return Outcome(10, 2.0, caller is Caller.NO_KEY, "what it said")

    monkeypatch.setattr(long_run, "fuzz", fuzz)
    monkeypatch.setattr(long_run, "running_system", lambda *_: nullcontext(System(system_settings(tmp_path))))
    return found


def test_a_stopped_run_resumes_with_a_new_seed_per_batch(seeds: list[int], tmp_path: Path) -> None:
    long_run.Run(tmp_path, 7).add_batch()

    resumed = long_run.Run(tmp_path, 7)
    assert resumed.cases == 60
    resumed.add_batch()

    assert resumed.cases == 120
    assert sorted(set(seeds)) == [7_000_000, 7_000_001]


def test_the_report_counts_cases_and_names_failures(seeds: list[int], tmp_path: Path) -> None:
    run = long_run.Run(tmp_path, 7)
    run.add_batch()

    assert "60 cases in 1 batches, 12 s: 5.0 cases/s." in run.report()
    assert len(seeds) == 6
    assert run.failures == ["batch-0-aggregator-no_key.txt", "batch-0-client-no_key.txt"]
    for name in run.failures:
        assert f"- {name}" in (tmp_path / "report.md").read_text()
        assert (tmp_path / name).read_text() == "what it said"
