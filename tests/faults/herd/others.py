"""Creates requests of another provider at a steady rate, independent of earlier ones, and measures each."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import requests

import specs
from specs.operations import operations
from tests.faults.herd.world import OTHER, World
from tests.support.system import AUTHORIZED, System

# Threads.
_PEOPLE = 64


class Others:
    """Creates `rate` requests a second while its block runs. A request's time counts from when it was due."""

    def __init__(self, system: System, world: World, *, rate: float) -> None:
        self._url = system.settings.aggregator_url + operations(specs.AGGREGATOR)["createRequest"].target({})
        self._world = world
        self._rate = rate
        self._stop = threading.Event()
        self._asked: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run)
        self._sessions = threading.local()

    def took(self, begun: float, ended: float) -> Sequence[float | None]:
        """Seconds to the callback of each request that was due in that time, the shortest first; None: no callback."""
        of_it = [(name, at) for name, at in list(self._asked.items()) if begun <= at < ended]
        times = [self._world.received[name][0] - at if self._world.received[name] else None for name, at in of_it]
        return sorted(times, key=lambda seconds: float("inf") if seconds is None else seconds)

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        with ThreadPoolExecutor(_PEOPLE) as people:
            for number in itertools.count():
                at = started + number / self._rate
                if self._stop.wait(max(0.0, at - time.monotonic())):
                    return
                self._asked[f"other-{number}"] = at
                people.submit(self._ask, f"other-{number}")

    def _ask(self, name: str) -> None:
        if not hasattr(self._sessions, "own"):
            self._sessions.own = requests.Session()
        body = {"providers": [OTHER], "callbackUrl": self._world.hook_url(name)}
        self._sessions.own.post(self._url, json=body, headers=AUTHORIZED, timeout=30)
