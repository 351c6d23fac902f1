"""Health checks: whether the process is alive, and whether all that requests need is there."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from connexion.lifecycle import ConnexionResponse

from handlers.problems import Problem
from handlers.responses import answer

log = logging.getLogger(__name__)

# Seconds after which a check without an outcome has failed.
PATIENCE = 3.0
# Seconds for which an outcome holds. Callers need no key, so their calls must not cause checks at any rate.
REMEMBERED = 1.0

# Returns None when all is well. Returns the reason, or raises, when the check fails.
Check = Callable[[], str | None]


class Health:
    """Serves the health operations of both APIs. `checks`, by their names in the documents, run concurrently."""

    def __init__(self, checks: Mapping[str, Check], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = checks
        self._clock = clock
        # Not the shared thread pool: all of its threads may wait for an engine that hangs.
        self._threads = ThreadPoolExecutor(len(checks), "health")
        self._running: dict[str, Future[str | None]] = {}
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._failed: dict[str, str] = {}

    def alive(self) -> ConnexionResponse:
        """Responds with 200; checks nothing."""
        return answer({"status": "ok"})

    async def ready(self) -> ConnexionResponse:
        """Responds with 200 when all checks pass. Raises Problem (503) with the reasons of those that fail."""
        async with self._checking:
            if self._clock() - self._checked_at >= REMEMBERED:
                self._failed = await self._check_all()
                self._checked_at = self._clock()
            failed = self._failed
        checks = {name: "failed" if name in failed else "ok" for name in self._checks}
        if failed:
            detail = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise Problem("not-ready", detail, headers={"Retry-After": "2"}, checks=checks)
        return answer({"status": "ready", "checks": checks})

    async def _check_all(self) -> dict[str, str]:
        """Returns the reason of each failed check, by its name."""
        for name, check in self._checks.items():
            # A check that still hangs from an earlier call is not started again.
            if name not in self._running or self._running[name].done():
                self._running[name] = self._threads.submit(_made, check)
        await asyncio.wait([asyncio.wrap_future(running) for running in self._running.values()], timeout=PATIENCE)
        reasons = {
            name: running.result() if running.done() else f"no response within {PATIENCE:g} s"
            for name, running in self._running.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}


def _made(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        # The caller has no key, so the response does not contain the error.
        log.warning("a readiness check failed: %s", error)
        return "does not answer"
