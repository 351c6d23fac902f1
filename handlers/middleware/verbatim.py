"""Reads bodies that carry results: keeps each result as the JSON text received, and parses the rest."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from handlers.problems import Problem
from persistence.results import cut_out, json_text

PutBack = Callable[[], None]
# Takes a body. Returns its value with null for each result, and a function that puts the results in as JSON text
# (`msgspec.Raw`). The function is called after validation: the schemas only check that a result is present.
Reader = Callable[[bytes], tuple[Any, PutBack]]

_NULL = msgspec.Raw(b"null")
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def whole(body: bytes) -> tuple[Any, PutBack]:
    """Reads a body without results.

    Raises ValueError for a body that is not JSON or is nested too deeply, and Problem for two members of one name in
    an object: parsers disagree on which of them counts (RFC 7493, 2.3).
    """
    document = json_text.parse(body)
    json.loads(body, object_pairs_hook=_check_distinct, parse_int=float)
    return document, _nothing


def own_result(body: bytes) -> tuple[Any, PutBack]:
    """Reads a body with at most one `result` at the top. Raises as `whole` does; the result may repeat names."""
    json_text.parse(body)
    try:
        members = _read_members(body)
    except msgspec.ValidationError:
        # The body is not an object; the schema refuses it.
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
    """Reads a body with `jobs`, each with or without a `result`.

    Raises ValueError for a body that is not JSON or is nested too deeply.
    """
    document, results = cut_out.cut_out(body)

    def put_back() -> None:
        for index, result in enumerate(results):
            if result is not None:
                document["jobs"][index]["result"] = result

    return document, put_back


# The readers of bodies that carry results, by operationId.
READERS: Mapping[str, Reader] = {"receiveCallback": results_of_jobs, "updateJob": own_result}


def _nothing() -> None:
    """Puts nothing back: the body has no result."""


def _check_distinct(members: list[tuple[str, Any]]) -> None:
    found: set[str] = set()
    for name, _ in members:
        if name in found:
            raise Problem("bad-request", f"the body has two members named {name[:100]!r} in one object")
        found.add(name)
