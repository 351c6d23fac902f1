"""Steps for the worker's tests, and what Redis says became of them."""

import time
from datetime import UTC, datetime
from typing import Any

import redis
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from tests.support.system import eventually
from tests.support.workers.job_functions import ran
from workers.queue import QUEUES, Step

DELIVER, SUBMIT, FETCH = QUEUES


def step(
    function: str,
    *args: str,
    job_id: str = "",
    queue: str = FETCH,
    wait: float | None = None,
    provider: str | None = None,
) -> Step:
    """A step that calls one of the job functions, after so many seconds; its id is the first argument."""
    at = None if wait is None else datetime.fromtimestamp(time.time() + wait, UTC)
    return Step(queue, function, args, job_id or args[0], at, provider)


def names(connection: "redis.Redis") -> list[str]:
    """Which jobs have run to their end, in that order."""
    return [name for name, _ in ran(connection)]


def running(connection: "redis.Redis", queue: str = FETCH) -> int:
    """How many jobs a worker holds."""
    return int(connection.zcard(f"rq:wip:{queue}"))


def queued(connection: "redis.Redis", queue: str) -> list[str]:
    """The ids of the jobs that are due."""
    rows: list[Any] = connection.lrange(f"rq:queue:{queue}", 0, -1)
    return [job_id.decode() for job_id in rows]


def scheduled(connection: "redis.Redis", queue: str) -> list[str]:
    """The ids of the jobs that are delayed."""
    rows: Any = connection.zrange(f"rq:scheduled:{queue}", 0, -1)
    return [job_id.decode() for job_id in rows]


def status(connection: "redis.Redis", job_id: str) -> Any:
    """What Redis says of a job."""
    return connection.hget(f"rq:job:{job_id}", "status")


def leftovers(connection: "redis.Redis") -> list[bytes]:
    """Whatever is left in Redis of jobs."""
    kinds = ("rq:job:*", "rq:queue:*", "rq:wip:*", "rq:scheduled:*", "rq:failed:*", "rq:results:*", "rq:executions:*")
    return [key for kind in kinds for key in connection.scan_iter(kind)]


def failure(connection: "redis.Redis", job_id: str) -> str:
    """Why RQ says that a job has failed, once it does."""
    registry = FailedJobRegistry(FETCH, connection=connection, serializer=JSONSerializer)
    eventually(lambda: job_id in registry, 10)
    job = Job.fetch(job_id, connection=connection, serializer=JSONSerializer)
    assert job.get_status() == "failed"
    result = job.latest_result()
    assert result
    assert result.exc_string
    return result.exc_string
