"""Routing: refuses paths and methods that the document does not declare, and answers OPTIONS."""

import re
from collections import defaultdict
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import specs
from handlers.problems import Problem
from specs.operations import Operation

_PARAMETER = re.compile(r"\\\{\w+\\\}")
# As the framework reads it: a line break ends a path there.
_VALUE = r"[^/\n]+"
# The document itself and Swagger UI, which are served beside the operations.
_PAGES = f"({re.escape(specs.DOCUMENT_PATH)}|{specs.UI_PATH}(/.*)?)"


class KnownPaths:
    """ASGI middleware that passes on calls of a document's operations, and HEAD wherever there is GET (RFC 9110, 9.1).

    It responds to OPTIONS. Raises Problem for other paths (404) and for other methods (405, with Allow).
    """

    def __init__(self, app: ASGIApp, *, operations: Iterable[Operation], base_path: str) -> None:
        self._app = app
        self._base_path = base_path
        declared: defaultdict[str, set[str]] = defaultdict(set)
        for operation in operations:
            if not operation.is_callback:
                declared[operation.path].add(operation.method)
        self._paths = [
            (re.compile(_PARAMETER.sub(_VALUE, re.escape(path))), _methods(methods))
            for path, methods in declared.items()
        ]
        self._paths.append((re.compile(re.escape(base_path) + _PAGES), _methods({"GET"})))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            methods = self._methods_of(scope["path"])
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=_allow(methods))(scope, receive, send)
                return
            if scope["method"] not in methods:
                detail = f"{scope['method']} is not among the methods of this path: {', '.join(methods)}"
                raise Problem("method-not-allowed", detail, headers=_allow(methods))
        await self._app(scope, receive, send)

    def _methods_of(self, path: str) -> list[str]:
        for pattern, methods in self._paths:
            if pattern.fullmatch(path):
                return methods
        where = self._base_path + specs.DOCUMENT_PATH
        raise Problem("not-found", f"there is no such path; {where} lists all paths")


def _methods(declared: set[str]) -> list[str]:
    return sorted(declared | {"OPTIONS"} | ({"HEAD"} if "GET" in declared else set()))


def _allow(methods: list[str]) -> dict[str, str]:
    return {"Allow": ", ".join(methods)}
