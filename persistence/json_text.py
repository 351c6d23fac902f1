"""JSON text that comes from others: strict (RFC 8259), and nested no deeper than every program can follow."""

from typing import Any

import orjson

# Levels. What is kept is handed on inside other documents, to programs that recurse.
DEEPEST = 500
_ORJSON_READS = 1024


def parse(text: bytes) -> Any:
    """The value that a JSON text says. Raises ValueError for what is not JSON, or has more than `DEEPEST` levels."""
    if text.count(b"[") + text.count(b"{") > DEEPEST:
        # With so many levels around it, orjson has as many left as are allowed. The value is not kept: that of a text
        # of many short arrays takes thirty times its size, and one such is enough.
        around = _ORJSON_READS - DEEPEST
        try:
            orjson.loads(b"[" * around + text + b"]" * around)
        except orjson.JSONDecodeError:
            _ = _loads(text)
            raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    return _loads(text)


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
