"""Brings each fault about, and mends it."""

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import redis

from tests.faults.chaos.schedule import Fault
from tests.support.system import System, eventually


class Disturbed(Protocol):
    """A part of the world that can be told to misbehave in some manner, and to stop that."""

    def disturb(self, manner: str) -> None:
        """Misbehave in this manner until `calm`."""

    def calm(self) -> None:
        """Behave well."""


@dataclass(frozen=True)
class Injected:
    """A fault that occurred, with the `time.time` of its beginning and its mending."""

    fault: Fault
    began: float
    mended: float


class Injector:
    """Brings faults about in a system and in the parts `around` it, which it knows by name, until `stop` is set."""

    def __init__(self, system: System, around: Mapping[str, Disturbed], stop: threading.Event) -> None:
        self._system = system
        self._around = around
        self._stop = stop

    def follow(self, schedule: Sequence[Fault]) -> list[Injected]:
        """Bring each fault about at its time, counted from now; returns when all are mended.

        Raises AssertionError when a program cannot be started again.
        """
        started = time.monotonic()

        def carry_out(fault: Fault) -> Injected | None:
            if self._stop.wait(max(0.0, started + fault.at - time.monotonic())):
                return None
            began = time.time()
            self._begin(fault)
            self._stop.wait(fault.seconds)
            self._mend(fault)
            return Injected(fault, began, time.time())

        with ThreadPoolExecutor(max(1, len(schedule))) as each:
            return [injected for injected in each.map(carry_out, schedule) if injected]

    def _begin(self, fault: Fault) -> None:
        if around := self._around.get(fault.target):
            around.disturb(fault.kind)
            return
        match fault.kind:
            case "kill":
                self._system.kill(fault.target)
            case "freeze":
                self._system.kill(fault.target, signal.SIGSTOP)
            case "stop":
                self._system.kill(fault.target, signal.SIGTERM)
            case "flush":
                eventually(self._flush)

    def _flush(self) -> bool:
        with redis.Redis.from_url(f"redis://127.0.0.1:{self._system.settings.redis_port}") as connection:
            try:
                return bool(connection.flushall())
            except redis.BusyLoadingError:
                # Redis was killed a moment ago, and is loading its data.
                return False

    def _mend(self, fault: Fault) -> None:
        if around := self._around.get(fault.target):
            around.calm()
            return
        match fault.kind:
            case "kill" | "stop":
                self._system.start(fault.target)
            case "freeze":
                self._system.kill(fault.target, signal.SIGCONT)
