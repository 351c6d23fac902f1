"""Write repetition: while DynamoDB refuses a write, keeps its data in memory and repeats the write alone."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from persistence.errors import Conflict, Unavailable
from workers.rq_worker.running_job import count_in_share, give_back_place, is_stopping

log = logging.getLogger(__name__)

# Seconds between two writes: the first pause and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
# Seconds within which a job that waits notices that its worker stops, or that its timeout is over.
_NOTICE = 0.5
# Bytes that jobs without a permit may keep in a process. Other jobs keep their permits, so that their providers are not
# called for data that could not be written either.
_MOST_KEPT = 64 * 1024 * 1024
# The fairness group of jobs that wait for a write. No queue and no provider has such a name.
_WRITING = "datahog:write"

Written = TypeVar("Written")


class RepeatedConflict(Conflict):
    """A repeated write conflicts, perhaps with an earlier try of its own whose response was lost."""


class WriteRepetition:
    """Repeats writes until they succeed, for all jobs of a process; `most_kept` is in bytes. Safe for many threads."""

    def __init__(
        self,
        rng: random.Random,
        *,
        most_kept: int = _MOST_KEPT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rng = rng
        self._most_kept = most_kept
        self._sleep = sleep
        self._kept = 0
        self._lock = threading.Lock()

    def until_done(
        self, about: str, write: Callable[[], Written], *, kept: int = 0, answered: bool | None = None
    ) -> Written:
        """Write, and return what the write returns. Blocks this thread's job while DynamoDB is unavailable.

        `about` names the write in the log, `kept` is the bytes that it holds, `answered` is what the job would return.
        The job's call is over, so that the first repetition releases its permit, unless too much is kept already.

        Raises what the write raises: RepeatedConflict instead of Conflict once it was repeated, and Unavailable only
        when the worker stops or is not Datahog's own.
        """
        try:
            return write()
        except Unavailable as error:
            if is_stopping():
                raise
            refused = error
        given_back, pause = False, _FIRST_PAUSE
        try:
            while True:
                given_back = given_back or self._give_back(kept, answered)
                wait = pause * self._rng.uniform(0.5, 1)
                log.warning("%s: held for %.1f s, then written again: %s", about, wait, refused)
                self._wait(wait)
                try:
                    return write()
                except Unavailable as error:
                    if is_stopping():
                        raise
                    refused = error
                except Conflict as error:
                    raise RepeatedConflict(str(error)) from error
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            if given_back:
                self._keep(-kept)

    def _give_back(self, kept: int, answered: bool | None) -> bool:
        """Release the permit if the process may keep this many more bytes; returns whether it may."""
        if not self._keep(kept):
            return False
        if not count_in_share(_WRITING):
            self._keep(-kept)
            return False
        give_back_place(answered)
        return True

    def _keep(self, size: int) -> bool:
        with self._lock:
            if size > 0 and self._kept + size > self._most_kept:
                return False
            self._kept += size
            return True

    def _wait(self, seconds: float) -> None:
        """Wait in short steps: a job can be interrupted only between two of them."""
        while seconds > 0 and not is_stopping():
            self._sleep(min(seconds, _NOTICE))
            seconds -= _NOTICE
