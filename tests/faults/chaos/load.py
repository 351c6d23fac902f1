"""The load: requests at a steady rate, whatever becomes of the earlier ones, through the client and past it."""

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

# Each is asked by one request at a time: it is the turn of so many others before it is asked again.
PROVIDERS = tuple(f"p{number:03}" for number in range(400))
_PEOPLE = 64
_PATIENCE = 10
# Who names an Idempotency-Key may repeat what was not answered, and does so this often, and after this pause.
_REPEATS, _PAUSE = 4, 1.0


@dataclass(frozen=True)
class Asked:
    """A request as it was asked: of which API, when, and under which id it was accepted, if it was.

    `hook` is where its callback goes; the client has one of its own.
    """

    api: str
    hook: str
    providers: tuple[str, ...]
    at: float
    request_id: str | None


class Load:
    """Asks `rate` times a second, in turn the client and the aggregator, until `stop` is set."""

    def __init__(self, system: System, world: World, rate: float, stop: threading.Event) -> None:
        self._system = system
        self._world = world
        self._rate = rate
        self._stop = stop

    def run(self, seconds: float) -> list[Asked]:
        """Ask for so long; returns what was asked, accepted or not."""
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
