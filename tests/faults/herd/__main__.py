"""`python -m tests.faults.herd --jobs 10000`: runs an hour's outage at 30 times the speed, and reports on it."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tests.faults.herd.run import Outcome, Phase, Plan, all_came_back_once, conduct
from tests.faults.herd.usage import PROGRAMS
from tests.faults.herd.world import most_at_once, per_second
from tests.support.engines.dynamodb_local import dynamodb_local

_ROOT = Path(__file__).parents[3]


def main() -> int:
    """Run and report; returns the exit code: 0 when all requests completed, once, within the provider's limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.herd", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs that wait during the outage [10000]")
    parser.add_argument("--outage", type=float, default=120, help="seconds that the provider is down [120]")
    parser.add_argument("--calm", type=float, default=60, help="seconds measured before the outage [60]")
    parser.add_argument("--after", type=float, default=180, help="seconds measured after the outage [180]")
    parser.add_argument("--rate", type=float, default=20, help="requests a second of the other provider [20]")
    parser.add_argument("--concurrency", type=int, default=10, help="most calls at once of each provider [10]")
    parser.add_argument(
        "--dynamodb-local", action="store_true", help="use Amazon's DynamoDB Local, not the embedded one"
    )
    parser.add_argument("--output", type=Path, default=_ROOT / ".artefacts", help="directory for the report")
    chosen = parser.parse_args()
    plan = Plan(chosen.jobs, chosen.outage, chosen.calm, chosen.after, chosen.rate, chosen.concurrency)
    directory = Path(tempfile.mkdtemp(prefix="datahog-herd-"))
    with dynamodb_local() if chosen.dynamodb_local else nullcontext() as url:
        outcome = conduct(plan, directory, dynamodb_url=url)
    shutil.rmtree(directory)
    text = report(plan, outcome)
    chosen.output.mkdir(parents=True, exist_ok=True)
    kept = chosen.output / f"herd-{plan.jobs}.md"
    kept.write_text(text)
    print(f"{text}\nKept as {kept}.")
    return int(not all_came_back_once(plan, outcome) or most_at_once(outcome.calls) > plan.concurrency)


def report(plan: Plan, outcome: Outcome) -> str:
    """The report of a run, in Markdown."""
    lines = [
        f"# {plan.jobs:,} jobs waiting for a provider that is down for {plan.outage:g} s",
        "",
        f"Its limit is {plan.concurrency} calls at once, each takes {plan.latency:g} s; {plan.failures} failures open "
        f"its breaker for {plan.open_seconds:g} s. {plan.workers} worker processes. Another provider is asked "
        f"{plan.rate:g} times a second.",
        "",
        "| | seconds | calls a second | most a second | most at once | others p50 ms | p99 ms | without callback |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_row(phase) for phase in outcome.phases),
        "",
        f"| share of one CPU | {' | '.join(PROGRAMS)} |",
        "|---|" + "---:|" * len(PROGRAMS),
        *(_cpu_row(phase) for phase in outcome.phases),
        "",
        f"Ended: {dict(outcome.statuses)}; callbacks of each: {dict(outcome.delivered)}; attempts {outcome.attempts}, "
        f"calls {len(outcome.calls)}. All were complete {outcome.drained:.1f} s after the provider's return.",
        "",
        "Calls in each second, from the start of the outage:",
        "",
    ]
    begun = outcome.phases[0].ended
    seconds = per_second(outcome.calls, begun, outcome.back_at + outcome.drained + 1)
    lines += [" ".join(map(str, seconds[start : start + 30])) for start in range(0, len(seconds), 30)]
    return "\n".join(lines) + "\n"


def _row(phase: Phase) -> str:
    seconds = max(0.001, phase.ended - phase.begun)
    rates = per_second(phase.calls, phase.begun, phase.ended)
    came = [took for took in phase.others if took is not None]
    cells = (
        f"{seconds:.0f}",
        f"{len(phase.calls) / seconds:.1f}",
        f"{max(rates)}",
        f"{most_at_once(phase.calls)}",
        f"{_quantile(came, 0.5) * 1000:.0f}",
        f"{_quantile(came, 0.99) * 1000:.0f}",
        f"{len(phase.others) - len(came)}",
    )
    return f"| {phase.name} | {' | '.join(cells)} |"


def _cpu_row(phase: Phase) -> str:
    cells = (f"{phase.cpu[name]:.2f}" if name in phase.cpu else "" for name in PROGRAMS)
    return f"| {phase.name} | {' | '.join(cells)} |"


def _quantile(times: Sequence[float], share: float) -> float:
    return times[int(len(times) * share)] if times else 0.0


if __name__ == "__main__":
    sys.exit(main())
