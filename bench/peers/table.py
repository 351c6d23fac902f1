"""Creates the DynamoDB table in which the peers keep their requests."""

import os

import boto3


def create() -> None:
    """Create the table `peer`, with the key `id`."""
    boto3.client("dynamodb", endpoint_url=os.environ["DYNAMODB_URL"]).create_table(
        TableName="peer",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )


if __name__ == "__main__":
    create()
