"""Thread crew: does the same to several things at once, on a few threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

Thing = TypeVar("Thing")
Outcome = TypeVar("Outcome")


class Crew:
    """At most `threads` threads, started when first needed; if that is 1, the caller's thread does everything."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def each(self, do: Callable[[Thing], Outcome], things: Sequence[Thing]) -> list[Outcome | Exception]:
        """Return what `do` returns for each thing, or the exception that it raises."""

        def attempt(thing: Thing) -> Outcome | Exception:
            try:
                return do(thing)
            except Exception as error:
                return error

        if self._threads == 1 or len(things) < 2:
            return [attempt(thing) for thing in things]
        return list(self._pool.map(attempt, things))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads)
