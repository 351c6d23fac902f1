"""The tables: their keys, their sparse index, their TTL; created idempotently."""

import time
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.index.shards import Shards

DUE_INDEX = "due"
NEWEST_INDEX = "newest"

_TEXT_KEYS = {"pk": "HASH", "sk": "RANGE"}
_INDEX_KEYS = {
    DUE_INDEX: {"dueShard": "HASH", "dueAt": "RANGE"},
    NEWEST_INDEX: {"newestShard": "HASH", "newestKey": "RANGE"},
}


def table_names(prefix: str) -> dict[str, tuple[str, ...]]:
    """Each table's name and the indexes it has."""
    return {
        aggregator_table(prefix): (DUE_INDEX,),
        client_table(prefix): (DUE_INDEX, NEWEST_INDEX),
        keys_table(prefix): (),
    }


def aggregator_table(prefix: str) -> str:
    """The name of the aggregator's table."""
    return f"{prefix}-aggregator"


def client_table(prefix: str) -> str:
    """The name of the client's table."""
    return f"{prefix}-client"


def keys_table(prefix: str) -> str:
    """The name of the table of API keys, which both services read."""
    return f"{prefix}-keys"


def create_tables(client: BaseClient, prefix: str, *, shards: int | None = None, timeout: float = 120) -> list[str]:
    """Create what is missing, wait until all is active (at most `timeout` seconds), set the TTL.

    `shards` is what new tables are told of the shards of their indexes (`persistence.index.shards`), if it is given.

    Returns the names of the tables that were created now. Raises TimeoutError.
    """
    created = [name for name, indexes in table_names(prefix).items() if _create(client, name, indexes)]
    deadline = time.monotonic() + timeout
    for name in table_names(prefix):
        while not _is_active(client, name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the table {name} is not active after {timeout:g} s")
            time.sleep(0.2)
        _set_ttl(client, name)
        if shards and name in created and table_names(prefix)[name]:
            Shards(Table(Transport(client), name), shards).tell(new=True)
    return created


def _create(client: Any, name: str, indexes: tuple[str, ...]) -> bool:
    keys = dict(_TEXT_KEYS)
    for index in indexes:
        keys |= _INDEX_KEYS[index]
    secondary = [
        {
            "IndexName": index,
            "KeySchema": _key_schema(_INDEX_KEYS[index]),
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
        for index in indexes
    ]
    try:
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=_key_schema(_TEXT_KEYS),
            **({"GlobalSecondaryIndexes": secondary} if secondary else {}),
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceInUseException":
            return False
        raise
    return True


def _key_schema(keys: dict[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()]


def _is_active(client: Any, name: str) -> bool:
    try:
        table = client.describe_table(TableName=name)["Table"]
    except client.exceptions.ResourceNotFoundException:
        # What AWS describes may be a moment old.
        return False
    indexes = table.get("GlobalSecondaryIndexes", [])
    return table["TableStatus"] == "ACTIVE" and all(i.get("IndexStatus", "ACTIVE") == "ACTIVE" for i in indexes)


def _set_ttl(client: Any, name: str) -> None:
    if _has_ttl(client, name):
        return
    specification = {"Enabled": True, "AttributeName": "expiresAt"}
    try:
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)
    except ClientError:
        # Somebody else may have set it at the same moment, which AWS counts as an error.
        if not _has_ttl(client, name):
            raise


def _has_ttl(client: Any, name: str) -> bool:
    status = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"]
    return status in ("ENABLING", "ENABLED")
