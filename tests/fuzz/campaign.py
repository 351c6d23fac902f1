"""Runs one Schemathesis campaign against one live API as one kind of caller: all phases, all checks, invalid data."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import specs
from persistence.api_keys import new_key
from tests.support.system import API_KEY

_ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_CASES = re.compile(r"^ +([\d,]+) generated", re.MULTILINE)

# The environment variable that tells the hooks the kind of caller.
CALLER = "FUZZ_CALLER"


class Caller(StrEnum):
    """The kind of caller: with a key that has every scope, with an unknown key, or without a key."""

    KEY = "key"
    WRONG_KEY = "wrong key"
    NO_KEY = "no key"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a campaign; `output` is the text that Schemathesis printed."""

    cases: int
    seconds: float
    failed: bool
    output: str


def fuzz(name: str, url: str, caller: Caller, *, examples: int, seed: int, directory: Path) -> Outcome:
    """Send up to `examples` cases of each phase to each operation of the API `name`, served at `url`."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_HERE / "schemathesis.toml")]
    command += ["run", str(specs.path(name)), "--url", url, "--checks", "all", "--mode", "all"]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--generation-database", "none", "--no-color", "--continue-on-failure"]
    key = {Caller.KEY: API_KEY, Caller.WRONG_KEY: new_key(), Caller.NO_KEY: None}[caller]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    added = {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(_ROOT), CALLER: caller.value}
    began = time.monotonic()
    done = subprocess.run(command, cwd=directory, env=os.environ | added, capture_output=True, text=True)
    output = done.stdout + done.stderr
    counted = _CASES.search(output)
    cases = int(counted[1].replace(",", "")) if counted else 0
    # A campaign without cases proves nothing.
    return Outcome(cases, time.monotonic() - began, done.returncode != 0 or cases == 0, output)
