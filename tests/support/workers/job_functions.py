"""What the jobs of the worker's tests do. They write to the Redis of DATAHOG_REDIS_URL what happened, and when."""

import asyncio
import json
import os
import time
from functools import cache
from typing import Any

import redis
import requests
from rq import Retry, get_current_job
from rq.job import Job

from persistence.errors import Unavailable
from workers.rq_worker.run_again import RunAgain
from workers.rq_worker.running_job import give_back_place

RAN = "test:ran"


@cache
def connection() -> "redis.Redis":
    return redis.Redis.from_url(os.environ["DATAHOG_REDIS_URL"])


def ran(given: "redis.Redis") -> list[tuple[str, float]]:
    """Which jobs have run to their end, in that order, and when they began."""
    rows: list[Any] = given.lrange(RAN, 0, -1)
    return [tuple(json.loads(row)) for row in rows]


def note(name: str, seconds: str = "0") -> None:
    """Take that long, and tell."""
    began = time.time()
    inside = connection().incr("test:inside")
    connection().zadd("test:peaks", {str(inside): inside})
    time.sleep(float(seconds))
    connection().decr("test:inside")
    connection().rpush(RAN, json.dumps([name, began]))


def answered(name: str, seconds: str, told: bool) -> bool:
    """Take that long, and say whether what was asked has answered."""
    note(name, seconds)
    return told


def give_back(name: str, seconds: str) -> bool:
    """Give the place back, and take that long."""
    give_back_place(True)
    note(name, seconds)
    return True


def first(name: str) -> bool:
    """Whether this is the first call with the name."""
    return connection().incr(_calls(name)) == 1


def begun(given: "redis.Redis", name: str) -> bool:
    """Whether a job that asks for its first call has asked."""
    return given.exists(_calls(name)) == 1


def _calls(name: str) -> str:
    return f"test:calls:{name}"


def later(name: str, wait: str) -> RunAgain | None:
    """Ask to come again the first time, and tell the second."""
    if first(name):
        connection().set(f"test:asked:{name}", time.time())
        return RunAgain(float(wait))
    note(name)
    return None


def hang(name: str) -> None:
    """Never end the first time, and tell the second."""
    note(name, "60" if first(name) else "0")


def unavailable(name: str) -> None:
    """Find no DynamoDB the first time, and tell the second."""
    if first(name):
        raise Unavailable("DynamoDB: away")
    note(name)


def broken() -> None:
    """Raise."""
    raise RuntimeError("this job is poisoned")


def leave() -> None:
    """Raise what is no Exception."""
    raise SystemExit("gone")


def broken_later(seconds: str) -> None:
    """Raise after a while."""
    time.sleep(float(seconds))
    raise RuntimeError("this job is poisoned")


def give(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what came."""
    return {"args": list(args), "kwargs": kwargs}


async def note_later(name: str) -> str:
    """Tell from a coroutine."""
    await asyncio.sleep(0.01)
    note(name)
    return name


def again(name: str, wait: int) -> Retry | None:
    """Ask RQ for another run the first time, and tell the second."""
    if first(name):
        return Retry(max=1, interval=wait)
    note(name)
    return None


def fail_each_time(name: str) -> None:
    """Raise, and count."""
    calls = connection().incr(_calls(name))
    raise RuntimeError(f"failed {calls} times")


def fail_once(name: str) -> None:
    """Raise the first time, and tell the second."""
    if first(name):
        raise RuntimeError("not yet")
    note(name)


def fail_with(reason: str) -> None:
    """Raise for that reason."""
    raise RuntimeError(reason)


def spin() -> None:
    """Never end, and never wait."""
    while True:
        pass


def mark_progress() -> None:
    """Write into the own job how far it is."""
    job = get_current_job()
    assert job
    job.meta["progress"] = 0.5
    job.save_meta()  # type: ignore[no-untyped-call]


def on_success(job: Job, _: "redis.Redis", result: Any) -> None:
    """Tell which job has succeeded, and how."""
    connection().rpush("test:callbacks", json.dumps(["success", job.id, result]))


def on_failure(job: Job, _: "redis.Redis", __: type[BaseException], error: BaseException, ___: Any) -> None:
    """Tell which job has failed, and why."""
    connection().rpush("test:callbacks", json.dumps(["failure", job.id, str(error)]))


def refuse(_job: Job, _connection: "redis.Redis", _result: Any) -> None:
    """A callback that raises."""
    raise ValueError("the callback refused")


def callbacks(given: "redis.Redis") -> list[Any]:
    """What the callbacks have told."""
    rows: list[Any] = given.lrange("test:callbacks", 0, -1)
    return [json.loads(row) for row in rows]


def visit(name: str, url: str) -> bool:
    """Ask the server of the test, and tell."""
    answered = requests.get(url, timeout=10).ok
    note(name)
    return answered
