"""Media types: a body is JSON, however its name is spelt, and uncompressed, or is refused before anybody reads it."""

from starlette.datastructures import Headers
from starlette.types import Scope

from handlers.problems import Problem

_JSON = "application/json"
_AS_IT_IS = "identity"


def require_json(scope: Scope) -> None:
    """Raises Problem (415) for other media types, and for content codings, none of which is taken apart."""
    headers = Headers(scope=scope)
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", _AS_IT_IS):
        detail = f"send the body without Content-Encoding: {coding[:100]!r}"
        # RFC 9110, 12.5.3: it ought to say what would have been taken.
        raise Problem("unsupported-media-type", detail, headers={"Accept-Encoding": _AS_IT_IS})
    # Names of media types know no case, and JSON no charset (RFC 9110, 8.3.1; RFC 8259, 8.1).
    names = [value.split(";")[0].strip().lower() for value in headers.getlist("content-type")]
    if names == [_JSON]:
        return
    if names:
        raise Problem("unsupported-media-type", f"Content-Type must be {_JSON}, not {', '.join(names)[:100]!r}")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Problem("unsupported-media-type", f"say Content-Type: {_JSON}")
