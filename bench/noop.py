"""The queue alone: a job that does nothing, and Datahog's worker that runs it."""

import os

QUEUE = "noop"


def noop(*_: object) -> None:
    """Do nothing."""


if __name__ == "__main__":
    # Imported here: RQ's forking worker imports this module for each job, and must not pay for Datahog's worker.
    import redis

    from workers.rq_worker.worker import ConcurrentWorker

    ConcurrentWorker(
        [QUEUE], redis.Redis.from_url(os.environ["REDIS_URL"]), concurrency=int(os.environ["CONCURRENCY"]), grace=1
    ).run()
