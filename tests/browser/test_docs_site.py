"""The site that `make docs` builds, opened as files on a machine without a network."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import Witness

_SITE = Path(__file__).parents[2] / ".site"
pytestmark = pytest.mark.skipif(not (_SITE / "index.html").is_file(), reason="`make docs` has not built the site")


@pytest.fixture
def site_witness(page: Page) -> Witness:
    return Witness(page)


def test_the_diagrams_are_drawn_without_a_network(page: Page, site_witness: Witness) -> None:
    page.goto((_SITE / "architecture.html").as_uri())

    # A drawn diagram is a div with an SVG in a closed shadow root; before, it is a `pre` with its source text.
    expect(page.locator("div.mermaid")).to_have_count(5, timeout=30_000)
    expect(page.locator("pre.mermaid")).to_have_count(0)
    assert (site_witness.hosts, site_witness.failures) == ({""}, [])


def test_the_search_finds_a_page_without_a_network(page: Page, site_witness: Witness) -> None:
    page.goto((_SITE / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("circuit breaker")

    expect(page.get_by_text(re.compile(r"\d+ results"))).to_be_visible(timeout=30_000)
    assert (site_witness.hosts, site_witness.failures) == ({""}, [])
