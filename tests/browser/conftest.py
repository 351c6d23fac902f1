"""What the browser tests share: a running system with its viewer, the browser, and a page that is watched."""

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
    """A headless Chromium; it ends with the module, so that no test after it meets its event loop."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A whole running system, as `make run` starts it: with the viewer."""
    with System(system_settings(tmp_path_factory.mktemp("browser"))) as running:
        running.start()
        running.start("viewer")
        yield running


@pytest.fixture
def viewer(system: System) -> str:
    """The viewer's URL as people type it."""
    return f"http://localhost:{system.settings.viewer_port}/"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that knows nothing of the pages before."""
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        yield context.new_page()


@pytest.fixture
def witness(page: Page) -> Iterator[Witness]:
    """Watches the page: whatever a test does with it, nothing of it leaves this machine or breaks."""
    watching = Witness(page)
    yield watching
    assert watching.asked_only_this_machine, watching.hosts
    assert watching.failures == []


@pytest.fixture
def swagger(page: Page, witness: Witness) -> SwaggerPage:
    """The page, to be used as Swagger UI; it is watched."""
    return SwaggerPage(page)


@pytest.fixture
def artefacts() -> Path:
    """Where screenshots are kept."""
    return Path(os.environ.get("DATAHOG_TEST_ARTEFACTS") or Path(__file__).parents[2] / ".artefacts")
