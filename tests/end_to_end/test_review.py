"""The loop on the running service: a wrong answer, its correction, its review by key, and the next answer."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.backend.factories import make_picture
from tests.end_to_end.conftest import Ask
from tests.end_to_end.test_admin_browser import DESKTOP, PHONE, browser, open_admin
from tests.live import LiveService

__all__ = ["browser"]

WITHIN_SECONDS = 60
SOON_MS = 20_000  # a page that waits for a worker, on a busy machine


def call(service: LiveService, method: str, path: str, wanted: int, **body):
    answer = requests.request(
        method, f"{service.url}/api/v1/{path}", headers=service.headers, timeout=60, **body
    )
    assert answer.status_code == wanted, answer.text
    return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else None


@pytest.fixture
def product(live_service: LiveService) -> Iterator[str]:
    """A product of its own, without pictures."""
    sku = f"LOOP-{uuid4().hex[:6]}"
    call(live_service, "POST", "products", 201, json={"sku": sku, "name": f"Looped {sku}"})
    yield sku
    call(live_service, "DELETE", f"products/{sku}", 204)


@pytest.fixture
def no_other_corrections(live_service: LiveService) -> None:
    """Of other tests, which left theirs open."""
    for row in call(live_service, "GET", "corrections?state=open&page_size=500", 200)["results"]:
        call(live_service, "POST", f"corrections/{row['id']}/reject", 200, json={"note": "of another test"})


def nearest(recognise: Ask, photo: bytes) -> str:
    return recognise(photo).json()["items"][0]["candidates"][0]["product"]["sku"]


def wait_until_nearest(recognise: Ask, photo: bytes, sku: str, *, wanted: bool = True) -> None:
    """Enrolment waits for a worker that others use too."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while (nearest(recognise, photo) == sku) is not wanted:
        assert time.monotonic() < deadline, f"{sku} is {'not ' if wanted else ''}answered"
        time.sleep(0.5)


def correct(service: LiveService, recognise: Ask, photo: bytes, sku: str | None) -> int:
    recognition = recognise(photo).json()["id"]
    return call(
        service, "POST", f"recognitions/{recognition}/corrections", 201, json={"item": 1, "sku": sku}
    )["id"]


def test_over_the_api_a_correction_makes_the_next_answer_right(
    live_service, recognise, product, query_images
):
    photo, like = (make_picture(4_001, size=(300, 300), quality=quality) for quality in (95, 60))
    assert nearest(recognise, like) != product
    correction = correct(live_service, recognise, photo, product)
    checked = call(live_service, "POST", f"corrections/{correction}/check", 200)
    assert checked["last_check"]["own"] is None
    assert checked["last_check"]["box"] == recognise(photo).json()["items"][0]["box"]
    accepted = call(live_service, "POST", f"corrections/{correction}/accept", 200, json={})
    assert (accepted["state"], accepted["reviewed_by"]) == ("accepted", "demo till")
    wait_until_nearest(recognise, like, product)
    # Said to be something else now, it would take this product's only like picture along.
    image = accepted["reference_image"]
    dry = call(live_service, "POST", f"products/{product}/reference-images/check", 200, files={"image": like})
    assert {one["finding"]: one["reference_image"] for one in dry["findings"]}["near-duplicate"] == image
    other = nearest(recognise, query_images[0].read_bytes())  # a product that has pictures
    dry = call(live_service, "POST", f"products/{other}/reference-images/check", 200, files={"image": like})
    found = {one["finding"]: one for one in dry["findings"]}
    assert found["near-duplicate"]["sku"] == found["closer-to-another-product"]["sku"] == product
    findings = call(live_service, "GET", f"products/{product}/reference-images/{image}/findings", 200)
    assert {one["finding"] for one in findings["findings"]} == {"blurred"}
    undone = call(live_service, "POST", f"corrections/{correction}/undo", 200)
    assert (undone["state"], undone["reference_image"]) == ("open", None)
    wait_until_nearest(recognise, like, product, wanted=False)
    call(live_service, "POST", f"corrections/{correction}/reject", 200, json={"note": "enough"})


