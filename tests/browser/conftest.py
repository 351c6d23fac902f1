"""Fixtures of the browser tests: a running system with its viewer, the browser, and a watched page."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import Witness, chromium
from tests.browser.swagger import SwaggerPage
from tests.support.system import System, system_settings


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; it ends with the module, because its event loop conflicts with those of later tests."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A whole running system with the viewer, as `make run` starts it."""
    with System(system_settings(tmp_path_factory.mktemp("browser"))) as running:
        running.start()
        running.start("viewer")
        yield running


@pytest.fixture
def viewer(system: System) -> str:
    """The viewer's URL, with `localhost` as its host."""
    return f"http://localhost:{system.settings.viewer_port}/"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a new browser context, without cookies or storage."""
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        yield context.new_page()


@pytest.fixture
def witness(page: Page) -> Iterator[Witness]:
    """Watches the page; fails the test if the page calls another host or breaks."""
    watching = Witness(page)
    yield watching
    assert watching.asked_only_this_machine, watching.hosts
    assert watching.failures == []


@pytest.fixture
def swagger(page: Page, witness: Witness) -> SwaggerPage:
    """The watched page, driven as Swagger UI."""
    return SwaggerPage(page)


@pytest.fixture
def artefacts() -> Path:
    """The directory for screenshots."""
    return Path(os.environ.get("DATAHOG_TEST_ARTEFACTS") or Path(__file__).parents[2] / ".artefacts")
