"""Evaluations in a real browser: what `evaluate_recall` stored on the running service, alone and two side by side."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import REPOSITORY
from tests.end_to_end.test_admin_browser import DESKTOP, PHONE, browser, open_admin
from tests.live import LiveService

__all__ = ["browser"]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def evaluated(live_service: LiveService) -> None:
    """Two evaluations of the demo catalogue, a fifth of the products held out of each."""
    for strategy in ("float", "hash"):
        done = live_service.manage(
            "evaluate_recall", "--folder", str(REPOSITORY / "fixtures" / "demo_catalogue"), "--open-set", "0.2",
            "--index", "FLAT", "--index", "BIN_FLAT", "--strategy", strategy,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def is_shown(page: Page, selector: str) -> list[bool]:
    """Whether each picture is there and has pixels."""
    return page.locator(selector).evaluate_all(
        "found => found.map(one => one.complete && one.naturalWidth > 0)"
    )


@pytest.mark.usefixtures("evaluated")
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_an_evaluation_shows_its_charts_pairs_and_advice(
    browser: Browser, live_service: LiveService, size: dict[str, int]
) -> None:
    with open_admin(browser, live_service, "manager", size) as page:
        page.goto("/admin/evaluation/evaluationrun/")
        page.locator("#result_list tbody a").first.click()
        for heading in ("What would be answered", "Similarity of the best candidate", "Products"):
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        charts = page.locator("figure.ck-chart svg")
        expect(charts).to_have_count(4)  # risk and coverage, open set, reliability, similarities
        for chart in charts.all():
            box = chart.bounding_box()
            assert box is not None
            assert 200 < box["width"] <= size["width"]
            assert chart.locator("polyline, path").count()
        pictures = is_shown(page, ".ck-pair img")
        assert len(pictures) >= 4
        assert all(pictures)
        expect(page.get_by_text("BIN_FLAT hash").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.usefixtures("evaluated")
def test_two_evaluations_lie_side_by_side(browser: Browser, live_service: LiveService) -> None:
    with open_admin(browser, live_service, "manager") as page:
        page.goto("/admin/evaluation/evaluationrun/")
        for row in (0, 1):
            page.locator("#result_list tbody input[type=checkbox]").nth(row).check()
        page.locator("select[name=action]").select_option(label="Compare two side by side")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("heading", name="Side by side")).to_be_visible()
        expect(page.get_by_text("R@1 query by query: +0.00 points")).to_have_count(1)  # of the exact line
