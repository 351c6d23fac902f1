"""Chaos for a minute: all kinds of faults, and nothing is lost, counted double or wrong; broken, Datahog fails it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.chaos.bounded import healthy, mutated
from tests.faults.chaos.mutations import MUTATIONS
from tests.faults.chaos.report import report
from tests.faults.chaos.run import Outcome, conduct
from tests.faults.chaos.schedule import KINDS


@pytest.mark.timeout(300)
def test_a_minute_of_chaos_loses_nothing_and_counts_nothing_double_or_wrong(tmp_path: Path) -> None:
    outcome = conduct(healthy(), tmp_path)

    assert outcome.clean, report(outcome)
    assert {(injected.fault.kind, injected.fault.target) for injected in outcome.faults} == set(KINDS)
    # Faults make an API refuse, which is no loss; but a run that all were refused in would prove nothing.
    assert outcome.count.accepted > outcome.count.asked / 2, report(outcome)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """What came of a run of Datahog that is broken in the way of that name; all ways are run side by side."""
    with ThreadPoolExecutor() as side_by_side:
        runs = {name: side_by_side.submit(conduct, mutated(name), tmp_path_factory.mktemp(name)) for name in MUTATIONS}
    return lambda name: runs[name].result()


@pytest.mark.timeout(200)
def test_without_the_reconciler_chaos_loses_requests(broken: Callable[[str], Outcome]) -> None:
    outcome = broken("no-reconciler")

    assert outcome.count.lost, report(outcome)
    assert outcome.left
    assert not outcome.count.double


@pytest.mark.timeout(200)
def test_with_an_unconditional_write_chaos_counts_double(broken: Callable[[str], Outcome]) -> None:
    assert broken("unconditional-write").count.double
