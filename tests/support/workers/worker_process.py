"""A process that runs one worker, and what the tests do with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import redis

from tests.support.system import eventually
from workers.queue import QUEUES
from workers.rq_worker.worker import ConcurrentWorker

# Of the worker that the tests of a module share.
CONCURRENCY = 4
ROOT = Path(__file__).parents[3]


class WorkerProcess:
    """A worker in a process of its own, once it is ready; leaving its block kills it."""

    def __init__(
        self,
        redis_url: str,
        log: Path,
        *,
        concurrency: float = 4,
        grace: float = 10,
        lease: float = 25,
        ready: str = "jobs at once",
    ) -> None:
        self._log = log
        command = [sys.executable, "-m", __name__, redis_url, str(concurrency), str(grace), str(lease)]
        environment = os.environ | {"DATAHOG_REDIS_URL": redis_url}
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        eventually(lambda: ready in self.log or not self.runs, 20)
        assert self.runs, self.log

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 20) -> int:
        """How it ended, which it must within the time."""
        return self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


StartWorker = Callable[..., WorkerProcess]


def main(url: str, concurrency: str, grace: str, lease: str) -> None:
    """The process itself."""
    import logging

    logging.basicConfig(level="INFO")
    connection = redis.Redis.from_url(url, socket_timeout=2)
    ConcurrentWorker(QUEUES, connection, concurrency=int(concurrency), grace=float(grace), lease=float(lease)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
