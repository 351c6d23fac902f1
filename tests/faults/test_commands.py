"""The commands `run` and `demo`: stopped, started again, on ports in use, and ended without leftovers."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

import specs
from datahog.local import local_secrets
from datahog.settings import PREFIX
from specs.operations import operations
from tests.support.system import READY_WITHIN, eventually, free_ports

ROOT = Path(__file__).parents[2]

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find processes")


class Command:
    """Runs commands with its own settings; a variable marks all their processes, children of children too."""

    def __init__(self, directory: Path) -> None:
        self.mark = f"MARK={uuid.uuid4()}"
        self.ports = free_ports()
        self.data = directory / "data"
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        settings = self.ports | {"data_dir": self.data, "simulator_failure_rate": 0, "worker_grace": 3}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment |= {PREFIX + name.upper(): str(value) for name, value in settings.items()}
        self._environment |= {"TMPDIR": str(self.temporary), "MARK": self.mark.removeprefix("MARK=")}

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = (sys.executable, "-m", "datahog", name)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def processes(self) -> list[str]:
        """The command lines of all started processes that are still running."""
        return [" ".join(line) for _, line in self._marked()]

    def kill(self) -> None:
        """Kill all processes that are left."""
        for pid, _ in self._marked():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _marked(self) -> Iterator[tuple[int, list[str]]]:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.mark in process.joinpath("environ").read_text(errors="replace").split("\0"):
                    yield int(process.name), process.joinpath("cmdline").read_text().split("\0")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path)
    yield made
    made.kill()


@needs_proc
@pytest.mark.parametrize("port", ["aggregator_port", "redis_port"])
def test_run_names_a_taken_port_and_its_setting(port: str, command: Command) -> None:
    with socket.create_server(("127.0.0.1", command.ports[port])):
        process = command.start("run")
        _, said = process.communicate(timeout=30)

    assert process.returncode == 1
    (line,) = said.splitlines()
    assert str(command.ports[port]) in line
    assert PREFIX + port.upper() in line


@needs_proc
def test_run_keeps_its_data_and_leaves_no_process_when_ended(command: Command) -> None:
    first = command.start("run")
    request_id = eventually(lambda: ask(command), READY_WITHIN)
    before = eventually(lambda: (d := read(command, request_id))["status"] == "COMPLETE" and d)
    first.send_signal(signal.SIGINT)
    said, complained = first.communicate(timeout=30)

    assert first.returncode == 0
    assert said.endswith("Stopped.\n")
    assert "Traceback" not in said + complained
    assert command.processes() == []

    second = command.start("run")
    after = eventually(lambda: read(command, request_id), READY_WITHIN)
    second.kill()
    second.communicate(timeout=30)

    assert after == before
    eventually(lambda: command.processes() == [], 10)


@needs_proc
@pytest.mark.parametrize(
    ("stop", "exit_code"), [(None, 0), (signal.SIGINT, 1)], ids=["to its end", "stopped by Ctrl-C"]
)
def test_demo_leaves_no_process_and_no_file(stop: signal.Signals | None, exit_code: int, command: Command) -> None:
    process = command.start("demo")
    if stop:
        eventually(lambda: len(command.processes()) > 3)
        process.send_signal(stop)
    said, complained = process.communicate(timeout=100)

    assert process.returncode == exit_code, complained
    assert ('"status": "COMPLETE"' in said) is (stop is None)
    assert "Traceback" not in said + complained
    assert command.processes() == []
    assert list(command.temporary.iterdir()) == []


def ask(command: Command) -> Any:
    """Create a request and return its id; None while the client is not ready."""
    response = tried(lambda: call(command, "createRequest", json={"providers": ["gas", "water"]}))
    return response and response.json()["requestId"]


def read(command: Command, request_id: str) -> Any:
    """The request; None while the client is not ready."""
    response = tried(lambda: call(command, "getRequest", {"requestId": request_id}))
    return response and response.json()


def call(command: Command, operation_id: str, arguments: Any = None, **options: Any) -> requests.Response:
    """Call the client with the key that `run` has made."""
    operation = operations(specs.CLIENT)[operation_id]
    url = f"http://127.0.0.1:{command.ports['client_port']}{operation.target(arguments or {})}"
    key = (command.data / local_secrets.API_KEY).read_text().strip()
    return requests.request(operation.method, url, headers={"X-API-Key": key}, timeout=10, **options)


def tried(call: Callable[[], requests.Response]) -> requests.Response | None:
    """The response; None when the server or its key does not exist yet."""
    try:
        response = call()
    except (requests.ConnectionError, FileNotFoundError):
        return None
    assert response.ok, response.text
    return response
