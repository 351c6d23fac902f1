"""Starts the processes of a system under test, waits for them, measures them through /proc, and ends them."""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from datahog.local.supervisor import Program
from tests.support import proc

# Seconds.
_READY_WITHIN = 60.0


@dataclass(frozen=True)
class Usage:
    """The usage of processes since their start: CPU in seconds, and the peak of their memory in bytes."""

    cpu: float
    memory: int


class Processes:
    """Programs by name. Leaving the `with` block kills them and the processes they have started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._running):
            with suppress(ProcessLookupError):
                os.killpg(self._running[name].pid, signal.SIGKILL)
            self._running[name].wait()

    def start(self, *programs: Program) -> None:
        """Start programs, each when the one before is ready. Raises AssertionError when one fails or is not ready."""
        for program in programs:
            self._running[program.name] = self._launch(program)
            self._wait_until_ready(program)

    def usage(self, *names: str) -> Usage:
        """The usage of the named programs, with all their children."""
        pids = {pid for name in names for pid in proc.family(self._running[name].pid)}
        return Usage(sum(map(proc.cpu_seconds, pids)), sum(proc.memory(pid, "VmHWM") for pid in pids))

    def log(self, name: str) -> str:
        """The output of a program."""
        return self._log(name).read_text(errors="replace")

    def _launch(self, program: Program) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name not in program.environment}
        environment |= {name: value for name, value in program.environment.items() if value is not None}
        with self._log(program.name).open("wb") as log:
            return subprocess.Popen(  # noqa: S603 -- the benches' own programs
                program.command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def _wait_until_ready(self, program: Program) -> None:
        process = self._running[program.name]
        if program.once:
            if process.wait(_READY_WITHIN):
                raise AssertionError(f"{program.name} failed:\n{self.log(program.name)}")
            return
        ends = time.monotonic() + _READY_WITHIN
        while program.port is not None:
            with suppress(OSError):
                socket.create_connection((program.host, program.port), timeout=1).close()
                return
            if process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"{program.name} is not ready:\n{self.log(program.name)}")
            time.sleep(0.02)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def free_ports(host: str, count: int) -> list[int]:
    """Find `count` ports of the host on which no program listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]
