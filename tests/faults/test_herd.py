"""A provider that is down with many jobs waiting: it gets few calls meanwhile, and no stampede when it is back."""

from itertools import pairwise
from pathlib import Path

from tests.faults.herd.run import Plan, all_came_back_once, conduct
from tests.faults.herd.world import most_at_once

# `python -m tests.faults.herd` is the full run, with 10,000 jobs and the times of another provider's requests.
_PLAN = Plan(jobs=600, outage=7, calm=0.5, after=1, rate=5, failures=5, latency=0.05)


def test_a_provider_that_returns_gets_calls_within_its_limit(tmp_path: Path) -> None:
    outcome = conduct(_PLAN, tmp_path)

    assert all_came_back_once(_PLAN, outcome)
    assert most_at_once(outcome.calls) <= _PLAN.concurrency
    down = [call for call in outcome.calls if call.begun < outcome.back_at]
    # The failures, with the calls under way, open its breaker; after that it gets only probes.
    probes = (outcome.back_at - down[0].begun) / _PLAN.open_seconds
    assert len(down) <= _PLAN.failures + _PLAN.concurrency + probes
    assert min(later.begun - earlier.begun for earlier, later in pairwise(down[-3:])) >= _PLAN.open_seconds
    # A job that waits uses up no attempt.
    assert outcome.attempts == len(outcome.calls) <= _PLAN.jobs + len(down)
    # No request of the other provider waited behind those jobs.
    assert not [took for phase in outcome.phases for took in phase.others if took is None]
