"""Compiles schemas in one way for all services, so that one never refuses a value that another has accepted."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from specs import CLIENT, read

# Characters that RFC 3986, 2 does not allow in a URI. It allows "[" and "]" only around an IPv6 address.
_FOREIGN = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"https?://([^/?#]*)")


def validator(
    schema: Mapping[str, Any], components: Mapping[str, Any] | None = None, *, mask: str | None = None
) -> jsonschema_rs.Draft4Validator:
    """Returns the validator of a schema, which may refer to the `components` of its document.

    The validator checks formats too. With `mask`, its messages contain this text instead of the value.
    """
    # References into the components resolve only if the components are part of the schema.
    whole = {"allOf": [schema], "components": components} if components else dict(schema)
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True, mask=mask)


@cache
def component(name: str, schema: str) -> jsonschema_rs.Draft4Validator:
    """Returns the validator of the component `schema` of the document `name` (`aggregator` or `client`)."""
    components = read(name)["components"]
    return validator(components["schemas"][schema], components)


def url_fault(url: str) -> str | None:
    """Returns the fault of an http or https URL and its remedy; None for a URL that the documents accept (`HttpUrl`).

    Such a URL must also name a host, and have no user, password or fragment; fragments are never sent. The text repeats
    at most the one wrong character of the URL, because a URL may contain a secret.
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
