"""Locates and reads the two OpenAPI documents."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

AGGREGATOR = "aggregator"
CLIENT = "client"

# The paths, under the base path, at which each API serves its own document and Swagger UI.
DOCUMENT_PATH = "/openapi.json"
UI_PATH = "/ui"


def path(name: str) -> Path:
    """Returns the path of the file of the document `name` (`aggregator` or `client`)."""
    return Path(__file__).parent / f"{name}.yaml"


@cache
def read(name: str) -> dict[str, Any]:
    """Returns the document `name`, its references unresolved. It is cached: do not change it."""
    document: dict[str, Any] = yaml.safe_load(path(name).read_text(encoding="utf-8"))
    return document


def base_path(name: str) -> str:
    """Returns the path of the document's server URL, the prefix of the paths of all its operations."""
    url: str = read(name)["servers"][0]["url"]
    return url.rstrip("/")
