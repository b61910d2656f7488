"""The report in a browser: axe finds no violation, Tab reaches every control, it fits a phone."""

from collections.abc import Iterator

import pytest

from idif.report import write_report
from tests.helpers.browser import CHROMIUM
from tests.helpers.report_runs import images_of, make_run

pytest.importorskip("playwright", reason="playwright not installed; the extra `test` brings it")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

PHONE, DESKTOP = 390, 1280
REACHED = "[...document.querySelectorAll('a[href], summary, button, input, select, [tabindex=\"0\"]')]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the comparison of two runs, one of them with a category that has no defective sample."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    return write_report(runs, images=images_of()).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium not found; the report is not opened")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, report: str, scheme: str, width: int) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(report)
    found = Axe().run(page).response
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
    page.close()


def test_tab_reaches_everything_in_the_order_of_the_page(browser: Browser, report: str) -> None:
    page = browser.new_page(viewport={"width": DESKTOP, "height": 900})
    page.goto(report)
    count = page.evaluate(f"{REACHED}.filter(e => e.checkVisibility()).length")
    assert count > 3
    for place in range(count):
        page.keyboard.press("Tab")
        at = f"{REACHED}.filter(e => e.checkVisibility()).indexOf(document.activeElement)"
        assert page.evaluate(at) == place
        outlined = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outlined) != "none", "the focus must be seen"
    page.close()
