"""`python -m tests.support.workers.freezing worker`: as `python -m datahog worker`, but it freezes once, badly timed.

The first process that has written down a failed attempt at the provider FREEZES stops before it puts the next one on
the queue, until it is let go on. Its id is in the file `frozen` of the data directory.
"""

import os
import signal
import sys
import time
from pathlib import Path

from datahog import cli
from workers import queue

FREEZES = "freezes"

_put = queue.Queue.put


def _put_late(self: queue.Queue, *steps: queue.Step) -> None:
    if any(step.provider == FREEZES for step in steps):
        try:
            with (Path(os.environ["DATAHOG_DATA_DIR"]) / "frozen").open("x") as file:
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGSTOP)
            # It is some thread that takes the signal, and then all are stopped: not before this one goes on.
            time.sleep(0.5)
    _put(self, *steps)


if __name__ == "__main__":
    setattr(queue.Queue, "put", _put_late)  # noqa: B010 (mypy would not have it otherwise)
    sys.exit(cli.main())
