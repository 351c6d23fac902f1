"""Makes the clients of DynamoDB and Redis, with their limits on connections and their timeouts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from datahog.settings import Settings, SettingsError

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

# The maximum number of connections of one process to DynamoDB, and to Redis; a thread that finds all in use waits. An
# API has 40 threads and a worker has hundreds, but a thread holds a connection only for the time of one call.
_MAX_CONNECTIONS = 50
# Seconds. `timeout` is the wait for a free connection of the pool. It is shorter than `socket_timeout`: when Redis
# hangs, the first connection comes back after 2 s, so a caller does not wait for a connection and then for Redis too.
# A pool's connections retry nothing, whatever the client's defaults are.
_REDIS_SECONDS = {"socket_connect_timeout": 2, "socket_timeout": 2, "health_check_interval": 15, "timeout": 1}
# The maximum number of Redis connections of an API's event loop; they come on top of the others.
_MAX_COUNTER_CONNECTIONS = 10


def dynamodb_client(settings: Settings, environment: Mapping[str, str]) -> Any:
    """Returns the boto3 client for the settings' endpoint, or for AWS; threads share it. Raises SettingsError."""
    config = Config(
        # Seconds. A caller of an API learns soon that DynamoDB is away; a worker repeats its job later.
        connect_timeout=2,
        read_timeout=3,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=_MAX_CONNECTIONS,
        # Without a fixed text boto3 composes a longer one for each request, which costs CPU time.
        user_agent="Datahog/1.0",
        parameter_validation=False,
    )
    # A local endpoint accepts any key, but boto3 needs a key and a region.
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
    """Returns the client for the settings' Redis; threads share it. Raises SettingsError."""
    try:
        pool = redis.BlockingConnectionPool.from_url(
            settings.redis_url, max_connections=_MAX_CONNECTIONS, **_REDIS_SECONDS
        )
        # Redis-py checks the URL's options when it makes a connection object, which does not connect yet.
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        # The URL may hold a password.
        raise SettingsError(f"DATAHOG_REDIS_URL: wrong options ({type(error).__name__})") from None
    return redis.Redis(connection_pool=pool)


def redis_counters(settings: Settings) -> "RedisStorage":
    """Returns the rate limiter's storage on the same Redis, for the event loop.

    A thread for so short a call costs six times as much as the call itself.
    """
    from limits.aio.storage import RedisStorage
    from redis.asyncio import BlockingConnectionPool

    pool = BlockingConnectionPool.from_url(
        settings.redis_url, max_connections=_MAX_COUNTER_CONNECTIONS, **_REDIS_SECONDS
    )
    # The declared type of the options lacks the pool, which the class accepts.
    options: Any = {"connection_pool": pool}
    return RedisStorage("async+redis://", implementation="redispy", **options)
