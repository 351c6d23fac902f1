"""The requests in DynamoDB: one conditional write sets each outcome."""

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


class Store:
    """The table `peer`; `connections` is the most connections to DynamoDB."""

    def __init__(self, *, connections: int) -> None:
        config = Config(
            max_pool_connections=connections,
            parameter_validation=False,
            retries={"mode": "standard", "total_max_attempts": 5},
        )
        self._client: Any = boto3.client("dynamodb", endpoint_url=os.environ["DYNAMODB_URL"], config=config)

    def create(self, request_id: str, providers: list[str], callback_url: str) -> None:
        """Write a new request."""
        job = {"M": {"status": {"S": "INIT"}}}
        self._client.put_item(
            TableName="peer",
            Item={
                "id": {"S": request_id},
                "callbackUrl": {"S": callback_url},
                "status": {"S": "OPEN"},
                "jobs": {"M": dict.fromkeys(providers, job)},
            },
            ConditionExpression="attribute_not_exists(id)",
        )

    def end_job(self, request_id: str, provider: str, status: str, result: str) -> None:
        """Set a job's outcome if it has none."""
        self._update(
            request_id,
            "SET jobs.#provider = :job",
            "jobs.#provider.#status = :init",
            {"#provider": provider, "#status": "status"},
            {":job": {"M": {"status": {"S": status}, "result": {"S": result}}}, ":init": {"S": "INIT"}},
        )

    def delivered(self, request_id: str) -> None:
        """Record that the callback was acknowledged."""
        self._update(
            request_id,
            "SET #status = :delivered",
            "#status = :open",
            {"#status": "status"},
            {":delivered": {"S": "DELIVERED"}, ":open": {"S": "OPEN"}},
        )

    def _update(
        self, request_id: str, update: str, condition: str, names: dict[str, str], values: dict[str, Any]
    ) -> None:
        try:
            self._client.update_item(
                TableName="peer",
                Key={"id": {"S": request_id}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except ClientError as error:
            # A task that runs twice finds its write done.
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
