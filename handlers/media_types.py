"""Media types: a body is JSON, however its name is spelt, or is refused before anybody reads it."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.problems import Problem

_JSON = "application/json"


class JsonOnly:
    """ASGI middleware, after routing: the framework looks for a schema by the header as it stands, case and all.

    Raises Problem (415) for other media types. An operation that takes no body does not hear of one, so that none is
    read for it.
    """

    def __init__(self, app: ASGIApp, *, document: Mapping[str, Any]) -> None:
        self._app = app
        self._takes_body = {
            operation["operationId"]
            for item in document["paths"].values()
            for operation in item.values()
            if "requestBody" in operation
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            given = headers.getlist("content-type")
            del headers["content-type"]
            if scope["extensions"]["connexion_routing"]["operation_id"] in self._takes_body:
                _check(given, headers)
                headers["content-type"] = _JSON
        await self._app(scope, receive, send)


def _check(given: list[str], headers: MutableHeaders) -> None:
    # Names of media types know no case, and JSON no charset (RFC 9110, 8.3.1; RFC 8259, 8.1).
    names = [value.split(";")[0].strip().lower() for value in given]
    if names == [_JSON]:
        return
    if names:
        raise Problem("unsupported-media-type", f"Content-Type must be {_JSON}, not {', '.join(names)[:100]!r}")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Problem("unsupported-media-type", f"say Content-Type: {_JSON}")
