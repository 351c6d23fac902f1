"""Starts this machine's Chromium without access to other hosts, and watches its pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

# A host name that the browser resolves to this machine.
OTHER_NAME = "datahog.test"
_LOOPBACK = ("127.0.0.1", "localhost")
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-proxy-server",
    # Every other name fails to resolve, as on a machine without a network.
    "--host-resolver-rules="
    + ", ".join((f"MAP {OTHER_NAME} 127.0.0.1", "MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in _LOOPBACK))),
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, while the block runs. Without one, the test is skipped, or fails where `CI` is set."""
    program = _program()
    # The end of the block stops Playwright's event loop, which would conflict with those of other tests.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


class Witness:
    """Records the requests, failures and console messages of a page."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.failures: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", self._note_failure)
        page.on("pageerror", lambda error: self.failures.append(f"{error.name}: {error.message}"))
        page.on("console", self._note_complaint)

    @property
    def hosts(self) -> set[str]:
        """The hosts to which the page has sent requests."""
        return {urlsplit(url).hostname or "" for url in self.requests if not url.startswith(("data:", "blob:"))}

    @property
    def asked_only_this_machine(self) -> bool:
        """Whether the page has sent requests to this machine only."""
        return self.hosts <= {*_LOOPBACK, OTHER_NAME}

    def _note_complaint(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _note_failure(self, request: Request) -> None:
        self.failures.append(f"{request.method} {request.url}: {request.failure}")


def _program() -> str:
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found:
        return found
    missing = (
        f"no browser: none of {', '.join(_PROGRAMS)} is on the PATH; "
        "install one (Debian, Ubuntu: apt-get install chromium)"
    )
    # A skipped test would go unnoticed in CI.
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
