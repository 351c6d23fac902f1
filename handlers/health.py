"""Health: whether a process lives, and whether everything is there that requests need to be worked on."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from connexion.lifecycle import ConnexionResponse

from handlers.problems import Problem
from handlers.responses import answer

log = logging.getLogger(__name__)

# Seconds. What does not answer within the first is away; an outcome holds for the second, as nobody needs a key to ask.
PATIENCE = 3.0
REMEMBERED = 1.0

# Raises, or returns a reason, when something is not as it should be.
Check = Callable[[], str | None]


class Health:
    """What both APIs say of themselves. `checks` are made side by side, by their names in the documents."""

    def __init__(self, checks: Mapping[str, Check], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = checks
        self._clock = clock
        # Its own, as those of the requests may all wait for an engine that hangs.
        self._threads = ThreadPoolExecutor(len(checks), "health")
        self._running: dict[str, Future[str | None]] = {}
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._failed: dict[str, str] = {}

    def alive(self) -> ConnexionResponse:
        """This process serves; no more is looked at."""
        return answer({"status": "ok"})

    async def ready(self) -> ConnexionResponse:
        """All is there. Raises Problem with what is not."""
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
        """Why each check that has failed has."""
        for name, check in self._checks.items():
            # One that hangs since an earlier time is waited for, and not begun again.
            if name not in self._running or self._running[name].done():
                self._running[name] = self._threads.submit(_made, check)
        await asyncio.wait([asyncio.wrap_future(running) for running in self._running.values()], timeout=PATIENCE)
        reasons = {
            name: running.result() if running.done() else f"no answer within {PATIENCE:g} s"
            for name, running in self._running.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}


def _made(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        # Whoever asks needs no key, and is told no more than that.
        log.warning("a check of readiness has failed: %s", error)
        return "does not answer"
