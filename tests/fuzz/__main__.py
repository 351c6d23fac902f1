"""The long run: repeats campaigns on fresh systems until a number of cases is sent; it can be stopped and resumed."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import specs
from tests.contract.stack import running_system
from tests.fuzz.campaign import Caller, fuzz
from tests.support.servers.receiver import Receiver

_ROOT = Path(__file__).parents[2]
# The number of cases of each phase for each operation, in one batch.
_EXAMPLES = {Caller.KEY: 100, Caller.WRONG_KEY: 20, Caller.NO_KEY: 20}
_SEED_STEP = 1_000_000


class Run:
    """The batches that are done; it saves them in `directory` after each one."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._seed = seed
        self._state = directory / "state.json"
        self.batches: list[dict[str, Any]] = json.loads(self._state.read_text()) if self._state.exists() else []

    @property
    def cases(self) -> int:
        """The number of cases that were sent."""
        return sum(batch["cases"] for batch in self.batches)

    @property
    def failures(self) -> list[str]:
        """The names of the files with the output of each failed campaign."""
        return [name for batch in self.batches for name in batch["failures"]]

    def add_batch(self) -> None:
        """Fuzz both APIs as each kind of caller, on a new system, with a new seed."""
        number = len(self.batches)
        batch: dict[str, Any] = {"cases": 0, "seconds": 0.0, "failures": []}
        with tempfile.TemporaryDirectory(prefix="datahog-fuzz-") as name, Receiver() as receiver:
            try:
                with running_system(Path(name), receiver) as system:
                    for api, url in ((specs.AGGREGATOR, system.aggregator), (specs.CLIENT, system.client)):
                        for caller in Caller:
                            self._add_campaign(batch, number, api, url, caller, Path(name))
            except AssertionError as error:
                # A part of the system logged an internal error.
                self._keep(batch, f"batch-{number}-log.txt", str(error))
        self.batches.append(batch)
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(self.batches, indent=1))
        draft.replace(self._state)

    def _add_campaign(
        self, batch: dict[str, Any], number: int, api: str, url: str, caller: Caller, directory: Path
    ) -> None:
        seed = self._seed * _SEED_STEP + number
        outcome = fuzz(api, url, caller, examples=_EXAMPLES[caller], seed=seed, directory=directory)
        batch["cases"] += outcome.cases
        batch["seconds"] += outcome.seconds
        if outcome.failed:
            self._keep(batch, f"batch-{number}-{api}-{caller.name.lower()}.txt", outcome.output)

    def _keep(self, batch: dict[str, Any], name: str, text: str) -> None:
        (self._directory / name).write_text(text)
        batch["failures"].append(name)

    def report(self) -> str:
        """Returns the summary of the run, and saves it as report.md."""
        seconds = sum(batch["seconds"] for batch in self.batches)
        speed = self.cases / seconds
        lines = [
            f"# Fuzzing both APIs, seed {self._seed}",
            "",
            f"{self.cases:,} cases in {len(self.batches)} batches, {seconds:.0f} s: {speed:.1f} cases/s.",
            "Each batch: both APIs, all phases and checks of Schemathesis, callers with a key, a wrong one and none.",
            "",
            *([f"- {name}" for name in self.failures] or ["0 failures."]),
        ]
        text = "\n".join(lines) + "\n"
        (self._directory / "report.md").write_text(text)
        return text


def main() -> int:
    """Fuzz until there are enough cases; returns 1 if any failed, and 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--cases",
        type=int,
        required=True,
        help="cases to send, including earlier runs of this seed",
    )
    parser.add_argument("--seed", type=int, required=True, help="the seed; a run with the same seed resumes")
    parser.add_argument("--output", type=Path, default=_ROOT / ".fuzz", help="directory for state and reports")
    chosen = parser.parse_args()
    directory = chosen.output / f"seed-{chosen.seed}"
    directory.mkdir(parents=True, exist_ok=True)
    run = Run(directory, chosen.seed)
    if run.batches:
        print(f"Resuming after {run.cases:,} cases in {len(run.batches)} batches.", flush=True)
    while run.cases < chosen.cases:
        began, before = time.monotonic(), run.cases
        try:
            run.add_batch()
        except KeyboardInterrupt:
            print(f"Stopped after {run.cases:,} cases; run with the same seed to resume.")
            return 130
        new, seconds = run.cases - before, time.monotonic() - began
        print(
            f"batch {len(run.batches)}: {new:,} cases in {seconds:.0f} s ({new / seconds:.1f}/s); "
            f"{run.cases:,} of {chosen.cases:,}, {len(run.failures)} failures",
            flush=True,
        )
    print(f"\n{run.report()}\nSaved in {directory}.")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
