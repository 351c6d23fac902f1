"""The Python clients of openapi-python-client are complete and typed, and complete a request."""

import importlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from inflection import underscore

import specs
from tests.contract.api import operations
from tests.contract.clients.commands import generate, run
from tests.support.servers.receiver import Receiver
from tests.support.system import API_KEY, System, eventually

_BOTH = [specs.CLIENT, specs.AGGREGATOR]

# The generator writes the same ill-typed call into each of these modules.
_MYPY = """
[mypy]
strict = True
[mypy-datahog_client.client,datahog_aggregator.client]
ignore_errors = True
"""
# mypy reports an unused ignore, so each line below must be an error.
_REFUSED = """
from datahog_aggregator.models import JobUpdate, NewRequest
from datahog_client.models import ClientRequest, RequestStatus

NewRequest(providers=["gas"])  # type: ignore[call-arg]
NewRequest(providers=[1], callback_url="https://example.com")  # type: ignore[list-item]
JobUpdate(provider="gas", status="OPEN")  # type: ignore[arg-type]
RequestStatus.DONE  # type: ignore[attr-defined]

def length(request: ClientRequest) -> int:
    return len(request.jobs[0].last_error)  # type: ignore[arg-type]
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of the generated packages `datahog_client` and `datahog_aggregator`; both can be imported."""
    directory = tmp_path_factory.mktemp("python")
    for name in _BOTH:
        generate("openapi-python-client", name, directory, "--fail-on-warning")
    sys.path.insert(0, str(directory))
    yield directory
    sys.path.remove(str(directory))


@pytest.fixture(scope="module")
def caller(generated: Path) -> ModuleType:
    """The program over the generated packages."""
    return importlib.import_module("tests.contract.clients.caller")


@pytest.fixture
def make_api(caller: ModuleType, system: System) -> Iterator[Any]:
    """Makes the generated client of an API, with a key."""
    made: list[Any] = []

    def make(name: str, key: str = API_KEY) -> Any:
        kind, url = {
            specs.CLIENT: (caller.ClientApi, system.client),
            specs.AGGREGATOR: (caller.AggregatorApi, system.aggregator),
        }[name]
        made.append(kind(base_url=url, token=key, raise_on_unexpected_status=True))
        return made[-1].__enter__()

    yield make
    for api in made:
        api.__exit__()


@pytest.mark.parametrize("name", _BOTH)
def test_every_operation_has_a_module(generated: Path, name: str) -> None:
    made = {path.relative_to(generated).as_posix() for path in generated.glob(f"datahog_{name}/api/*/[!_]*.py")}

    assert made == {
        f"datahog_{name}/api/{operation['tags'][0]}/{underscore(operation['operationId'])}.py"
        for _, _, operation in operations(specs.read(name))
    }


def test_the_types_refuse_contract_violations(generated: Path) -> None:
    (generated / "mypy.ini").write_text(_MYPY)
    (generated / "refused.py").write_text(_REFUSED)
    (generated / "caller.py").write_text(Path(__file__).with_name("caller.py").read_text())

    run(
        sys.executable,
        "-m",
        "mypy",
        *("caller.py", "refused.py", *(f"datahog_{n}" for n in _BOTH)),
        directory=generated,
    )


def test_a_request_completes_at_the_client(caller: ModuleType, make_api: Any) -> None:
    api = make_api(specs.CLIENT)

    request = caller.complete_at_client(api, ["gas", "steady"], datetime.now(UTC) + timedelta(hours=1))

    assert request.status is caller.client.RequestStatus.COMPLETE
    assert request.submission.status is caller.client.SubmissionStatus.ACCEPTED
    assert [job.status for job in request.jobs] == [caller.client.JobStatus.DONE] * 2
    assert request.created_at <= request.ended_at <= datetime.now(UTC)
    assert caller.amounts(request) == {"gas": pytest.approx(52.27), "steady": 30.0}
    assert caller.newest(api).request_id == request.request_id


def test_a_request_completes_at_the_aggregator(caller: ModuleType, make_api: Any, receiver: Receiver) -> None:
    request = caller.complete_at_aggregator(make_api(specs.AGGREGATOR), ["steady"], receiver.url("/generated"))

    assert request.status is caller.aggregator.RequestStatus.COMPLETE
    assert caller.amounts(request) == {"steady": 30.0}
    [call] = eventually(lambda: receiver.calls("/generated"))
    result = caller.aggregator.Result.from_dict(json.loads(call.body))
    assert (result.request_id, result.revision) == (request.request_id, 1)
    assert result.status is caller.aggregator.ResultStatus.COMPLETE
    assert [job.result for job in result.jobs] == [[{"amount": 30.0}]]


def test_refusals_are_parsed_as_problems(caller: ModuleType, make_api: Any) -> None:
    api = make_api(specs.CLIENT)

    unknown = caller.problem_of(api, providers=["unknown"])
    missing = caller.problem_of(api, request_id="missing")
    outside = caller.problem_of(make_api(specs.CLIENT, key="dh_" + "1" * 16 + "_" + "y" * 43), request_id="missing")

    assert (unknown.status, unknown.type_) == (422, "urn:datahog:problem:unknown-provider")
    assert "steady" in unknown.known
    assert (missing.status, missing.type_) == (404, "urn:datahog:problem:not-found")
    assert (outside.status, outside.type_) == (401, "urn:datahog:problem:unauthorized")
