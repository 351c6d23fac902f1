"""A provider that was down with many jobs waiting: it is spared while it is, and no stampede comes when it is back."""

from itertools import pairwise
from pathlib import Path

from tests.faults.herd.run import Plan, all_came_back_once, conduct
from tests.faults.herd.world import most_at_once

# The whole of it, with 10,000 jobs and the times of the others, is `python -m tests.faults.herd`.
_PLAN = Plan(jobs=600, outage=7, calm=0.5, after=1, rate=5, failures=5, latency=0.05)


def test_a_provider_that_is_back_gets_what_waited_within_its_limit(tmp_path: Path) -> None:
    outcome = conduct(_PLAN, tmp_path)

    assert all_came_back_once(_PLAN, outcome)
    assert most_at_once(outcome.calls) <= _PLAN.concurrency
    down = [call for call in outcome.calls if call.begun < outcome.back_at]
    # To open its breaker it took the failures, with those that were under way; then it is asked once in a while.
    probes = (outcome.back_at - down[0].begun) / _PLAN.open_seconds
    assert len(down) <= _PLAN.failures + _PLAN.concurrency + probes
    assert min(later.begun - earlier.begun for earlier, later in pairwise(down[-3:])) >= _PLAN.open_seconds
    # Waiting uses up no attempt.
    assert outcome.attempts == len(outcome.calls) <= _PLAN.jobs + len(down)
    # None of the other provider's requests waited behind them.
    assert not [took for phase in outcome.phases for took in phase.others if took is None]
