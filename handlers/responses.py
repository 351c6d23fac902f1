"""Answers: a document as `application/json`, its results unparsed."""

from collections.abc import Mapping

import orjson
from connexion.lifecycle import ConnexionResponse

from workers.documents import Document

_JSON = "application/json"


def answer(document: Document, status: int = 200, headers: Mapping[str, str] | None = None) -> ConnexionResponse:
    """An HTTP answer that carries a JSON document."""
    body = orjson.dumps(document)
    return ConnexionResponse(
        status_code=status, mimetype=_JSON, content_type=_JSON, body=body, headers=dict(headers or {})
    )


def no_content() -> ConnexionResponse:
    """An HTTP answer without a body."""
    return ConnexionResponse(status_code=204)
