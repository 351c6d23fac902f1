"""Health: whether a process lives, and whether everything is there that requests need to be worked on."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from connexion.lifecycle import ConnexionResponse
from starlette.concurrency import run_in_threadpool

from handlers.answers import answer
from handlers.problems import Problem

log = logging.getLogger(__name__)

# Seconds. What does not answer within the first is away; an outcome holds for the second, as nobody needs a key to ask.
_PATIENCE = 3.0
_REMEMBERED = 1.0

# Raises, or returns a reason, when something is not as it should be.
Check = Callable[[], str | None]


class Health:
    """The operations of both APIs that need no key. `checks` are made side by side, by their names in the document."""

    def __init__(self, checks: Mapping[str, Check], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = checks
        self._clock = clock
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._failed: dict[str, str] = {}

    def get_health(self) -> ConnexionResponse:
        """This process serves; no more is looked at."""
        return answer({"status": "ok"})

    async def get_readiness(self) -> ConnexionResponse:
        """What is there and what is not."""
        async with self._checking:
            if self._clock() - self._checked_at >= _REMEMBERED:
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
        running = {name: asyncio.create_task(_made(check)) for name, check in self._checks.items()}
        await asyncio.wait(running.values(), timeout=_PATIENCE)
        reasons = {
            name: task.result() if task.done() else f"no answer within {_PATIENCE:g} s"
            for name, task in running.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}


async def _made(check: Check) -> str | None:
    try:
        return await run_in_threadpool(check)
    except Exception as error:
        # Whoever asks needs no key, and is told no more than that.
        log.warning("a check of readiness has failed: %s", error)
        return "does not answer"
