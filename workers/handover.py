"""Requests that have just ended, kept in this process for a moment: the delivery that follows need not read them."""

import time
from collections.abc import Callable

from persistence.records import Request

# Seconds. Whatever may have changed since, each write is conditional.
_KEPT = 5.0
_MOST = 1000


class Handover:
    """Keeps what fetch has ended for deliver to take. Safe for many threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: dict[str, tuple[float, Request]] = {}

    def give(self, request: Request) -> None:
        """Keep a request."""
        if len(self._requests) >= _MOST:
            # Other processes deliver them, or nobody does: none of them is needed.
            self._requests.clear()
        self._requests[request.request_id] = self._clock() + _KEPT, request

    def take(self, request_id: str) -> Request | None:
        """The request, once, if it was given a moment ago."""
        until, request = self._requests.pop(request_id, (0.0, None))
        return request if until > self._clock() else None
