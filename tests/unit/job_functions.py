"""What the jobs of the worker's tests do. They write to the Redis of DATAHOG_REDIS_URL what happened, and when."""

import json
import os
import time
from functools import cache
from typing import Any

import redis

from persistence.dynamodb import Unavailable
from workers.later import Later

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


def first(name: str) -> bool:
    """Whether this is the first call with the name."""
    return connection().incr(_calls(name)) == 1


def begun(given: "redis.Redis", name: str) -> bool:
    """Whether a job that asks for its first call has asked."""
    return given.exists(_calls(name)) == 1


def _calls(name: str) -> str:
    return f"test:calls:{name}"


def later(name: str, wait: str) -> Later | None:
    """Ask to come again the first time, and tell the second."""
    if first(name):
        connection().set(f"test:asked:{name}", time.time())
        return Later(float(wait))
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
