"""Tenants: whose a record is, and which partitions of an index are whose."""

from collections.abc import Mapping
from typing import Any

# Whose everything is that was written down before there were tenants, and the key of a machine of one's own.
DEFAULT_TENANT = "default"
PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


def tenant_of(item: Mapping[str, Any]) -> str:
    """The tenant of a record or a key."""
    return str(item.get("tenant", DEFAULT_TENANT))


def kind_of(kind: str, tenant: str) -> str:
    """The partitions (see `index.shards.shard_of`) that hold a tenant's records of a kind and nobody else's."""
    return kind if tenant == DEFAULT_TENANT else f"{kind}#{tenant}"
