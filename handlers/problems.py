"""Problems: error responses as `application/problem+json` (RFC 9457), with types that programs can rely on."""

from typing import Any

import orjson
from connexion.lifecycle import ConnexionResponse

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:datahog:problem:"
_LONGEST_DETAIL = 400  # characters

_TITLES = {
    "bad-request": (400, "Bad request"),
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "request-timeout": (408, "Request timeout"),
    "conflict": (409, "Conflict"),
    "request-under-way": (409, "Request under way"),
    "payload-too-large": (413, "Payload too large"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "unknown-provider": (422, "Unknown provider"),
    "unprocessable": (422, "Unprocessable"),
    "idempotency-key-reused": (422, "Idempotency key reused"),
    "too-many-requests": (429, "Too many requests"),
    "too-many-open-requests": (429, "Too many open requests"),
    "internal-error": (500, "Internal error"),
    "unavailable": (503, "Unavailable"),
    "not-ready": (503, "Not ready"),
}
_BY_STATUS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    409: "conflict",
    413: "payload-too-large",
    415: "unsupported-media-type",
    422: "unprocessable",
    429: "too-many-requests",
    500: "internal-error",
    503: "unavailable",
}


class Problem(Exception):
    """An error response. `slug` is the last part of the problem's type; `detail` says what to do about it.

    `members` are the other members of the document: `known` (names), `checks` (outcomes by name).
    """

    def __init__(self, slug: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _TITLES[self.slug][0]

    @property
    def type(self) -> str:
        """The URI that identifies the type of problem; docs/problems.md explains each."""
        return _TYPE_PREFIX + self.slug

    @property
    def document(self) -> dict[str, Any]:
        """The `Problem` of both documents."""
        status, title = _TITLES[self.slug]
        # The detail may contain a caller's input: it is cut, and made valid UTF-8.
        detail = self.detail.encode("utf-8", "replace").decode()[:_LONGEST_DETAIL]
        return {"type": self.type, "title": title, "status": status, "detail": detail, **self.members}

    @property
    def response(self) -> ConnexionResponse:
        """The HTTP response."""
        return ConnexionResponse(
            status_code=self.status,
            mimetype=MEDIA_TYPE,
            content_type=MEDIA_TYPE,
            body=orjson.dumps(self.document),
            headers=self.headers,
        )


def problem_of_status(status: int, detail: str, headers: dict[str, str] | None = None) -> Problem:
    """Returns the problem for an error of the framework, which gives only a status."""
    return Problem(_BY_STATUS.get(status, "bad-request" if status < 500 else "internal-error"), detail, headers=headers)


def every_problem() -> list[Problem]:
    """Returns one problem of each type."""
    return [Problem(slug, title) for slug, (_, title) in _TITLES.items()]
