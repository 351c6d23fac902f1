"""Swagger UI fits desktop and phone screens, in light and dark mode."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import specs
from tests.browser.chromium import Witness
from tests.browser.swagger import SwaggerPage
from tests.support.system import System

_BACKGROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(28, 32, 34)"}
_TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => `${element.tagName}.${element.className}`)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_operation_fits_the_screen(
    browser: Browser, viewer: str, artefacts: Path, width: int, scheme: str
) -> None:
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        witness = Witness(page)
        swagger = SwaggerPage(page).open(f"{viewer}?urls.primaryName=aggregator", "Datahog aggregator")
        artefacts.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=artefacts / f"swagger-ui-{width}-{scheme}.png")

        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == _BACKGROUND[scheme]
        for operation_id in swagger.operation_ids:
            swagger.try_out(operation_id) if operation_id == "createRequest" else swagger.unfold(operation_id)
        assert page.evaluate(_TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (witness.failures, witness.complaints) == ([], [])
        assert witness.asked_only_this_machine


def test_the_button_switches_between_light_and_dark(swagger: SwaggerPage, system: System) -> None:
    swagger.open(system.client + specs.UI_PATH, "Datahog client")

    for button, scheme in (("Switch to dark mode", "dark"), ("Switch to light mode", "light")):
        swagger.page.get_by_role("button", name=button).click()
        assert swagger.page.evaluate("getComputedStyle(document.body).backgroundColor") == _BACKGROUND[scheme]
