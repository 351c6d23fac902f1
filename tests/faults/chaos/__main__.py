"""`python -m tests.faults.chaos --minutes 20 --seed 7`: makes one run and a report; exits with 1 if not clean."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos import bounded
from tests.faults.chaos.mutations import MUTATIONS
from tests.faults.chaos.report import report
from tests.faults.chaos.run import Plan, conduct
from tests.faults.chaos.schedule import make_schedule

_ROOT = Path(__file__).parents[3]
# Seconds from one fault to the next.
_PACE = 6.0


def main() -> int:
    """Run and report; returns the exit code: 0 when the run was clean."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="duration of the load and the faults")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same schedule")
    parser.add_argument("--rate", type=float, default=2, help="requests a second")
    parser.add_argument("--calm", action="store_true", help="run the load without faults (a soak)")
    parser.add_argument("--mutation", choices=MUTATIONS, help="break Datahog in this way: the run must then fail")
    parser.add_argument("--output", type=Path, default=_ROOT / ".artefacts", help="directory for the report")
    chosen = parser.parse_args()
    seconds = chosen.minutes * 60
    if chosen.mutation:
        plan = bounded.mutated(chosen.mutation)
    else:
        count = 0 if chosen.calm else int(seconds / _PACE)
        faults = make_schedule(chosen.seed, seconds=seconds, count=count, long_freezes=True)
        plan = Plan(chosen.seed, seconds, chosen.rate, faults)
    directory = Path(tempfile.mkdtemp(prefix="datahog-chaos-"))
    try:
        outcome = conduct(plan, directory)
    except KeyboardInterrupt:
        print(f"Stopped; data and logs are in {directory}.")
        return 130
    text = report(outcome)
    chosen.output.mkdir(parents=True, exist_ok=True)
    name = chosen.mutation or ("soak" if chosen.calm else "chaos")
    (chosen.output / f"{name}-{chosen.seed}.md").write_text(text)
    print(f"{text}\nKept as {chosen.output / f'{name}-{chosen.seed}.md'}.")
    if outcome.clean:
        shutil.rmtree(directory)
        return 0
    print(f"Data and logs are in {directory}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
