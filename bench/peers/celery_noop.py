"""Celery alone: a task that does nothing; `python -m bench.peers.celery_noop <count>` enqueues it so often."""

import os
import sys

from celery import Celery

app = Celery("noop", broker=os.environ["REDIS_URL"])
app.conf.update(
    # As durable as in the chord: a task is repeated when its worker dies.
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)


def _noop() -> None:
    """Do nothing."""


noop = app.task(_noop, name="noop")

if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(int(sys.argv[1])):
            noop.apply_async(producer=producer)
