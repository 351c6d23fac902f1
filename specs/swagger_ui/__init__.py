"""Swagger UI: the page over OpenAPI documents, its files, and the headers that protect both.

The files in `static/vendor` come from one release of swagger-ui-dist (package.json); `make swagger-ui` updates them.
The page loads nothing from other hosts.
"""

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

FILES = Path(__file__).parent / "static"
"""The folder of static files to serve."""

FILE_HEADERS: Mapping[str, str] = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page(title: str, documents: Mapping[str, str], files: str = "") -> str:
    """Returns the HTML page over `documents` (URLs by name), which opens with the first one.

    `files` is the URL under which `FILES` is served; it ends with a slash. All URLs may be relative to the page.
    """
    listed = json.dumps([{"name": name, "url": url} for name, url in documents.items()])
    template = Template((FILES / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), documents=html.escape(listed), files=html.escape(files))


def page_headers(origins: Iterable[str] = ()) -> dict[str, str]:
    """Returns the headers of the page. Its "Try it out" may call its own origin and `origins`."""
    # Swagger UI uses inline styles and data: images.
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