@pytest.mark.browser
@pytest.mark.usefixtures("no_other_corrections")
def test_corrections_are_reviewed_by_key(
    browser: Browser, live_service: LiveService, recognise: Ask, product: str, query_images: list[Path]
):
    photo, like = (make_picture(4_002, size=(300, 300), quality=quality) for quality in (95, 60))
    first = correct(live_service, recognise, photo, product)
    second = correct(live_service, recognise, query_images[0].read_bytes(), None)
    third = correct(live_service, recognise, make_picture(4_003, size=(300, 300)), product)
    with open_admin(browser, live_service, "manager") as page:
        page.get_by_role("link", name="Review", exact=True).first.click()
        expect(page.get_by_text("1 of 3 that wait")).to_be_visible(timeout=SOON_MS)
        expect(page.get_by_text("this would be its first")).to_be_visible(timeout=SOON_MS)
        expect(page.locator("[data-check]")).to_contain_text("blurred", timeout=SOON_MS)
        expect(page.get_by_role("img", name="Crop of the query image")).to_be_visible(timeout=SOON_MS)

        page.keyboard.press("s")
        expect(page.get_by_text("No picture comes of it")).to_be_visible(timeout=SOON_MS)
        page.keyboard.press("r")
        expect(page).to_have_url(review_url(live_service, third), timeout=SOON_MS)
        page.goto(review_url(live_service, first))
        page.keyboard.press("a")
        expect(page).to_have_url(review_url(live_service, third), timeout=SOON_MS)
        wait_until_nearest(recognise, like, product)

        # The last decision is taken back by key, and the picture goes.
        page.keyboard.press("u")
        expect(page.get_by_text(f"Correction {first} to {product} is open again.")).to_be_visible(
            timeout=SOON_MS
        )
        wait_until_nearest(recognise, like, product, wanted=False)
        page.keyboard.press("r")
        expect(page.get_by_text("1 of 1 that wait")).to_be_visible(timeout=SOON_MS)
        page.keyboard.press("r")
        expect(page.get_by_role("heading", name="No correction waits for review")).to_be_visible(
            timeout=SOON_MS
        )
        expect(page.locator(".ck-lately li").first).to_contain_text("rejected", timeout=SOON_MS)
    states = {
        row["id"]: row["state"]
        for row in call(live_service, "GET", "corrections?page_size=500", 200)["results"]
    }
    assert {states[pk] for pk in (first, second, third)} == {"rejected"}


def review_url(service: LiveService, pk: int) -> str:
    return f"{service.url}/admin/checkout/correction/review/{pk}/"


@pytest.mark.browser
@pytest.mark.usefixtures("no_other_corrections")
def test_what_makes_others_worse_is_shown_with_them_and_wants_a_reason(
    browser: Browser, live_service: LiveService, recognise: Ask, product: str
):
    """The same pattern twice under one SKU; then a third shot of it is said to be another product."""
    shots = [make_picture(4_004, size=(300, 300), quality=quality) for quality in (95, 30, 80)]
    for shot in shots[:2]:
        call(
            live_service,
            "POST",
            f"products/{product}/reference-images",
            201,
            files={"image": ("p.jpg", shot)},
        )
    wait_until_nearest(recognise, shots[2], product)
    correction = correct(live_service, recognise, shots[2], "TEA-BLACK")
    with open_admin(browser, live_service, "manager") as page:
        page.goto(review_url(live_service, correction))
        check = page.locator("[data-check]")
        expect(check).to_contain_text("worsens-neighbours", timeout=WITHIN_SECONDS * 1000)
        expect(check).to_contain_text(
            f"{product} Looped {product} would find this one first", timeout=SOON_MS
        )
        expect(check.get_by_role("heading", name="be answered wrong")).to_be_visible(timeout=SOON_MS)
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"the page is {width} pixels wide"
        page.set_viewport_size(DESKTOP)

        page.keyboard.press("a")
        expect(page.get_by_role("alert")).to_contain_text(
            "reject it, or accept it all the same and say why", timeout=SOON_MS
        )
        page.get_by_role("button", name="Accept all the same").click()
        expect(page.get_by_role("alert")).to_contain_text("Found no note", timeout=SOON_MS)
        page.get_by_label("say why").fill("the pack changed")
        page.get_by_label("say why").press("Enter")
        expect(page.get_by_role("heading", name="No correction waits for review")).to_be_visible(
            timeout=SOON_MS
        )
        expect(page.locator(".ck-lately li").first).to_contain_text("accepted", timeout=SOON_MS)
        page.locator(".ck-lately li").first.get_by_role("button", name="Undo").click()
        expect(page.get_by_text("is open again")).to_be_visible(timeout=SOON_MS)
        reject(page)


def reject(page: Page) -> None:
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("heading", name="No correction waits for review")).to_be_visible(timeout=SOON_MS)
