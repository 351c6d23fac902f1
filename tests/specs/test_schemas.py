"""Schemas: both documents accept each URL that the start checks accept; an error names the fault of any other."""

import re
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

import specs
from providers.model import Provider
from specs.schemas import component, url_fault

# Characters of URLs, and other characters that people put into them.
_CHARACTERS = ascii_letters + digits + "/?#[]@!$&'()*+,;=:%-._~" + '{}|\\^`"<> üß\x00\x7f\ud800'

WRONG = [
    ("http://gas.test/bills/{id}", "'{' must not stand in a URL (RFC 3986); write %7B"),
    ("http://gas.test/bills?of={id}", "'{' must not stand"),
    ("http://gas.test/a|b", "'|' must not stand in a URL (RFC 3986); write %7C"),
    ("http://gas.test/büro", "'\\xfc' must not stand in a URL (RFC 3986); write %C3%BC"),
    ("http://gas.test/a b", "' ' must not stand in a URL (RFC 3986); write %20"),
    ("http://gas.test/[a]", "'[' must not stand in a URL (RFC 3986); write %5B"),
    ("http://gas.test/?a[]=1", "'[' must not stand"),
    ("http://gas.test/]", "']' must not stand"),
    ("http://gas.test/a\\b", "'\\\\' must not stand"),
    ("http://gas.test/a^b", "'^' must not stand"),
    ("http://gas.test/a`b", "'`' must not stand"),
    ('http://gas.test/"', "'\"' must not stand"),
    ("http://gas.test/<a>", "'<' must not stand"),
    ("http://gas.test/a\nb", "'\\n' must not stand"),
    ("http://gas.test/%zz", "a % must be followed by two hexadecimal digits"),
    ("http://gas.test/100%", "a % must be followed by two hexadecimal digits"),
    ("http://gas.test/a#b", "has a fragment"),
    ("http://bücher.test/", "an international host is written in ASCII, as xn--..."),
    ("http://user:word@gas.test/", "not allowed: a URL with a user or a password in it"),
    ("http://[::1/", "is no URL as RFC 3986 describes them"),
    ("http://gas.test:port/", "is no URL as RFC 3986 describes them"),
    ("http://", "must name a host"),
    ("http:///bills", "must name a host"),
    ("http://:80/", "must name a host"),
    ("http://?a", "must name a host"),
    ("ftp://gas.test/", "must begin with http:// or https://"),
    ("HTTP://gas.test/", "must begin with http:// or https://"),
    ("gas.test", "must begin with http:// or https://"),
    ("http://gas.test/" + "a" * 2033, "must have at most 2048 characters"),
]


@pytest.mark.parametrize(("url", "fault"), WRONG, ids=[ascii(url)[:40] for url, _ in WRONG])
def test_an_error_names_the_fault_of_a_wrong_url(url: str, fault: str) -> None:
    assert (url_fault(url) or "").startswith(fault)


@pytest.mark.parametrize(
    "url",
    ["http://a", "https://gas.test:8443/a/../b%2f%7E;c=(d)?e='f'&g=*", "http://[2001:db8::1]:80/", "http://1.2.3.4/"],
)
def test_a_valid_url_has_no_fault(url: str) -> None:
    assert url_fault(url) is None


@given(st.text(_CHARACTERS, max_size=30).map("http://".__add__) | st.text(_CHARACTERS, max_size=30))
def test_both_documents_accept_a_url_without_fault(url: str) -> None:
    if url_fault(url) is None:
        for name in (specs.CLIENT, specs.AGGREGATOR):
            declared = component(name, "HttpUrl")
            assert declared.is_valid(url)
            assert declared.is_valid(Provider(url=url).shown_url)


@given(st.text("abc{}|%ü #[", max_size=8), st.text("abc{}|%ü #[", max_size=8))
def test_a_fault_repeats_at_most_one_character_of_the_url(before: str, after: str) -> None:
    fault = url_fault(f"http://gas.test/{before}?key={after}hunter2") or ""

    assert "hunter2" not in fault
    assert not re.search(r"key|gas\.test", fault)


def test_both_documents_agree_on_urls_and_results() -> None:
    aggregator, client = (specs.read(name)["components"]["schemas"] for name in (specs.AGGREGATOR, specs.CLIENT))

    for name in ("HttpUrl", "Result", "EndedJob", "ErrorText", "ProviderName", "RequestId", "Timestamp"):
        assert aggregator[name] == client[name]
