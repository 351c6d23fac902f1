"""The operations of a document, by operationId: where each is, what it takes, who may call it, what it answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

from specs import AGGREGATOR, CLIENT, base_path, read

_NONE: Mapping[str, Any] = MappingProxyType({})
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")


@dataclass(frozen=True)
class Operation:
    """One operation. `parameters` and `responses` (by status) are resolved; `path` begins with the base path.

    The path of a callback is the runtime expression that yields its URL. `security` names alternatives, each the
    schemes that are needed together; `scope` is what an API key must have for it, if any.
    """

    operation_id: str
    method: str
    path: str
    parameters: tuple[Mapping[str, Any], ...]
    responses: Mapping[str, Mapping[str, Any]]
    security: tuple[frozenset[str], ...]
    scope: str | None

    @property
    def is_callback(self) -> bool:
        """Whether the document's server calls it, at a URL that it was told, instead of serving it."""
        return not self.path.startswith("/")

    def target(self, arguments: Mapping[str, Any]) -> str:
        """The path, and the query if any, with these arguments in it. Raises KeyError for a missing one."""
        path, query = self.path, {}
        for parameter in self.parameters:
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                path = path.replace("{" + name + "}", quote(text(arguments[name]), safe=""))
            elif place == "query" and (name in arguments or parameter.get("required")):
                query[name] = text(arguments[name])
        return path + (f"?{urlencode(query)}" if query else "")

    def declared(self, status: int) -> Mapping[str, Any] | None:
        """The response that is declared for a status: by itself, by its class (`2XX`), or by default."""
        for key in (str(status), f"{status // 100}XX", "default"):
            if key in self.responses:
                return self.responses[key]
        return None


@cache
def operations(name: str) -> Mapping[str, Operation]:
    """All operations of the document `name`, those of its callbacks included."""
    document = read(name)
    return {
        operation.operation_id: operation for operation in _operations(document, document["paths"], base_path(name))
    }


def target(name: str, operation_id: str, arguments: Mapping[str, Any] = _NONE) -> str:
    """The path, and the query if any, at which an operation of the document `name` is served."""
    return operations(name)[operation_id].target(arguments)


def scopes() -> list[str]:
    """Every scope that an operation of either document needs."""
    found = {operation.scope for name in (AGGREGATOR, CLIENT) for operation in operations(name).values()}
    return sorted(scope for scope in found if scope)


def text(value: Any) -> str:
    """A parameter's value as it is spelt in a URL or a header."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def follow(document: Mapping[str, Any], node: Any) -> Any:
    """What a node of the document says, or what it refers to."""
    while isinstance(node, Mapping) and "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


def _operations(document: Mapping[str, Any], paths: Mapping[str, Any], root: str) -> Iterator[Operation]:
    for path, item in paths.items():
        for method in _METHODS:
            if method not in item:
                continue
            declared = item[method]
            for callback in declared.get("callbacks", {}).values():
                yield from _operations(document, follow(document, callback), "")
            yield Operation(
                declared["operationId"],
                method.upper(),
                root + path,
                tuple(follow(document, p) for p in (*item.get("parameters", ()), *declared.get("parameters", ()))),
                {status: follow(document, response) for status, response in declared["responses"].items()},
                tuple(frozenset(needed) for needed in declared["security"]),
                declared.get("x-required-scope"),
            )
