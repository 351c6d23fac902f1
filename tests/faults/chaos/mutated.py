"""`python -m tests.faults.chaos.mutated worker`: as `python -m datahog worker`, but jobs complete unconditionally."""

import sys
from collections.abc import Mapping
from typing import Any

from datahog import cli
from persistence.dynamodb.table import Key, Table

_conditional = Table.update


def _unconditional(
    table: Table, key: Key, update: str, *, condition: str, values: Mapping[str, Any], returned: str = "NONE"
) -> Mapping[str, Any]:
    if ".#endedAt = :now" in update:
        # DynamoDB refuses values that no expression uses, so the condition stays, and always holds.
        condition = f"({condition}) OR attribute_exists(#pk)"
    return _conditional(table, key, update, condition=condition, values=values, returned=returned)


if __name__ == "__main__":
    setattr(Table, "update", _unconditional)  # noqa: B010 (mypy refuses the assignment)
    sys.exit(cli.main())
