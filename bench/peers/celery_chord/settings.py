"""The Celery application, configured for many tasks that wait on networks and must not be lost."""

import os

from celery import Celery

CONCURRENCY = int(os.environ["CONCURRENCY"])

app = Celery("peer", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    # A task is acknowledged when it has ended, and repeated when its worker dies.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Every task needs a connection to acknowledge: kombu's default of ten breaks a pool of hundreds.
    broker_transport_options={"visibility_timeout": 3600, "max_connections": CONCURRENCY + 100},
    # With late acknowledgement a worker holds this many tasks for each that it runs: the pool never waits.
    worker_prefetch_multiplier=2,
    broker_pool_limit=100,
    # The callback's task gets the results in any order, so that Redis needs no sorted set.
    result_backend_transport_options={"result_chord_ordered": False},
    result_expires=3600,
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)
