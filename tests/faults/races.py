"""`python -m tests.faults.races --times 1000`: 64 workers complete the last jobs of one request at once, many times."""

import argparse
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from datahog.bootstrap.wiring import Wiring
from datahog.settings import Settings
from outbound.http_client import Http, HttpResponse
from persistence.dynamodb.schema import create_tables
from persistence.records.job import Attempt
from persistence.records.request import DeliveryStatus, Request, RequestStatus
from persistence.records.timestamps import to_text, utc_now
from providers.model import Provider
from tests.support.engines.queue_state import QueueState
from tests.support.servers.receiver import Receiver
from tests.support.system import System, system_settings
from workers.fetch import Fetch
from workers.queue import QUEUES

PROCESSES, THREADS = 4, 16
SIZES = (1, 50)
"""Numbers of providers of a request: with one, all workers complete the same job; with fifty, a few share each."""

_DEADLINE = to_text(utc_now() + timedelta(days=1))
# Seconds until a race has failed.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Race:
    """One race: its request, number of providers, seconds, and a line for each error."""

    request_id: str
    size: int
    seconds: float
    wrong: Sequence[str]


class _Together(Http):
    """Providers that all respond at the same moment."""

    def __init__(self, moment: Barrier) -> None:
        self._moment = moment

    def send(self, *_: Any, **__: Any) -> HttpResponse:
        """Respond once all workers have called."""
        self._moment.wait(_PATIENCE)
        return HttpResponse(200, {}, b'{"amount": 22.27}')


class _Workers:
    """State shared by the processes: barriers for begin, call and end, and the requests that workers have ended."""

    def __init__(self, processes: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.threads = threads
        callers = processes * threads
        self.begin, self.asked, self.done = (context.Barrier(callers + more) for more in (1, 0, 1))
        self.ended = context.SimpleQueue()


def conduct(
    settings: Settings, sizes: Sequence[int], *, processes: int = PROCESSES, threads: int = THREADS
) -> list[Race]:
    """Run one race after the other, each for a request with the next of the `sizes` as its number of providers."""
    workers = _Workers(processes, threads)
    context = multiprocessing.get_context("spawn")
    wiring = Wiring(settings, {})
    create_tables(wiring.dynamodb, settings.table_prefix)
    with Receiver() as receiver:
        plan = [(f"race-{number}-{size}", size) for number, size in enumerate(sizes)]
        running = [
            context.Process(target=_work, args=(settings, plan, workers, number), daemon=True)
            for number in range(processes)
        ]
        for process in running:
            process.start()
        try:
            return [_race(wiring, workers, receiver, *each) for each in plan]
        finally:
            for process in running:
                process.kill()
                process.join()


def _race(wiring: Wiring, workers: _Workers, receiver: Receiver, request_id: str, size: int) -> Race:
    path = f"/callbacks/{request_id}"
    providers = [(f"p{number}", f"http://p{number}") for number in range(size)]
    deadline = utc_now() + timedelta(days=1)
    wiring.requests.create(request_id, providers, receiver.url(path), deadline=deadline, content={})
    workers.begin.wait(_PATIENCE)
    started = time.monotonic()
    workers.done.wait(_PATIENCE)
    seconds = time.monotonic() - started
    told = []
    while not workers.ended.empty():
        told.append(workers.ended.get())
    request = wiring.requests.get(request_id)
    left = [key for name in QUEUES for key in (f"rq:queue:{name}", f"rq:scheduled:{name}") if wiring.redis.exists(key)]
    left += QueueState.read(wiring.redis).violations()
    return Race(request_id, size, seconds, _wrong(request, told, [c.webhook_id for c in receiver.calls(path)], left))


def _wrong(request: Request, told: Sequence[str], delivered: Sequence[str], left: Sequence[str]) -> list[str]:
    """A line for each error of a request after its race."""
    size = len(request.jobs)
    expected: dict[str, tuple[object, object]] = {
        "workers that ended it": (told, [request.request_id]),
        "delivered": (delivered, [request.delivery.webhook_id]),
        "status": (request.status, RequestStatus.COMPLETE),
        "delivery": ((request.delivery.status, request.delivery.attempts), (DeliveryStatus.SUCCEEDED, 1)),
        "attempts": ({job.attempts for job in request.jobs}, {1}),
        "results": (sum(job.result is not None for job in request.jobs), size),
        "left on the queue": (left, []),
    }
    wrong = [f"{name}: {found}" for name, (found, right) in expected.items() if found != right]
    # One write creates the request, one records its delivery, and at most one completes each job.
    return wrong + ([f"written {request.version} times"] if request.version > size + 2 else [])


def _work(settings: Settings, plan: Sequence[tuple[str, int]], workers: _Workers, process: int) -> None:
    """One process of workers that share a wiring, as the threads of Datahog's worker do."""
    wiring = Wiring(settings, {})
    first = wiring.deliver.first

    def deliver(request: Request) -> None:
        workers.ended.put(request.request_id)
        first(request)

    setattr(wiring.deliver, "first", deliver)  # noqa: B010 (mypy refuses the assignment)
    fetch = Fetch(
        wiring.requests,
        wiring.queue,
        {f"p{number}": Provider(url="http://nobody") for number in range(max(SIZES))},
        _Together(workers.asked),
        wiring.deliver,
        result_limit=1000,
        rng=random.Random(),
    )

    def work(number: int) -> None:
        for request_id, size in plan:
            index = number % size
            workers.begin.wait(_PATIENCE)
            fetch(Attempt(request_id, f"p{index}", index, 0, 1, _DEADLINE), utc_now())
            workers.done.wait(_PATIENCE)

    own = range(process * workers.threads, (process + 1) * workers.threads)
    threads = [threading.Thread(target=work, args=(number,)) for number in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    """Run and report; returns the exit code: 0 when all races were clean."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.races", description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="races for each number of providers [1000]")
    times = parser.parse_args().times
    directory = tempfile.TemporaryDirectory(prefix="datahog-races-")
    with directory as name, System(system_settings(Path(name))) as system:
        system.start("dynamodb", "redis")
        races = conduct(system.settings, SIZES * times)
    return report(races)


def report(races: Sequence[Race]) -> int:
    """Print the outcomes; returns 1 if a race was not clean, else 0."""
    print(f"{PROCESSES} processes of {THREADS} threads complete the jobs of one request at the same moment:")
    for size in SIZES:
        of_size = sorted((race for race in races if race.size == size), key=lambda race: race.seconds)
        clean = sum(not race.wrong for race in of_size)
        middle, last = of_size[len(of_size) // 2].seconds, of_size[-1].seconds
        print(
            f"  {size} providers: {clean} of {len(of_size)} ended once and were delivered once; "
            f"{middle * 1000:.0f} ms at the median, {last * 1000:.0f} ms at most"
        )
    for race in races:
        for wrong in race.wrong:
            print(f"  {race.request_id}: {wrong}")
    return int(any(race.wrong for race in races))


if __name__ == "__main__":
    sys.exit(main())
