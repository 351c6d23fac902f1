"""Validates parameters before the handler sees them: declared, given once, and spelt as in JSON."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from connexion.decorators.parameter import pythonic
from starlette.types import Scope

from handlers.middleware.dispatch import given
from handlers.problems import Problem
from specs.schemas import validator

# The only accepted spellings. Connexion alone accepts all that Python does (`1_0`, `+1`), and booleans in any case.
_SPELLINGS = {"integer": re.compile(r"-?(0|[1-9][0-9]{0,17})"), "boolean": re.compile("true|false")}

_Sent = dict[str, list[str]]
_Value = str | int | bool


class Parameters:
    """The parameters that one operation takes."""

    def __init__(self, declared: Sequence[dict[str, Any]]) -> None:
        # Connexion lists path parameters more than once, once per layer.
        distinct = {(parameter["in"], parameter["name"]): parameter for parameter in declared}
        self._parameters = [_Parameter(parameter) for parameter in distinct.values()]

    def validate(self, scope: Scope) -> None:
        """Adds the values to the arguments of the operation's method.

        Raises Problem (400) for the first parameter that is wrong, missing, repeated or not declared.
        """
        arguments = given(scope)
        sent = {"path": _path(scope), "query": _query(scope), "header": _headers(scope)}
        for parameter in self._parameters:
            value = parameter.read(sent[parameter.place].pop(parameter.key, []))
            # Handlers read headers from the request. A method's default value marks a parameter that was left out.
            if value is not None and parameter.place != "header":
                arguments[parameter.argument] = value
        for name in sent["query"]:
            raise Problem("bad-request", f"there is no query parameter {name[:100]!r}")


class _Parameter:
    def __init__(self, declared: dict[str, Any]) -> None:
        schema = declared["schema"]
        self._name: str = declared["name"]
        self.place: str = declared["in"]
        self.key = self._name.lower() if self.place == "header" else self._name
        self.argument: str = pythonic(self._name)
        self._required: bool = declared.get("required", False)
        self._type: str = schema["type"]
        self._default: _Value | None = schema.get("default")
        # The value may be long or unprintable, so messages do not contain it.
        self._validator = validator(schema, mask="the value")

    def read(self, values: Sequence[str]) -> _Value | None:
        """Returns the value that was sent, or the default. Raises Problem (400)."""
        if not values:
            if self._required:
                raise self._refusal("the value is missing")
            return self._default
        if len(values) > 1:
            raise self._refusal("there is more than one value")
        value = self._parse(values[0])
        wrong = next(self._validator.iter_errors(value), None)
        if wrong is not None:
            raise self._refusal(wrong.message)
        return value

    def _parse(self, text: str) -> _Value:
        spelling = _SPELLINGS.get(self._type)
        if spelling is None:
            return text
        if not spelling.fullmatch(text):
            raise self._refusal(f"the value is not of type {self._type}")
        return int(text) if self._type == "integer" else text == "true"

    def _refusal(self, reason: str) -> Problem:
        return Problem("bad-request", f"{self.place} parameter {self._name}: {reason}")


def _path(scope: Scope) -> _Sent:
    return {name: [value] for name, value in scope["path_params"].items()}


def _query(scope: Scope) -> _Sent:
    sent: defaultdict[str, list[str]] = defaultdict(list)
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Problem("bad-request", "the query is not percent-encoded UTF-8") from None
    for name, value in pairs:
        sent[name].append(value)
    return sent


def _headers(scope: Scope) -> _Sent:
    sent: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in scope["headers"]:
        sent[name.decode("latin-1")].append(value.decode("latin-1"))
    return sent
