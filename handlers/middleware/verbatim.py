"""Verbatim: the results in an operation's body, kept as the very text that came, while the rest is read as values."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from handlers.problems import Problem
from persistence.results import cut_out, json_text

PutBack = Callable[[], None]
# Takes a body; returns its value with null for each result, and what puts these in as JSON text (`msgspec.Raw`). That
# is done when the value was found valid: no schema sees more of a result than that it is there.
Reader = Callable[[bytes], tuple[Any, PutBack]]

_NULL = msgspec.Raw(b"null")
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def whole(body: bytes) -> tuple[Any, PutBack]:
    """A body in which there is no result.

    Raises ValueError for what is not JSON, or nested too deeply, and Problem for two members of one name in an object:
    readers disagree on which counts (RFC 7493, 2.3).
    """
    document = json_text.parse(body)
    json.loads(body, object_pairs_hook=_check_distinct, parse_int=float)
    return document, _nothing


def own_result(body: bytes) -> tuple[Any, PutBack]:
    """A body with at most one `result` among its own members. Raises as `whole` does, the result not looked into."""
    json_text.parse(body)
    try:
        members = _read_members(body)
    except msgspec.ValidationError:
        # No object, which is for the schema to say.
        return json_text.parse(body), _nothing
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    names: list[str] = []

    def note(found: list[tuple[str, Any]]) -> None:
        # The outermost object comes last.
        names[:] = [name for name, _ in found]

    json.loads(body, object_pairs_hook=note, parse_int=float)
    _check_distinct([(name, None) for name in names])
    result = members.get("result")
    if result is not None:
        members["result"] = _NULL
    document = json_text.parse(msgspec.json.encode(members))

    def put_back() -> None:
        if result is not None:
            document["result"] = result

    return document, put_back


def results_of_jobs(body: bytes) -> tuple[Any, PutBack]:
    """A body with `jobs`, each with a `result` or none.

    Raises ValueError for what is not JSON, or nested too deeply.
    """
    document, results = cut_out.cut_out(body)

    def put_back() -> None:
        for index, result in enumerate(results):
            if result is not None:
                document["jobs"][index]["result"] = result

    return document, put_back


# How the body of an operation is read, where it carries results.
READERS: Mapping[str, Reader] = {"receiveCallback": results_of_jobs, "updateJob": own_result}


def _nothing() -> None:
    """There is nothing to put back."""


def _check_distinct(members: list[tuple[str, Any]]) -> None:
    found: set[str] = set()
    for name, _ in members:
        if name in found:
            raise Problem("bad-request", f"the body has two members named {name[:100]!r} in one object")
        found.add(name)
