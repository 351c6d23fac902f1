"""Values as DynamoDB's JSON has them, each in an object that names its type; only those that the records hold."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any


def encode(value: Any) -> dict[str, Any]:
    """The JSON of a value. Raises TypeError for one of a type that no record has."""
    if isinstance(value, str):
        return {"S": value}
    # A bool is an int, too.
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, Mapping):
        return {"M": encode_members(value)}
    if isinstance(value, list):
        return {"L": [encode(element) for element in value]}
    if isinstance(value, bytes):
        return {"B": base64.b64encode(value).decode()}
    if value is None:
        return {"NULL": True}
    raise TypeError(f"no record holds a {type(value).__name__}")


def encode_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of an item, or of whatever else has a value under each name."""
    return {name: encode(value) for name, value in members.items()}


def decode(typed: Mapping[str, Any]) -> Any:
    """The value of its JSON. Raises TypeError as `encode` does."""
    [(kind, value)] = typed.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return int(value)
        case "M":
            return decode_members(value)
        case "L":
            return [decode(element) for element in value]
        case "B":
            return base64.b64decode(value)
        case "NULL":
            return None
    raise TypeError(f"no record holds a value of DynamoDB's type {kind}")


class Decoded(Mapping[str, Any]):
    """An item of its JSON, each member decoded when it is asked for: of most answers only a member or two is."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def __getitem__(self, name: str) -> Any:
        return decode(self._members[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def decode_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """The item of its JSON."""
    return {name: decode(typed) for name, typed in members.items()}
