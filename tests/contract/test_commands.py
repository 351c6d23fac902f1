"""The commands `call` and `keys` against the running system."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest

from datahog.local import stack
from datahog.settings import PREFIX
from persistence.api_keys import new_key
from tests.contract.api import Api
from tests.support.system import API_KEY, System

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(system: System) -> Run:
    """Runs a command with the system's settings and a key; an empty key means none."""
    [aggregator] = [p for stage in stack.stages(system.settings) for p in stage if p.name == "aggregator"]
    settings = {name: value for name, value in aggregator.environment.items() if value is not None}

    def run(*arguments: str, key: str = API_KEY, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "datahog", *arguments)
        environment = os.environ | settings | {PREFIX + "API_KEY": key}
        return subprocess.run(command, env=environment, input=given, capture_output=True, text=True, timeout=60)

    return run


_RECORD = '{"providers": ["mute"], "callbackUrl": "http://127.0.0.1:9/"}'


def test_a_request_is_created_and_read_by_operation_id(run: Run) -> None:
    asked = run("call", "client", "createRequest", "--body", '{"providers": ["steady"]}')
    request_id = json.loads(asked.stdout)["requestId"]

    read = run("call", "client", "getRequest", f"requestId={request_id}", "wait=30")

    assert (asked.returncode, read.returncode) == (0, 0)
    assert json.loads(read.stdout)["status"] == "COMPLETE"


def test_a_body_is_read_from_standard_input(run: Run) -> None:
    response = run("call", "client", "createRequest", "--body", "-", given='{"providers": ["steady"]}')

    assert json.loads(response.stdout)["status"] == "OPEN"


@pytest.mark.parametrize(
    ("arguments", "key", "status"),
    [(("listProviders",), "", 401), (("getRequest", "requestId=missing"), API_KEY, 404)],
)
def test_a_refusal_is_printed_and_sets_the_exit_code(
    run: Run, arguments: tuple[str, ...], key: str, status: int
) -> None:
    response = run("call", "aggregator", *arguments, key=key)

    assert response.returncode == 1
    assert json.loads(response.stdout)["status"] == status


def test_a_result_is_sent_and_printed_verbatim(run: Run) -> None:
    record_id, result = uuid.uuid4().hex, '{"a": [12345678901234567890123, 1.10, -0], "b": "é", "b": 1}'
    made = run("call", "aggregator", "createRecord", f"id={record_id}", "--body", _RECORD)
    updated = run(
        "call", "aggregator", "updateJob", f"id={record_id}",
        "--body", f'{{"provider": "mute", "status": "DONE", "result": {result}}}',
    )  # fmt: skip

    read = run("call", "aggregator", "getRecord", f"id={record_id}")

    assert (made.returncode, updated.returncode, read.returncode) == (0, 0, 0)
    assert result.replace(" ", "") in re.sub(r"\s", "", read.stdout)
    assert [line for line in read.stdout.splitlines() if "1.10" in line] == ["          1.10,"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), "there is no operation nope; there are cancelRequest, "),
        (("getRequest",), "getRequest needs requestId"),
        (("getRequest", "requestId"), "a parameter is given as name=value, not as 'requestId'"),
        (("createRequest", "--body", "{"), "the body is not JSON: "),
    ],
)
def test_an_impossible_call_is_explained_in_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    response = run("call", "client", *arguments)

    assert (response.returncode, response.stdout) == (2, "")
    [line] = response.stderr.splitlines()
    assert line.startswith(f"datahog call: {said}")


def test_an_unreachable_api_is_named_by_its_url() -> None:
    response = subprocess.run(
        (sys.executable, "-m", "datahog", "call", "client", "listRequests"),
        env=os.environ | {PREFIX + "CLIENT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert response.returncode == 1
    [line] = response.stderr.splitlines()
    assert line.startswith("datahog call: http://127.0.0.1:9/api/v1/requests: connection failed")


def test_a_key_is_created_listed_and_revoked(run: Run, aggregator: Api) -> None:
    made = run(
        *("keys", "create", "--name", "Ada\n", "--tenant", "acme"),
        *("--scope", "requests:read", "--scope", "requests:write"),
    )
    text = made.stdout.strip()
    key_id = text.split("_")[1]
    assert aggregator.call("listProviders", key=text).status_code == 200
    assert text not in made.stderr

    revoked = run("keys", "revoke", key_id)
    listed = run("keys", "list")

    assert (made.returncode, revoked.returncode, listed.returncode) == (0, 0, 0)
    [line] = [line for line in listed.stdout.splitlines() if line.startswith(key_id)]
    assert line.split("\t")[1:4] == ["requests:read,requests:write", "acme", "limited"]
    assert "revoked 20" in line
    assert line.endswith("'Ada\\n'")
    assert text.split("_", 2)[2] not in listed.stdout


def test_a_key_without_a_tenant_gets_the_default_one(run: Run) -> None:
    made = run("keys", "create", "--name", "client", "--unlimited", "--scope", "requests:read")
    key_id = made.stdout.split("_")[1]

    [line] = [line for line in run("keys", "list").stdout.splitlines() if line.startswith(key_id)]

    assert line.split("\t")[2:4] == ["default", "unlimited"]


@pytest.mark.parametrize("tenant", ["", "a b", "a#b", "-a", "a" * 65, "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_tenant_with_an_invalid_name_is_refused(run: Run, tenant: str) -> None:
    response = run("keys", "create", "--name", "Ada", "--scope", "admin", f"--tenant={tenant}")

    assert response.returncode == 2
    assert "argument --tenant: 1 to 64 letters, digits" in response.stderr


def test_an_unknown_key_cannot_be_revoked(run: Run) -> None:
    response = run("keys", "revoke", new_key().split("_")[1])

    assert response.returncode == 1
    assert response.stderr.startswith("datahog keys: no API key ")


def test_an_unknown_scope_is_refused(run: Run) -> None:
    response = run("keys", "create", "--name", "Ada", "--scope", "everything")

    assert response.returncode == 2
    assert "'requests:read', 'requests:write'" in response.stderr
