"""Schemathesis against both live APIs: all of its phases and checks, valid data and invalid."""

import os
import subprocess
import sys
from pathlib import Path

import specs
from tests.contract.api import Api

_ROOT = Path(__file__).parents[2]
_CASES = 50
_SEED = 1


def test_whatever_is_sent_the_api_answers_as_its_document_says(api: Api, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(Path(__file__).with_name("schemathesis.toml")),
    ]
    command += ["run", str(specs.path(api.name)), "--url", api.url, "--checks", "all", "--mode", "all"]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(_CASES), "--seed", str(_SEED)]
    command += ["--generation-database", "none", "--no-color"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.contract.fuzz_hooks", "PYTHONPATH": str(_ROOT)}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
