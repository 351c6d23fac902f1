"""JSON text that comes from others: strict (RFC 8259), not too deep, and not of too many parts."""

import json
import re
from typing import Any

import orjson

# Levels. What is kept is handed on inside other documents, to programs that recurse.
DEEPEST = 500
# Arrays and objects. They cost the most to read by far: so many take a tenth of a second, in which no other thread
# runs, and three times as many, which fit into the bytes of a result, take ten times as long.
MOST = 500_000
_ORJSON_READS = 1024
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def parse(text: bytes) -> Any:
    """The value that a JSON text says.

    Raises ValueError for what is not JSON, or has more than `DEEPEST` levels, or more than `MOST` arrays and objects.
    """
    opened = _opened(text)
    if opened <= DEEPEST:
        return _loads(text)
    if opened > MOST and opened - sum(_opened(string.group()) for string in _STRINGS.finditer(text)) > MOST:
        raise ValueError(f"of more than {MOST} arrays and objects")
    # With so many levels around it, orjson has as many left as are allowed.
    around = _ORJSON_READS - DEEPEST
    try:
        value = orjson.loads(b"[" * around + text + b"]" * around)
    except orjson.JSONDecodeError:
        _loads(text)
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    for _ in range(around):
        if len(value) != 1:
            # It ends one of those around it, and begins another.
            raise ValueError("not JSON: more than one value")
        [value] = value
    return value


def same(one: bytes, other: bytes) -> bool:
    """Whether two texts that `parse` takes say the same value: every digit of a number counts, and every member."""
    return one == other or bool(_exact(one) == _exact(other))


def _exact(text: bytes) -> Any:
    return json.loads(text.decode(), parse_int=_number, parse_float=_number, object_pairs_hook=_members)


def _number(text: str) -> str:
    """A number, spelt in the one way that all equal ones have; half a character marks it, which is in no text."""
    mantissa, _, exponent = text.lower().lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).strip("0")
    if not digits:
        return "\ud8000"
    try:
        shift = int(exponent or 0) - len(fraction) + len(whole + fraction) - len((whole + fraction).rstrip("0"))
    except ValueError:
        # More digits in the exponent than Python reads.
        return f"\ud800{text}"
    return f"\ud800{'-' * text.startswith('-')}{digits}e{shift}"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of members of one name all values, in their order."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            # No value is a tuple otherwise.
            earlier = found[name]
            found[name] = (*earlier, value) if isinstance(earlier, tuple) else (earlier, value)
        else:
            found[name] = value
    return found


def _opened(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
