"""Swagger UI: the page that shows OpenAPI documents, its files, and the headers that guard both.

The files in `static/vendor` are those of one release of swagger-ui-dist (package.json); `make swagger-ui` renews them.
Nothing is loaded from another host.
"""

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

FILES = Path(__file__).parent / "static"
"""The folder to serve."""

FILE_HEADERS: Mapping[str, str] = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page(title: str, documents: Mapping[str, str], files: str = "") -> str:
    """The HTML page over `documents`, URLs by name; the first is shown first.

    `files` is the URL, ending with a slash, under which `FILES` is served. All URLs may be relative to the page.
    """
    listed = json.dumps([{"name": name, "url": url} for name, url in documents.items()])
    template = Template((FILES / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), documents=html.escape(listed), files=html.escape(files))


def page_headers(origins: Iterable[str] = ()) -> dict[str, str]:
    """The headers of the page; "Try it out" may call its own origin and `origins`."""
    # Swagger UI sets styles inline, and draws with data: images.
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": " ".join(["'self'", *sorted(set(origins))]),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in policy.items()),
        **FILE_HEADERS,
    }
