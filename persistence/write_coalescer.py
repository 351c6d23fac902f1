"""The write coalescer: calls about one key that several threads make at the same moment are made together by one."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from persistence.errors import Unavailable

Call = TypeVar("Call")
Outcome = TypeVar("Outcome")


class _Waiting(Generic[Call, Outcome]):
    """A call on its way. What is put into `answers` is its answer, or the exception to raise."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.settled = threading.Event()
        self.answer: Outcome | Exception

    def settle(self, answer: Outcome | Exception) -> None:
        self.answer = answer
        self.settled.set()


class WriteCoalescer(Generic[Call, Outcome]):
    """Makes calls. The first about a key is made at once; those that come until it is answered are made together then.

    `make` makes at most `most` calls about one key, and returns an answer, or the exception to raise, for each.
    """

    def __init__(self, make: Callable[[Sequence[Call]], Sequence[Outcome | Exception]], *, most: int) -> None:
        self._make = make
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiting[Call, Outcome]]] = {}

    def __call__(self, key: str, call: Call) -> Outcome:
        """The answer to a call. Raises what the call does."""
        own: _Waiting[Call, Outcome] = _Waiting(call)
        with self._lock:
            others = self._waiting.get(key)
            if others is None:
                self._waiting[key] = []
            else:
                others.append(own)
        if others is None:
            self._lead(key, own)
        else:
            own.settled.wait()
        if isinstance(own.answer, Exception):
            raise own.answer
        return own.answer

    def _lead(self, key: str, own: _Waiting[Call, Outcome]) -> None:
        """Make the own call, and then those that have come meanwhile, until none has."""
        batch = [own]
        try:
            while batch:
                answers = self._make([waiting.call for waiting in batch])
                for waiting, answer in zip(batch, answers, strict=True):
                    waiting.settle(answer)
                batch = self._next(key)
        except BaseException as error:
            # Nobody may wait for ever, whatever befalls this thread.
            with self._lock:
                left = [*batch, *self._waiting.pop(key)]
            for waiting in left:
                waiting.settle(Unavailable(f"DynamoDB: a joint call was given up: {error!r}"))
            if own in left:
                raise

    def _next(self, key: str) -> list[_Waiting[Call, Outcome]]:
        with self._lock:
            waiting = self._waiting[key]
            batch, self._waiting[key] = waiting[: self._most], waiting[self._most :]
            if not batch:
                del self._waiting[key]
            return batch
