"""Two minutes of chaos with all kinds of faults: nothing is lost, double or wrong; a broken Datahog fails the run."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.chaos.bounded import healthy, mutated
from tests.faults.chaos.mutations import MUTATIONS
from tests.faults.chaos.report import report
from tests.faults.chaos.run import Outcome, conduct
from tests.faults.chaos.schedule import KINDS

pytestmark = pytest.mark.timeout(300)

Outcomes = Callable[[str], Outcome]


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """Returns the outcome of a run by its name. The runs mostly wait, so all go at once, each on its own system."""
    plans = {"healthy": healthy(), **{name: mutated(name) for name in MUTATIONS}}
    with ThreadPoolExecutor(len(plans)) as side_by_side:
        runs = {name: side_by_side.submit(conduct, plan, tmp_path_factory.mktemp(name)) for name, plan in plans.items()}
        yield lambda name: runs[name].result()


def test_two_minutes_of_chaos_leave_nothing_lost_double_or_wrong(outcome_of: Outcomes) -> None:
    outcome = outcome_of("healthy")

    assert outcome.clean, report(outcome)
    assert {(injected.fault.kind, injected.fault.target) for injected in outcome.faults} == set(KINDS)
    # An API may refuse requests during a fault. A run that accepts hardly any would prove nothing.
    assert outcome.count.accepted > outcome.count.asked / 2, report(outcome)


def test_without_the_reconciler_chaos_loses_requests(outcome_of: Outcomes) -> None:
    outcome = outcome_of("no-reconciler")

    assert outcome.count.lost, report(outcome)
    assert not outcome.count.double, report(outcome)
    assert outcome.left
    assert not outcome.clean


def test_with_an_unconditional_write_chaos_counts_double(outcome_of: Outcomes) -> None:
    outcome = outcome_of("unconditional-write")

    assert outcome.count.double, report(outcome)
    assert not outcome.clean
