"""`worker`: runs several worker processes, restarts those that die, and stops all of them together."""

import argparse
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkProcess
from queue import Empty, SimpleQueue
from types import FrameType

log = logging.getLogger(__name__)

# The backoff before a dead worker is restarted, by the number of deaths in a row.
_PAUSE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
# A worker that has run for longer resets that number.
_STABLE_SECONDS = 60.0
# How often the processes are checked.
_CHECK_SECONDS = 0.2
# prctl(2): the kernel sends the process a signal when its parent dies.
_PR_SET_PDEATHSIG = 1
# This process has no threads, so a fork is safe; the children share the memory of the loaded modules.
_fork = multiprocessing.get_context("fork")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--concurrency", type=_positive, metavar="N", help="jobs that each process runs at once")
    parser.add_argument(
        "--processes", type=_positive, metavar="N", help="worker processes; unset means one for each CPU"
    )


def run(processes: int, work: Callable[[], None], *, grace: float) -> int:
    """Runs `work` in `processes` processes until SIGTERM or SIGINT.

    Each process then has `grace` seconds to stop. Returns the highest of their exit codes, 0 if all stopped well.
    """
    # Unlike an Event, its put is safe in a signal handler.
    stop: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    slots = [_Slot(work) for _ in range(processes)]
    log.info("%d worker processes", processes)
    while stop.empty():
        for slot in slots:
            slot.fill()
        with suppress(Empty):
            stop.put(stop.get(timeout=_CHECK_SECONDS))
    for slot in slots:
        slot.tell_to_stop()
    ends = time.monotonic() + grace
    return max(slot.wait(ends) for slot in slots)


class _Slot:
    """Holds one process, and starts another one when it dies."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._deaths = 0
        self._started = self._due = 0.0
        self._process: ForkProcess | None = None

    def fill(self) -> None:
        """Starts a process if there is none and the backoff is over."""
        now = time.monotonic()
        if self._process and self._process.exitcode is not None:
            self._deaths = 0 if now - self._started > _STABLE_SECONDS else self._deaths + 1
            pause = _PAUSE_SECONDS[min(self._deaths, len(_PAUSE_SECONDS)) - 1] if self._deaths else 0.0
            log.error("worker %d ended with %d, the next in %g s", self._process.pid, self._process.exitcode, pause)
            self._process, self._due = None, now + pause
        if self._process is None and now >= self._due:
            self._started = now
            self._process = _fork.Process(target=_child, args=(os.getpid(), self._work))
            self._process.start()

    def tell_to_stop(self) -> None:
        """Sends the process SIGTERM."""
        if self._process:
            self._process.terminate()

    def wait(self, ends: float) -> int:
        """Waits until `ends` (`time.monotonic`) for the process to end, then kills it.

        Returns its exit code, 1 if a signal ended it.
        """
        if self._process is None:
            return 0
        self._process.join(max(0.0, ends - time.monotonic()))
        if self._process.exitcode is None:
            log.error("worker %d did not stop in time and is killed", self._process.pid)
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        return 1 if code is None or code < 0 else code


def _child(parent: int, work: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        # The child stops in an orderly way when the parent ends in any way.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            return
    work()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
