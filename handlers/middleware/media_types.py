"""Refuses bodies that are not uncompressed JSON, before they are read."""

from starlette.datastructures import Headers
from starlette.types import Scope

from handlers.problems import Problem

_JSON = "application/json"
_AS_IT_IS = "identity"


def require_json(scope: Scope) -> None:
    """Raises Problem (415) for a media type other than JSON, and for any content coding."""
    headers = Headers(scope=scope)
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", _AS_IT_IS):
        detail = f"send the body without Content-Encoding: {coding[:100]!r}"
        # RFC 9110, 12.5.3: the response should name the accepted codings.
        raise Problem("unsupported-media-type", detail, headers={"Accept-Encoding": _AS_IT_IS})
    # Media types are case-insensitive, and JSON has no charset parameter (RFC 9110, 8.3.1; RFC 8259, 8.1).
    names = [value.split(";")[0].strip().lower() for value in headers.getlist("content-type")]
    if names == [_JSON]:
        return
    if names:
        raise Problem("unsupported-media-type", f"Content-Type must be {_JSON}, not {', '.join(names)[:100]!r}")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Problem("unsupported-media-type", f"send the header Content-Type: {_JSON}")
