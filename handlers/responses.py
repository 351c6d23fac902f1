"""Builds HTTP responses: JSON documents, their results unparsed, and responses without a body."""

from collections.abc import Mapping

import orjson
from connexion.lifecycle import ConnexionResponse

from workers.documents import Document

_JSON = "application/json"


def answer(document: Document, status: int = 200, headers: Mapping[str, str] | None = None) -> ConnexionResponse:
    """Returns an HTTP response with a JSON document."""
    body = orjson.dumps(document)
    return ConnexionResponse(
        status_code=status, mimetype=_JSON, content_type=_JSON, body=body, headers=dict(headers or {})
    )


def no_content() -> ConnexionResponse:
    """Returns an HTTP response without a body."""
    return ConnexionResponse(status_code=204)
