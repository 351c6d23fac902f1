"""`worker`: runs as many worker processes as told, starts anew those that die, and stops them all together."""

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

# Seconds before a worker that died is started anew: the longer, the more of them have died without one that lasted.
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
_LASTED = 60.0
_LOOK = 0.2
# Linux's name for the wish to get a signal when the parent dies.
_PR_SET_PDEATHSIG = 1
# This process has no threads, so that a fork of it is whole; what was loaded is shared by all.
_fork = multiprocessing.get_context("fork")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--concurrency", type=_positive, metavar="N", help="jobs that each process runs at once")
    parser.add_argument("--processes", type=_positive, metavar="N", help="processes; unset is one for each CPU")


def run(processes: int, work: Callable[[], None], *, grace: float) -> int:
    """Run `work` in so many processes until SIGTERM or SIGINT.

    Returns the highest of their exit codes, 0 when all have stopped by themselves. `grace` is the seconds that each
    gets for that.
    """
    # Unlike an Event, its put is safe in a signal handler.
    stop: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    places = [_Place(work) for _ in range(processes)]
    log.info("%d worker processes", processes)
    while stop.empty():
        for place in places:
            place.fill()
        with suppress(Empty):
            stop.put(stop.get(timeout=_LOOK))
    for place in places:
        place.tell_to_stop()
    ends = time.monotonic() + grace
    return max(place.wait(ends) for place in places)


class _Place:
    """The place of one process, filled again when it dies."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._deaths = 0
        self._started = self._due = 0.0
        self._process: ForkProcess | None = None

    def fill(self) -> None:
        """Start a process if there is none and it is time to."""
        now = time.monotonic()
        if self._process and self._process.exitcode is not None:
            self._deaths = 0 if now - self._started > _LASTED else self._deaths + 1
            pause = _PAUSES[min(self._deaths, len(_PAUSES)) - 1] if self._deaths else 0.0
            log.error("worker %d ended with %d, the next in %g s", self._process.pid, self._process.exitcode, pause)
            self._process, self._due = None, now + pause
        if self._process is None and now >= self._due:
            self._started = now
            self._process = _fork.Process(target=_child, args=(os.getpid(), self._work))
            self._process.start()

    def tell_to_stop(self) -> None:
        """Send the process SIGTERM."""
        if self._process:
            self._process.terminate()

    def wait(self, ends: float) -> int:
        """Its exit code, 1 for a signal, once it has ended, which it is made to at that time of `time.monotonic`."""
        if self._process is None:
            return 0
        self._process.join(max(0.0, ends - time.monotonic()))
        if self._process.exitcode is None:
            log.error("worker %d does not stop and is killed", self._process.pid)
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        return 1 if code is None or code < 0 else code


def _child(parent: int, work: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        # However the parent ends, the child does so too, and gives back what it has.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            return
    work()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number
