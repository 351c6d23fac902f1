"""Media types: a body is JSON, however its name is spelt, or is refused before anybody reads it."""

from starlette.datastructures import Headers
from starlette.types import Scope

from handlers.problems import Problem

_JSON = "application/json"


def require_json(scope: Scope) -> None:
    """Raises Problem (415) for other media types."""
    headers = Headers(scope=scope)
    # Names of media types know no case, and JSON no charset (RFC 9110, 8.3.1; RFC 8259, 8.1).
    names = [value.split(";")[0].strip().lower() for value in headers.getlist("content-type")]
    if names == [_JSON]:
        return
    if names:
        raise Problem("unsupported-media-type", f"Content-Type must be {_JSON}, not {', '.join(names)[:100]!r}")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Problem("unsupported-media-type", f"say Content-Type: {_JSON}")
