"""Schemas: compiled in one way for all who check a value, so that what one of them sends, no other refuses."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from specs import CLIENT, read

# RFC 3986, 2: what a URI is spelt with. "[" and "]" stand around an IPv6 address only.
_FOREIGN = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"https?://([^/?#]*)")


def validator(
    schema: Mapping[str, Any], components: Mapping[str, Any] | None = None, *, mask: str | None = None
) -> jsonschema_rs.Draft4Validator:
    """The validator of a schema, which may refer to the `components` of its document.

    Formats count. With `mask`, messages show this instead of the value.
    """
    # The components come along so that references into them are found.
    whole = {"allOf": [schema], "components": components} if components else dict(schema)
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True, mask=mask)


@cache
def component(name: str, schema: str) -> jsonschema_rs.Draft4Validator:
    """The validator of the schema of that name in the document `aggregator` or `client`."""
    components = read(name)["components"]
    return validator(components["schemas"][schema], components)


def url_fault(url: str) -> str | None:
    """What is wrong with an http or https URL, and what to do; None for one that the documents take (`HttpUrl`).

    It must also name a host, and have neither a user or password, nor a fragment, which is sent to nobody. No more of
    the URL is repeated than the one character that is wrong: there may be a secret in it.
    """
    declared = read(CLIENT)["components"]["schemas"]["HttpUrl"]
    if not re.match(declared["pattern"], url):
        return "must begin with http:// or https://"
    if len(url) > declared["maxLength"]:
        return f"must have at most {declared['maxLength']} characters"
    found = _AUTHORITY.match(url)
    authority = found[1] if found else ""
    if "@" in authority:
        return "not allowed: a URL with a user or a password in it"
    if not authority.partition(":")[0]:
        return "must name a host after http:// or https://"
    if not authority.isascii():
        return "an international host is written in ASCII, as xn--..."
    if wrong := _FOREIGN.search(url):
        return _escape(wrong[0])
    if _BAD_PERCENT.search(url):
        return "a % must be followed by two hexadecimal digits; write %25 for the sign itself"
    if "#" in url:
        return "has a fragment (#...), which is never sent; leave it out, or write %23 for the sign itself"
    if wrong := re.search(r"[\[\]]", url[found.end() if found else 0 :]):
        return _escape(wrong[0])
    if not component(CLIENT, "HttpUrl").is_valid(url):
        return "is no URL as RFC 3986 describes them; look at its host and port"
    return None


def _escape(character: str) -> str:
    escaped = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
    return f"{character!a} must not stand in a URL (RFC 3986); write {escaped}"
