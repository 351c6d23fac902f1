"""The two OpenAPI documents, found and read."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

AGGREGATOR = "aggregator"
CLIENT = "client"

# Beside its operations each API serves its own document, and Swagger UI over it.
DOCUMENT_PATH = "/openapi.json"
UI_PATH = "/ui"


def path(name: str) -> Path:
    """Where the document `aggregator` or `client` is."""
    return Path(__file__).parent / f"{name}.yaml"


@cache
def read(name: str) -> dict[str, Any]:
    """The document as it is written, references unresolved; read once, so not to be changed."""
    document: dict[str, Any] = yaml.safe_load(path(name).read_text(encoding="utf-8"))
    return document


def base_path(name: str) -> str:
    """The path that the document's server URL gives to all of its operations."""
    url: str = read(name)["servers"][0]["url"]
    return url.rstrip("/")
