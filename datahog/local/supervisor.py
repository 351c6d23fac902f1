"""Runs the processes of a stack: starts them, shows their output, and stops all of them when one ends."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Self, TextIO

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
# Linux kills a child that asked for it (PR_SET_PDEATHSIG = 1) when its parent dies, even by SIGKILL. Asking
# between fork and exec may deadlock in a process with threads, so the child is this script first.
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class ProgramFailed(Exception):
    """A program ended unexpectedly, failed, or was not ready in time; the message names it and the reason."""


class Interrupted(Exception):
    """The supervisor received SIGINT, SIGTERM or SIGHUP."""


@dataclass(frozen=True)
class Program:
    """A process to run; it is ready when `port` accepts connections, or at once without a port."""

    name: str
    command: Sequence[str]
    host: str = "127.0.0.1"
    port: int | None = None
    once: bool = False
    """The program is ready when it has ended with exit code 0."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Variables on top of the supervisor's own environment; None removes a variable."""


@dataclass(frozen=True)
class _Child:
    program: Program
    process: subprocess.Popen[str]
    colour: int


class Supervisor:
    """Owns the processes that it starts; the end of its `with` block stops them in reverse order.

    Start programs from a thread that outlives them: Linux takes the end of that thread for the parent's death.
    """

    def __init__(self, output: TextIO, *, grace: float = 10, signals: bool = False) -> None:
        """`grace`: the seconds that a program has to stop by itself; `signals`: turns signals into Interrupted."""
        self._output = output
        self._grace = grace
        self._signals = _SIGNALS if signals else ()
        self._colour = output.isatty()
        self._children: list[_Child] = []
        # Of the thread-safe queues, only SimpleQueue has a `put` that is safe in a signal handler.
        self._events: queue.SimpleQueue[_Child | signal.Signals] = queue.SimpleQueue()
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        self._replaced = {number: signal.signal(number, self._on_signal) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._replaced.items():
                signal.signal(number, handler)

    def start(self, *programs: Program, timeout: float = 60) -> None:
        """Starts programs in parallel and waits at most `timeout` seconds until all are ready.

        Raises ProgramFailed, Interrupted.
        """
        deadline = time.monotonic() + timeout
        for child in [self._launch(program) for program in programs]:
            while not _ready(child):
                if time.monotonic() > deadline:
                    raise ProgramFailed(f"{child.program.name} was not ready within {timeout:g} s")
                self.pause(0.02)

    def pause(self, seconds: float | None = None) -> None:
        """Waits for `seconds`, or without end. Raises ProgramFailed if a program ends, Interrupted on a signal."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(event, signal.Signals):
                raise Interrupted(event.name)
            if not (event.program.once and event.process.returncode == 0):
                end = f"ended with {_describe(event.process.returncode)}"
                self._write(event, end)
                raise ProgramFailed(f"{event.program.name} {end}")

    def stop(self) -> None:
        """Stops the programs one by one: SIGTERM, then SIGKILL after the grace. A second call does nothing."""
        while self._children:
            child = self._children[-1]
            child.process.terminate()
            try:
                child.process.wait(self._grace)
            except subprocess.TimeoutExpired:
                self._write(child, f"did not stop within {self._grace:g} s and is killed")
                child.process.kill()
                child.process.wait()
            self._children.pop()

    def _launch(self, program: Program) -> _Child:
        command = list(program.command)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        kept = {name: value for name, value in os.environ.items() if name not in program.environment}
        added = {name: value for name, value in program.environment.items() if value is not None}
        try:
            process = subprocess.Popen(  # noqa: S603 (the commands are the project's own)
                command,
                env=kept | added,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C reaches the terminal's foreground group: the supervisor, which then stops the rest.
                process_group=0,
            )
        except OSError as error:
            raise ProgramFailed(f"{program.name} could not be started: {error}") from error
        child = _Child(program, process, _COLOURS[len(self._children) % len(_COLOURS)])
        self._children.append(child)
        reader = threading.Thread(target=self._show, args=(child,), daemon=True)
        reader.start()
        threading.Thread(target=self._watch, args=(child, reader), daemon=True).start()
        return child

    def _watch(self, child: _Child, reader: threading.Thread) -> None:
        child.process.wait()
        reader.join(1)  # shows the program's last lines before it reports the end
        self._events.put(child)

    def _show(self, child: _Child) -> None:
        for line in child.process.stdout or ():
            # The program blocks unless its output is read, so the reader goes on even when the own output is closed.
            with suppress(OSError, ValueError):
                self._write(child, line.rstrip())

    def _write(self, child: _Child, line: str) -> None:
        prefix = f"{child.program.name:<10} |"
        if self._colour:
            prefix = f"\x1b[{child.colour}m{prefix}\x1b[0m"
        with self._writing:
            print(prefix, line, file=self._output, flush=True)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._events.put(signal.Signals(number))


def _ready(child: _Child) -> bool:
    program = child.program
    if program.once:
        return child.process.returncode == 0
    if program.port is None:
        return True
    with suppress(OSError), socket.create_connection((program.host, program.port), timeout=1):
        return True
    return False


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
