"""Limits over worker processes on a real Valkey: they hold when workers are killed, and no provider delays another."""

import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis

from providers.model import Provider
from tests.support.engines.rq_state import DELIVER, SUBMIT, leftovers, names, running, step
from tests.support.system import eventually
from tests.support.workers.job_functions import ran
from tests.support.workers.worker_process import StartWorker
from workers.queue import Queue


class Visited:
    """A server that takes 0.3 s for each call and counts concurrent calls."""

    def __init__(self) -> None:
        self.inside = self.peak = 0
        lock = threading.Lock()
        visited = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    visited.inside += 1
                    visited.peak = max(visited.peak, visited.inside)
                time.sleep(0.3)
                with lock:
                    visited.inside -= 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def visited() -> Iterator[Visited]:
    made = Visited()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()


def test_the_limit_holds_while_worker_processes_are_killed(
    connection: "redis.Redis", queue: Queue, start: StartWorker, providers: dict[str, Provider], visited: Visited
) -> None:
    providers["gas"] = Provider(url="http://x", concurrency=3)
    expected = [f"job-{number}" for number in range(40)]
    workers = [start(lease=1, concurrency=20) for _ in range(2)]

    queue.put(*(step("visit", name, visited.url, provider="gas") for name in expected))
    for count in (3, 9):
        eventually(lambda least=count: len(ran(connection)) >= least)  # type: ignore[misc]
        victim = workers.pop(0)
        victim.send(signal.SIGKILL)
        victim.exit_code()
        workers.append(start(lease=1, concurrency=20))

    eventually(lambda: set(names(connection)) == set(expected))
    eventually(lambda: not leftovers(connection))
    assert visited.peak == 3
    assert connection.zcard("rq:rl:gas:allowed") == 0


def test_a_provider_with_thousands_waiting_delays_no_other(
    connection: "redis.Redis", queue: Queue, start: StartWorker, providers: dict[str, Provider]
) -> None:
    # The limit of `hog` is too high to protect others; only the fairness groups of a worker do.
    providers["slow"] = Provider(url="http://x", concurrency=50)
    providers["hog"] = Provider(url="http://x", concurrency=10_000)
    providers["quick"] = Provider(url="http://x", concurrency=50)
    start(concurrency=100)
    for first in range(0, 5000, 1000):
        numbers = range(first, first + 1000)
        queue.put(*(step("note", f"slow-{number}", "60", provider="slow") for number in numbers))
        queue.put(*(step("note", f"hog-{number}", "60", provider="hog") for number in numbers))
    time.sleep(1)

    started = time.time()
    queue.put(*(step("note", f"quick-{number}", provider="quick") for number in range(20)))
    eventually(lambda: len(ran(connection)) == 20)

    assert max(began - started for _, began in ran(connection)) < 1


@pytest.mark.parametrize("hung", [DELIVER, SUBMIT])
def test_a_hung_receiver_or_aggregator_does_not_block_fetches(
    connection: "redis.Redis", queue: Queue, start: StartWorker, hung: str
) -> None:
    start(concurrency=20)
    queue.put(*(step("note", f"hung-{number}", "60", queue=hung) for number in range(100)))
    eventually(lambda: running(connection, hung) >= 16)

    queue.put(*(step("note", f"quick-{number}") for number in range(20)))

    eventually(lambda: len(ran(connection)) == 20)
    assert running(connection, hung) == 16
