"""The URLs among the settings: refused in words that say what to do, and written as those they are for write them."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from specs.schemas import url_fault

# Characters. With a path of ours behind it, it is still a URL that the documents take.
_LONGEST_BASE = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _with_good_port(url: str) -> str:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # The reason given would show what stands where the port should: often a password.
        raise ValueError("not a URL with a host and, if any, a port from 0 to 65535") from None
    return url


def _without_fault(url: str) -> str:
    if fault := url_fault(url):
        raise ValueError(fault)
    return url


def _base(url: str) -> str:
    if "?" in url or len(url) > _LONGEST_BASE:
        raise ValueError(f"a URL of at most {_LONGEST_BASE} characters without a query: paths are put behind it")
    return url


def _origin(url: str) -> str:
    """A base URL as browsers write it in `Origin` (RFC 6454): lower case, no default port, no slash at the end.

    Raises ValueError for one with a path.
    """
    parts = urlsplit(url)
    if parts.path not in ("", "/"):
        raise ValueError("an origin is a scheme, a host and, if any, a port, such as http://localhost:8080: no path")
    host = re.sub(r":[0-9]*$", "", parts.netloc.lower())
    shown = parts.port not in (None, _DEFAULT_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if shown else "")


HttpUrl = Annotated[str, AfterValidator(_without_fault), AfterValidator(_with_good_port), AfterValidator(_base)]
Origin = Annotated[HttpUrl, AfterValidator(_origin)]
RedisUrl = Annotated[str, Field(pattern=r"^(rediss?|unix)://\S+$"), AfterValidator(_with_good_port)]
