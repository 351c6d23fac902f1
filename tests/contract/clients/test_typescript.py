"""The TypeScript types that openapi-typescript makes: the compiler checks a program by them, and Node.js runs it."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import specs
from tests.contract.clients.commands import generate, run
from tests.receiver import Receiver
from tests.system import API_KEY, System, eventually

_HERE = Path(__file__).parent / "typescript"
_MISSING = "The TypeScript client needs npm: install Node.js 20 or newer, which brings it."


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the types of both documents are made, and the programs over them compiled."""
    packages = _packages()
    directory = tmp_path_factory.mktemp("typescript")
    for path in [*_HERE.glob("*.ts"), *_HERE.glob("*.json")]:
        shutil.copy(path, directory)
    (directory / packages.name).symlink_to(packages)
    for name in (specs.CLIENT, specs.AGGREGATOR):
        generate("openapi-typescript", name, directory)
    # This fails too when it takes a line of refused.ts.
    run("npx", "tsc", "--project", ".", directory=directory)
    return directory


# Fetching the packages, once, takes as long as the network does.
@pytest.mark.timeout(300)
def test_the_program_drives_a_request_to_its_end_at_both_apis(
    compiled: Path, system: System, receiver: Receiver
) -> None:
    callback_url = receiver.url("/typescript")

    told = run("node", "caller.js", system.client, system.aggregator, API_KEY, callback_url, directory=compiled)

    printed = json.loads(told)
    for request in (printed["client"], printed["aggregator"]):
        assert request["status"] == "COMPLETE"
        assert [job["provider"] for job in request["jobs"]] == ["gas", "steady"]
        assert request["jobs"][1]["result"] == [{"amount": 30.0}]
    assert printed["problem"]["status"] == 422
    assert "steady" in printed["problem"]["known"]
    [call] = eventually(lambda: receiver.calls("/typescript"))
    assert json.loads(call.body)["requestId"] == printed["aggregator"]["requestId"]


def _packages() -> Path:
    """The packages of the lock file, installed when they are not the installed ones already."""
    npm = shutil.which("npm")
    if npm is None:
        # Elsewhere the rest of the tests is worth running; where all must be tested, this must be too.
        if os.environ.get("CI"):
            pytest.fail(_MISSING)
        pytest.skip(_MISSING)
    packages = _HERE / "node_modules"
    stamp = packages / ".stamp"
    digest = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        done = subprocess.run([npm, "ci", *options], cwd=_HERE, capture_output=True, text=True)
        assert done.returncode == 0, f"npm ci failed in {_HERE}:\n{done.stdout}{done.stderr}"
        stamp.write_text(digest)
    return packages
