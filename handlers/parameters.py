"""Parameters: each given once, spelt as the document has it, and valid, before a handler sees them."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import jsonschema_rs
from starlette.types import Scope

from handlers.problems import Problem

# Nothing but these: Connexion, by itself, takes for an integer all that Python does (`1_0`, `+1`), and any case.
_SPELLINGS = {"integer": re.compile(r"-?(0|[1-9][0-9]{0,17})"), "boolean": re.compile("true|false")}

_Given = dict[str, list[str]]


class Parameters:
    """The validator class for Connexion's `validator_map`, which makes one for each request."""

    # Connexion hands over the same list each time; it is kept here, so that its id cannot come to mean another one.
    _compiled: ClassVar[dict[int, tuple[list[dict[str, Any]], list["_Parameter"]]]] = {}

    def __init__(self, parameters: list[dict[str, Any]], **_: object) -> None:
        if id(parameters) not in self._compiled:
            # In which the parameters of a path stand once for each of Connexion's layers.
            distinct = {(declared["in"], declared["name"]): declared for declared in parameters}
            self._compiled[id(parameters)] = parameters, [_Parameter(declared) for declared in distinct.values()]
        self._parameters = self._compiled[id(parameters)][1]

    def validate(self, scope: Scope) -> None:
        """Raises Problem (400) for the first parameter that is wrong, missing, repeated or not declared."""
        given = {"path": _path(scope), "query": _query(scope), "header": _headers(scope)}
        for parameter in self._parameters:
            parameter.check(given[parameter.place].pop(parameter.key, []))
        for name in given["query"]:
            raise Problem("bad-request", f"there is no query parameter {name[:100]!r}")


class _Parameter:
    def __init__(self, declared: dict[str, Any]) -> None:
        schema = declared["schema"]
        self._name: str = declared["name"]
        self.place: str = declared["in"]
        self.key = self._name.lower() if self.place == "header" else self._name
        self._required: bool = declared.get("required", False)
        self._type: str = schema["type"]
        # What was sent may be long, or not to be printed; the message says what it must be.
        self._validator = jsonschema_rs.Draft4Validator(schema, validate_formats=True, mask="the value")

    def check(self, values: Sequence[str]) -> None:
        if not values:
            if self._required:
                raise self._refusal("the value is missing")
            return
        if len(values) > 1:
            raise self._refusal("there is more than one value")
        wrong = next(self._validator.iter_errors(self._read(values[0])), None)
        if wrong is not None:
            raise self._refusal(wrong.message)

    def _read(self, text: str) -> str | int | bool:
        spelling = _SPELLINGS.get(self._type)
        if spelling is None:
            return text
        if not spelling.fullmatch(text):
            raise self._refusal(f"the value is not of type {self._type}")
        return int(text) if self._type == "integer" else text == "true"

    def _refusal(self, reason: str) -> Problem:
        return Problem("bad-request", f"{self.place} parameter {self._name}: {reason}")


def _path(scope: Scope) -> _Given:
    return {name: [value] for name, value in scope["path_params"].items()}


def _query(scope: Scope) -> _Given:
    given: defaultdict[str, list[str]] = defaultdict(list)
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Problem("bad-request", "the query is not percent-encoded UTF-8") from None
    for name, value in pairs:
        given[name].append(value)
    return given


def _headers(scope: Scope) -> _Given:
    given: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in scope["headers"]:
        given[name.decode("latin-1")].append(value.decode("latin-1"))
    return given
