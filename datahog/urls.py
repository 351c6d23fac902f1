"""Checks the URLs among the settings, and writes origins as browsers write them."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from specs.schemas import url_fault

# Characters. The documents still accept the URL after one of Datahog's paths is appended.
_LONGEST_BASE = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _with_good_port(url: str) -> str:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # The library's reason shows the text in place of the port, which is often a password.
        raise ValueError("must be a URL with a host and optionally a port from 0 to 65535") from None
    return url


def _without_fault(url: str) -> str:
    if fault := url_fault(url):
        raise ValueError(fault)
    return url


def _base(url: str) -> str:
    if "?" in url or len(url) > _LONGEST_BASE:
        raise ValueError(f"must be at most {_LONGEST_BASE} characters, without a query: paths are appended to it")
    return url


def _origin(url: str) -> str:
    """Returns the URL as browsers write it in `Origin` (RFC 6454): lower case, no default port, no final slash.

    Raises ValueError for a URL with a path.
    """
    parts = urlsplit(url)
    if parts.path not in ("", "/"):
        raise ValueError("must be a scheme, a host and optionally a port, such as http://localhost:8080: no path")
    host = re.sub(r":[0-9]*$", "", parts.netloc.lower())
    shown = parts.port not in (None, _DEFAULT_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if shown else "")


HttpUrl = Annotated[str, AfterValidator(_without_fault), AfterValidator(_with_good_port), AfterValidator(_base)]
Origin = Annotated[HttpUrl, AfterValidator(_origin)]
RedisUrl = Annotated[str, Field(pattern=r"^(rediss?|unix)://\S+$"), AfterValidator(_with_good_port)]
