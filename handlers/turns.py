"""Turns: of the callbacks of one request a process takes one at a time, and tells others to come again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.problems import Problem

# Seconds.
_COME_AGAIN = 5


class Turns:
    """Whose turn it is. A result of many megabytes takes longer to keep than who posts it may wait.

    Each repetition would do all of the work again at the same time, and make every one of them later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    @contextmanager
    def of(self, request_id: str) -> Iterator[None]:
        """Around what is done for a request. Raises Problem (503) while it is done for the same one already."""
        with self._lock:
            if request_id in self._taken:
                detail = f"a result of {request_id} is being written down; try again soon"
                raise Problem("unavailable", detail, headers={"Retry-After": str(_COME_AGAIN)})
            self._taken.add(request_id)
        try:
            yield
        finally:
            with self._lock:
                self._taken.discard(request_id)
