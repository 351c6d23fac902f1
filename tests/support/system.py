"""The real processes of Datahog for the tests: started, killed and read by name."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import requests

import specs
from datahog.local import stack
from datahog.local.supervisor import Program
from datahog.settings import Settings
from simulator.bills import PROVIDERS, path_of
from specs.operations import operations

T = TypeVar("T")

SECRET = "whsec_" + "dGVzdHMgb25seSwgZ3VhcmRzIG5vdGhpbmcgYXQgYWxs"
API_KEY = "dh_" + "0" * 16 + "_" + "tests-only".rjust(43, "x")
AUTHORIZED = {"Authorization": f"Bearer {API_KEY}"}
READY_WITHIN = 90.0


@dataclass
class System:
    """A whole stack, engines included, on ports and in a directory of its own. Leaving its block kills everything."""

    settings: Settings
    modules: Mapping[str, str] = field(default_factory=dict)
    """The programs that are run by a module other than `datahog`, by name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to the environment of each program."""
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def client(self) -> str:
        """The base URL of the client API."""
        return self.settings.client_url + specs.base_path(specs.CLIENT)

    @property
    def aggregator(self) -> str:
        """The base URL of the aggregator API."""
        return self.settings.aggregator_url + specs.base_path(specs.AGGREGATOR)

    def start(self, *names: str) -> None:
        """Start programs by name, all but the viewer if none is named, and wait until they are ready."""
        for stage in stack.stages(self.settings):
            programs = [p for p in stage if p.name in names or (not names and p.name != "viewer")]
            for program in programs:
                self._running[program.name] = self._launch(program)
            for program in programs:
                self._wait_until_ready(program)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a program, and for SIGKILL and SIGTERM wait for its end."""
        process = self._running[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(30)

    def start_another(self, name: str) -> str:
        """Start one more process of a running program, and return the name it goes by."""
        program = next(p for stage in stack.stages(self.settings) for p in stage if p.name == name)
        another = f"{name}-{len(self._running)}"
        self._running[another] = self._launch(program, another)
        return another

    def mend(self) -> None:
        """Start again whatever has ended that should run."""
        ended = [p.name for stage in stack.stages(self.settings) for p in stage if not p.once and self._ended(p.name)]
        if ended:
            self.start(*ended)

    def process_id(self, name: str) -> int:
        """The id of a running program's process."""
        return self._running[name].pid

    def exit_code(self, name: str) -> int | None:
        """The exit code of a program, None while it runs."""
        return self._running[name].poll()

    def log(self, name: str) -> str:
        """What a program has written."""
        return self._log(name).read_text(errors="replace")

    def call(
        self,
        name: str,
        operation_id: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: int = 60,
        json: Any = None,
    ) -> requests.Response:
        """Call an operation of the API `name`, with the key that opens everything."""
        operation = operations(name)[operation_id]
        url = self.settings.api_urls[name] + operation.target(arguments or {})
        return requests.request(operation.method, url, headers=AUTHORIZED, json=json, timeout=timeout)

    def ask(self, *providers: str, **members: Any) -> str:
        """Ask the client for data; returns the request's id."""
        answer = self.call(specs.CLIENT, "createRequest", json={"providers": providers, **members})
        assert answer.status_code == 202, answer.text
        request_id: str = answer.json()["requestId"]
        return request_id

    def hand_over(self, *providers: str, callback_url: str, **members: Any) -> str:
        """Ask the aggregator itself, with a callback URL of the test's own; returns the request's id."""
        body = {"providers": providers, "callbackUrl": callback_url, **members}
        answer = self.call(specs.AGGREGATOR, "createRequest", json=body)
        assert answer.status_code == 202, answer.text
        request_id: str = answer.json()["requestId"]
        return request_id

    def look(self, request_id: str) -> dict[str, Any]:
        """What the aggregator says of a request, its delivery included."""
        answer = self.call(specs.AGGREGATOR, "getRequest", {"requestId": request_id})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def order(self, request_id: str, verb: str) -> requests.Response:
        """Tell the aggregator to cancel, redeliver or retry a request."""
        return self.call(specs.AGGREGATOR, f"{verb}Request", {"requestId": request_id})

    def read(self, request_id: str, wait: int = 0) -> dict[str, Any]:
        """What the client says of a request."""
        answer = self.call(specs.CLIENT, "getRequest", {"requestId": request_id, "wait": wait})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def read_until_ended(self, request_id: str, seconds: float = 60) -> dict[str, Any]:
        """The request once it has ended at the client."""
        return eventually(lambda: (d := self.read(request_id, wait=5))["status"] != "OPEN" and d, seconds)

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def _ended(self, name: str) -> bool:
        return name in self._running and self.exit_code(name) is not None

    def _launch(self, program: Program, name: str | None = None) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name not in program.environment}
        added = {name: value for name, value in program.environment.items() if value is not None}
        command = list(program.command)
        if module := self.modules.get(program.name):
            command[command.index("datahog")] = module
        with self._log(name or program.name).open("ab") as log:
            return subprocess.Popen(
                command,
                env=kept | added | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _wait_until_ready(self, program: Program) -> None:
        process = self._running[program.name]
        if program.once:
            assert process.wait(READY_WITHIN) == 0, self.log(program.name)
            return
        if program.port is None:
            return
        address = (program.host, program.port)

        def accepts() -> bool:
            assert process.poll() is None, self.log(program.name)
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return False
            return True

        eventually(accepts, READY_WITHIN)

    def _log(self, name: str) -> Path:
        return self.settings.data_dir / f"{name}.log"


def free_ports() -> dict[str, int]:
    """A free port for each setting that is one."""
    names = [name for name in Settings.model_fields if name.endswith("_port")]
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: listener.getsockname()[1] for name, listener in zip(names, sockets, strict=True)}


def system_settings(directory: Path, **changes: Any) -> Settings:
    """Settings of a stack of its own, quick to retry: short delays, short deliveries, a short reconciler period."""
    providers = directory / "providers.yaml"
    if not providers.exists():
        providers.write_text(providers_file())
    values: dict[str, Any] = {
        "providers_file": providers,
        "webhook_secrets": (SECRET,),
        "local_key": API_KEY,
        "aggregator_key": API_KEY,
        "rate_limit": 1_000_000,
        "open_requests": 1_000_000,
        "reconciler_period": 0.5,
        "simulator_latency": 0.01,
        "delivery_schedule": (0, 0.5, 1, 2, 4, 8, 8, 8),
        "outbound_ports": "1-65535",  # some tests call where nobody listens, which is port 9
        "worker_grace": 5,
        "data_dir": directory,
    }
    return stack.settle(Settings.model_validate(values | free_ports() | changes))


def providers_file(**options: Any) -> str:
    """A providers' file for the simulator's five, retried quickly; `options` are those of each provider."""
    retry = {"initialDelay": 0.1, "maximumDelay": 1, "jitter": 0.2}
    lines = [f"  {name}: {_inline(name, retry, options)}" for name in PROVIDERS]
    return "providers:\n" + "\n".join(lines) + "\n"


def _inline(name: str, retry: dict[str, float], options: dict[str, Any]) -> str:
    url = "${DATAHOG_SIMULATOR_URL}" + path_of(name)
    return json.dumps({"url": url, "retry": retry} | options)


def eventually(check: Callable[[], T | None | Literal[False]], seconds: float = 30, pause: float = 0.05) -> T:
    """The first true value that `check` returns; fails when there is none within the time."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(pause)
