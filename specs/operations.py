"""The operations of a document by operationId: path, parameters, security and responses of each."""

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

    The path of a callback is the runtime expression that yields its URL. `security` lists alternatives; each is a set
    of schemes that are needed together. `scope` is the scope that an API key needs, None when it needs none.
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
        """Whether the operation is a callback: the server calls it at a URL from a request, instead of serving it."""
        return not self.path.startswith("/")

    def target(self, arguments: Mapping[str, Any]) -> str:
        """Returns the path, with the query if any, for these arguments. Raises KeyError for a missing argument."""
        path, query = self.path, {}
        for parameter in self.parameters:
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                path = path.replace("{" + name + "}", quote(text(arguments[name]), safe=""))
            elif place == "query" and (name in arguments or parameter.get("required")):
                query[name] = text(arguments[name])
        return path + (f"?{urlencode(query)}" if query else "")

    def declared(self, status: int) -> Mapping[str, Any] | None:
        """Returns the response declared for a status, for its class (`2XX`) or as `default`, else None."""
        for key in (str(status), f"{status // 100}XX", "default"):
            if key in self.responses:
                return self.responses[key]
        return None


@cache
def operations(name: str) -> Mapping[str, Operation]:
    """Returns all operations of the document `name`, by operationId, with those of its callbacks."""
    document = read(name)
    return {
        operation.operation_id: operation for operation in _operations(document, document["paths"], base_path(name))
    }


def target(name: str, operation_id: str, arguments: Mapping[str, Any] = _NONE) -> str:
    """Returns the path, with the query if any, of an operation of the document `name`."""
    return operations(name)[operation_id].target(arguments)


def scopes() -> list[str]:
    """Returns every scope that an operation of either document needs, sorted."""
    found = {operation.scope for name in (AGGREGATOR, CLIENT) for operation in operations(name).values()}
    return sorted(scope for scope in found if scope)


def text(value: Any) -> str:
    """Returns a parameter's value as text for a URL or a header."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def follow(document: Mapping[str, Any], node: Any) -> Any:
    """Returns the node, or the node that its `$ref` refers to within the document."""
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
