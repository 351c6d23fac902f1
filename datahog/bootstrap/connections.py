"""Connections to DynamoDB and Redis: how many a process may have, and how soon each is given up on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from datahog.settings import Settings, SettingsError

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

# The most connections that one process opens to DynamoDB, and to Redis; who needs one more waits. An API has 40 threads
# that may want one, a worker has hundreds, but none holds one for longer than a call takes.
_CONNECTIONS = 50
# How long Redis has to answer, an idle connection is trusted, and a caller that finds all connections in use waits for
# one. The last is so short that nobody waits for a connection and for Redis, too: when it begins to hang, the first
# connection is given back after two seconds. A pool's connections repeat nothing, whatever the client's defaults are.
_REDIS_SECONDS = {"socket_connect_timeout": 2, "socket_timeout": 2, "health_check_interval": 15, "timeout": 1}
# The event loop of an API keeps so many calls of Redis under way at once, besides.
_COUNTING_CONNECTIONS = 10


def dynamodb_client(settings: Settings, environment: Mapping[str, str]) -> Any:
    """The boto3 client for the settings' endpoint, or AWS, for all threads. Raises SettingsError."""
    config = Config(
        # Whoever waits for an API shall hear soon that it cannot be; a job is held and comes again.
        connect_timeout=2,
        read_timeout=3,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=_CONNECTIONS,
        # Otherwise boto3 composes a longer one for each request, at a cost.
        user_agent="Datahog/1.0",
        parameter_validation=False,
    )
    # An endpoint of one's own takes any key, but boto3 wants one, and a region.
    local = settings.dynamodb_endpoint_url is not None and "AWS_ACCESS_KEY_ID" not in environment
    key = "datahog" if local else None
    try:
        return boto3.client(
            "dynamodb",
            endpoint_url=settings.dynamodb_endpoint_url,
            region_name=environment.get("AWS_REGION", "us-east-1" if local else None),
            aws_access_key_id=key,
            aws_secret_access_key=key,
            config=config,
        )
    except BotoCoreError as error:
        hint = "set AWS_REGION for AWS, or DATAHOG_DYNAMODB_ENDPOINT_URL for another DynamoDB"
        raise SettingsError(f"DynamoDB: {error} ({hint})") from None


def redis_client(settings: Settings) -> redis.Redis:
    """The client for the settings' Redis, for all threads. Raises SettingsError."""
    try:
        pool = redis.BlockingConnectionPool.from_url(settings.redis_url, max_connections=_CONNECTIONS, **_REDIS_SECONDS)
        # Options in the URL are looked at when a connection is made, which this does without connecting.
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        # The URL may hold a password.
        raise SettingsError(f"DATAHOG_REDIS_URL: wrong options ({type(error).__name__})") from None
    return redis.Redis(connection_pool=pool)


def redis_counters(settings: Settings) -> "RedisStorage":
    """The same Redis, for what counts calls on the event loop: for so short a call, a thread would take six times as
    long as the call.
    """
    from limits.aio.storage import RedisStorage
    from redis.asyncio import BlockingConnectionPool

    pool = BlockingConnectionPool.from_url(settings.redis_url, max_connections=_COUNTING_CONNECTIONS, **_REDIS_SECONDS)
    # The options' declared type knows of no pools; the class does.
    options: Any = {"connection_pool": pool}
    return RedisStorage("async+redis://", implementation="redispy", **options)
