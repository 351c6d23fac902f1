"""Caches the names of the aggregator's providers, so that the client can refuse unknown ones at once."""

import logging
import threading
import time

from outbound.http_client import HttpError
from outbound.openapi_caller import Operations

log = logging.getLogger(__name__)

# Seconds for which a list of names holds.
_HOLDS = 60.0
# Seconds without another call to the aggregator, after a response and after a failure.
_ANSWERED, _SILENT = 1.0, 5.0


class KnownProviders:
    """Reads the names from the aggregator and caches them. While it is away, all names pass: it refuses them later."""

    def __init__(self, aggregator: Operations) -> None:
        self._aggregator = aggregator
        self._asking = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._hold_until = 0.0
        self._ask_after = 0.0

    def unknown(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Returns those of the names that the aggregator does not know, and all names that it knows."""
        if self._is_in_doubt(names):
            with self._asking:
                if self._is_in_doubt(names):
                    self._ask()
        if time.monotonic() >= self._hold_until:
            return [], sorted(self._names)
        return [name for name in names if name not in self._names], sorted(self._names)

    def _is_in_doubt(self, names: list[str]) -> bool:
        now = time.monotonic()
        return now >= self._ask_after and (now >= self._hold_until or not self._names.issuperset(names))

    def _ask(self) -> None:
        try:
            reply = self._aggregator.call("listProviders")
        except HttpError as error:
            log.warning("providers not checked: %s", error)
            reply = None
        now = time.monotonic()
        if reply is None or not reply.ok:
            self._ask_after = now + _SILENT
            return
        self._names = frozenset(provider["name"] for provider in reply.document["providers"])
        self._hold_until, self._ask_after = now + _HOLDS, now + _ANSWERED
