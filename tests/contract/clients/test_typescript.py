"""The TypeScript types of openapi-typescript: the compiler checks a program with them, and Node.js runs it."""

import json
import shutil
from pathlib import Path

import pytest

import specs
from tests.contract.clients.commands import generate, run
from tests.contract.npm import installed
from tests.support.servers.receiver import Receiver
from tests.support.system import API_KEY, System, eventually

_HERE = Path(__file__).parent / "typescript"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the generated types of both documents, and the compiled programs over them."""
    packages = installed(_HERE)
    directory = tmp_path_factory.mktemp("typescript")
    for path in [*_HERE.glob("*.ts"), *_HERE.glob("*.json")]:
        shutil.copy(path, directory)
    (directory / packages.name).symlink_to(packages)
    for name in (specs.CLIENT, specs.AGGREGATOR):
        generate("openapi-typescript", name, directory)
    # It also fails when it accepts a line of refused.ts.
    run("npx", "tsc", "--project", ".", directory=directory)
    return directory


# The first run downloads the packages.
@pytest.mark.timeout(300)
def test_a_typed_program_completes_requests_at_both_apis(compiled: Path, system: System, receiver: Receiver) -> None:
    callback_url = receiver.url("/typescript")

    output = run("node", "caller.js", system.client, system.aggregator, API_KEY, callback_url, directory=compiled)

    printed = json.loads(output)
    for request in (printed["client"], printed["aggregator"]):
        assert request["status"] == "COMPLETE"
        assert [job["provider"] for job in request["jobs"]] == ["gas", "steady"]
        assert request["jobs"][1]["result"] == [{"amount": 30.0}]
    assert printed["problem"]["status"] == 422
    assert "steady" in printed["problem"]["known"]
    [call] = eventually(lambda: receiver.calls("/typescript"))
    assert json.loads(call.body)["requestId"] == printed["aggregator"]["requestId"]
