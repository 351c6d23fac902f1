"""The two writes of a front door, shared by both frameworks, so that only the frameworks differ."""

import os
from typing import Any

import boto3
import redis
from botocore.config import Config
from rq import Queue
from rq.serializers import JSONSerializer

_CONNECTIONS = 40


class Writes:
    """Writes a request to DynamoDB, then enqueues its jobs in one round trip."""

    def __init__(self) -> None:
        config = Config(max_pool_connections=_CONNECTIONS, parameter_validation=False)
        self._dynamodb: Any = boto3.client("dynamodb", endpoint_url=os.environ["DYNAMODB_URL"], config=config)
        connection = redis.Redis.from_url(os.environ["REDIS_URL"])
        self._queue = Queue("fetch", connection=connection, serializer=JSONSerializer)

    def write(self, request_id: str, providers: list[str], callback_url: str) -> None:
        """Write the request and enqueue a job for each provider."""
        job = {"M": {"status": {"S": "INIT"}, "attempts": {"N": "0"}}}
        self._dynamodb.put_item(
            TableName="peer",
            Item={
                "id": {"S": request_id},
                "callbackUrl": {"S": callback_url},
                "status": {"S": "OPEN"},
                "openJobs": {"N": str(len(providers))},
                "jobs": {"M": dict.fromkeys(providers, job)},
            },
            ConditionExpression="attribute_not_exists(id)",
        )
        self._queue.enqueue_many(
            [
                Queue.prepare_data("bench.noop.noop", args=(request_id, provider), result_ttl=0, timeout=3600)
                for provider in providers
            ]
        )
