"""Drives Swagger UI as a person does: choose a document, authorize, try an operation out, read the response."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

# The declared responses below would fill most of the picture.
_FROM_HEAD_TO_RESPONSE = """block => {
    const head = block.getBoundingClientRect()
    const response = block.querySelector(".live-responses-table").getBoundingClientRect()
    return {x: head.x + scrollX, y: head.y + scrollY, width: head.width, height: response.bottom - head.y}
}"""


@dataclass(frozen=True)
class Shown:
    """A response as the page shows it."""

    status: int
    headers: Mapping[str, str]
    body: Any


class SwaggerPage:
    """A page that shows one document at a time."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, url: str, title: str) -> "SwaggerPage":
        """Open a URL, and wait until the page shows the document with this title."""
        self.page.goto(url)
        return self._await(title)

    def choose(self, name: str, title: str) -> "SwaggerPage":
        """Choose another document."""
        self.page.get_by_label("Select a definition").select_option(name)
        return self._await(title)

    @property
    def choices(self) -> list[str]:
        """The names of the documents in the selection."""
        return self.page.get_by_label("Select a definition").locator("option").all_inner_texts()

    @property
    def operation_ids(self) -> list[str]:
        """The operationIds of the operations on the page."""
        blocks = self.page.locator(".opblock").all()
        return [str(block.get_attribute("id")).rsplit("-", 1)[1] for block in blocks]

    def authorize(self, scheme: str, key: str) -> None:
        """Enter a key for a security scheme."""
        self.page.locator(".scheme-container .authorize").click()
        form = self.page.locator(".auth-container", has=self.page.locator("h4 code", has_text=scheme))
        form.locator("input").fill(key)
        form.get_by_role("button", name="Apply credentials").click()
        form.get_by_role("button", name="Close").click()
        expect(self.page.locator(".modal-ux")).to_have_count(0)

    def try_out(self, operation_id: str) -> "Trial":
        """Unfold an operation, and press Try it out."""
        block = self.unfold(operation_id)
        block.get_by_role("button", name="Try it out").click()
        return Trial(block)

    def unfold(self, operation_id: str) -> Locator:
        """Show an operation's parameters and responses."""
        block = self.page.locator(f".opblock[id$='-{operation_id}']")
        block.locator(".opblock-summary-control").click()
        expect(block.locator(".responses-table").first).to_be_visible()
        return block

    def _await(self, title: str) -> "SwaggerPage":
        expect(self.page.locator(".info .title")).to_contain_text(title)
        expect(self.page.locator(".opblock").first).to_be_visible()
        return self


class Trial:
    """An operation in "Try it out" mode; it starts with the values that the page fills in."""

    def __init__(self, block: Locator) -> None:
        self._block = block

    def fill(self, parameter: str, value: str) -> None:
        """Enter a parameter's value."""
        self._block.locator(f"tr[data-param-name='{parameter}'] input").fill(value)

    def replace_in_body(self, old: str, new: str) -> None:
        """Replace text in the body."""
        area = self._block.locator(".body-param textarea")
        area.fill(area.input_value().replace(old, new))

    def execute(self) -> Shown:
        """Press Execute, and return the response when the page shows it."""
        clear = self._block.get_by_role("button", name="Clear")
        if clear.is_visible():  # otherwise the page still shows the previous response
            clear.click()
        self._block.get_by_role("button", name="Execute").click()
        response = self._block.locator(".live-responses-table .response")
        # A read may wait for the end of a request.
        response.wait_for(timeout=40_000)
        return Shown(
            int(response.locator(".response-col_status").inner_text().split()[0]),
            dict(line.strip().split(": ", 1) for line in response.locator(".headerline").all_inner_texts()),
            json.loads(response.locator("code.language-json").inner_text()),
        )

    def photograph(self, file: Path) -> None:
        """Save a screenshot of the operation, from its head to the response."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._block.page.screenshot(path=file, full_page=True, clip=self._block.evaluate(_FROM_HEAD_TO_RESPONSE))
