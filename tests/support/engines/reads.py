"""What a boto3 client's calls read: the items that came back, and the read units that DynamoDB counted for them."""

import json
from collections import Counter
from typing import Any


class Reads:
    """Counts from now on, by operation. Safe for one thread."""

    def __init__(self, dynamodb: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.units: dict[str, float] = {}
        """Empty where the engine counts none."""
        for operation in ("Query", "GetItem", "BatchGetItem", "Scan"):
            # Before it is signed.
            dynamodb.meta.events.register_first(f"request-created.dynamodb.{operation}", _ask_for_units)
            dynamodb.meta.events.register(f"after-call.dynamodb.{operation}", self._count)

    def reset(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.items.clear()
        self.units.clear()

    def _count(self, *, parsed: Any, model: Any, **_: object) -> None:
        operation = model.name
        self.calls[operation] += 1
        self.items[operation] += len(parsed.get("Items", ())) + ("Item" in parsed)
        self.items[operation] += sum(map(len, parsed.get("Responses", {}).values()))
        if "ConsumedCapacity" in parsed:
            capacity = parsed["ConsumedCapacity"]
            # That of a batch is told for each table.
            units = sum(part["CapacityUnits"] for part in (capacity if isinstance(capacity, list) else [capacity]))
            self.units[operation] = self.units.get(operation, 0) + units


def _ask_for_units(request: Any, **_: object) -> None:
    arguments = json.loads(request.data)
    arguments["ReturnConsumedCapacity"] = "TOTAL"
    request.data = json.dumps(arguments).encode()
