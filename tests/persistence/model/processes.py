"""Processes that take turns: each runs until it asks somebody outside, or to where its fate is, and waits there."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from persistence.records.request import Request

Result = TypeVar("Result")
Write = Callable[[Mapping[str, Any]], bool]

# Seconds. No turn takes that long, unless somebody waits for somebody whose turn it is not.
_STUCK = 20


class Killed(BaseException):
    """The process is no more; nothing handles this."""


class Fate(StrEnum):
    """What befalls a process at one of its steps: a call of DynamoDB, or of Redis."""

    PAUSE = "pause"
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"
    REFUSED = "refused"
    ANSWER_LOST = "answer lost"
    DONE_TWICE = "done twice"
    """As boto3 does when the first answer is lost."""


Interruption = tuple[int, Fate] | None
"""After how many further steps, and what."""


class Process:
    """A thread that runs on its turns only. `known` is what it was last told of each record."""

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self.name = name
        self.known: dict[str, Request] = {}
        self.asks: str | None = None
        """Whom it waits for, if it waits for somebody outside."""
        self.outcome: object = None
        self.over = False
        self.write: Write | None = None
        self.sent: bytes | None = None
        """What a provider has sent to it."""
        self._work = work
        self._wrong: BaseException | None = None
        self._killed = False
        self._reply: Any = None
        self._interruption: Interruption = None
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def __repr__(self) -> str:
        return self.name

    # For who gives the turns.

    def go_on(self, reply: Any = None, interruption: Interruption = None) -> None:
        """Give it a turn; `reply` is the answer to what it asks. Raises what was found wrong in it."""
        self._reply, self._interruption = reply, interruption
        self._turn.release()
        assert self._back.acquire(timeout=_STUCK), f"{self.name} does not come back"
        if self._wrong:
            raise self._wrong

    def kill(self) -> None:
        """Let it be no more."""
        self._killed = True
        if not self.over:
            self.go_on()

    # For what runs in it.

    def ask(self, whom: str) -> Any:
        """Wait for the answer of somebody outside."""
        self.asks = whom
        reply = self._wait()
        self.asks = None
        return reply

    def step(self, do: Callable[[], Result], unavailable: Exception) -> Result:
        """Do it, unless fate will have it otherwise."""
        fate = self._fate()
        if fate is Fate.PAUSE:
            self._wait()
            fate = self._fate()
        if fate is Fate.DIE_BEFORE:
            raise Killed
        if fate is Fate.REFUSED:
            raise unavailable
        result = do()
        if fate is Fate.DONE_TWICE:
            result = do()
        if fate is Fate.DIE_AFTER:
            raise Killed
        if fate is Fate.ANSWER_LOST:
            raise unavailable
        return result

    @contextmanager
    def writing(self, write: Write) -> Iterator[None]:
        """What is written to a request in this block is what `write` makes of the model, given the write's values."""
        self.write = write
        try:
            yield
        finally:
            self.write = None

    @contextmanager
    def checking(self) -> Iterator[None]:
        """What is found wrong in this block ends the process: no handler may take it for a fault."""
        try:
            yield
        except AssertionError as error:
            self._wrong = error
            raise Killed from error

    def _wait(self) -> Any:
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed
        return self._reply

    def _fate(self) -> Fate | None:
        if self._interruption is None:
            return None
        left, fate = self._interruption
        self._interruption = (left - 1, fate) if left else None
        return None if left else fate

    def _run(self) -> None:
        self._turn.acquire()
        _running.process = self
        try:
            self.outcome = self._work()
        except Killed:
            self.outcome = "killed"
        except BaseException as error:
            self._wrong = error
        self.over = True
        self._back.release()


_running = threading.local()


def current() -> Process:
    """The process that this thread runs."""
    process: Process = _running.process
    return process
