"""The load: requests at a steady rate, independent of earlier ones, to the client and directly to the aggregator."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

import specs
from specs.operations import operations
from tests.faults.chaos.world import World
from tests.support.system import AUTHORIZED, System

# So many that one request at a time asks each: all the others have their turn first.
PROVIDERS = tuple(f"p{number:03}" for number in range(400))
# Threads.
_PEOPLE = 64
# Seconds: the timeout of a call.
_PATIENCE = 10
# A caller with an Idempotency-Key repeats a call without a response this many times, after this pause in seconds.
_REPEATS, _PAUSE = 4, 1.0


@dataclass(frozen=True)
class Asked:
    """A request as it was asked: the API, the time (`time.time`), and the id, or None if no API accepted it.

    `hook` names the receiver of its callback; the client uses its own.
    """

    api: str
    hook: str
    providers: tuple[str, ...]
    at: float
    request_id: str | None


class Load:
    """Creates `rate` requests a second, at the client and the aggregator in turn, until `stop` is set."""

    def __init__(self, system: System, world: World, rate: float, stop: threading.Event) -> None:
        self._system = system
        self._world = world
        self._rate = rate
        self._stop = stop

    def run(self, seconds: float) -> list[Asked]:
        """Create requests for `seconds`; returns all of them, accepted or not."""
        names = itertools.cycle(PROVIDERS)
        asking: list[Future[Asked]] = []
        started = time.monotonic()
        with ThreadPoolExecutor(_PEOPLE) as people:
            for number in range(int(seconds * self._rate)):
                if self._stop.wait(max(0.0, started + number / self._rate - time.monotonic())):
                    break
                api = specs.CLIENT if number % 2 else specs.AGGREGATOR
                providers = tuple(itertools.islice(names, 1 + number % 3))
                asking.append(people.submit(self._ask, api, f"h{number}", providers))
        return [asked.result() for asked in asking]

    def _ask(self, api: str, hook: str, providers: tuple[str, ...]) -> Asked:
        at = time.time()
        body: dict[str, Any] = {"providers": providers}
        headers = dict(AUTHORIZED)
        repeats = 0
        if api == specs.AGGREGATOR:
            body["callbackUrl"] = self._world.hook_url(hook)
            headers["Idempotency-Key"] = hook
            repeats = _REPEATS
        answers = (answer for answer in self._answers(api, headers, body, repeats) if answer.status_code == 202)
        accepted = next(answers, None)
        return Asked(api, hook, providers, at, accepted.json()["requestId"] if accepted is not None else None)

    def _answers(
        self, api: str, headers: dict[str, str], body: dict[str, Any], repeats: int
    ) -> Iterator[requests.Response]:
        operation = operations(api)["createRequest"]
        port = {
            specs.CLIENT: self._system.settings.client_port,
            specs.AGGREGATOR: self._system.settings.aggregator_port,
        }
        url = f"http://127.0.0.1:{port[api]}{operation.target({})}"
        for repeat in range(1 + repeats):
            if repeat:
                time.sleep(_PAUSE)
            try:
                yield requests.post(url, json=body, headers=headers, timeout=_PATIENCE)
            except requests.RequestException:
                continue
