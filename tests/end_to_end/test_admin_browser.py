"""The admin panel in a real browser, on the running service: what a catalogue manager does, by mouse and keyboard."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.backend.factories import make_picture
from tests.end_to_end.conftest import Ask
from tests.live import REPOSITORY, LiveService

pytestmark = pytest.mark.browser

PROGRESS = REPOSITORY / "backend" / "jobs" / "static" / "jobs" / "progress.js"
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
# Embedding waits for a worker that others use too.
EMBEDDED_WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def open_admin(
    browser: Browser, service: LiveService, username: str, size: dict[str, int] = DESKTOP
) -> Iterator[Page]:
    """A page that is logged in. A mistake of a script in it, at any time, fails the test."""
    page = browser.new_context(base_url=service.url, viewport=size, has_touch=size is PHONE).new_page()
    page.set_default_timeout(20_000)
    script_errors: list[str] = []
    page.on("pageerror", lambda error: script_errors.append(f"{page.url}: {error.stack}"))
    page.goto("/admin/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(service.password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview").first).to_be_attached()
    yield page
    page.context.close()
    assert script_errors == []


@pytest.fixture
def page(browser: Browser, live_service: LiveService) -> Iterator[Page]:
    with open_admin(browser, live_service, "manager") as page:
        yield page


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures of a pattern that no product of the demo has."""
    paths = []
    for seed in range(3):
        path = tmp_path / f"side-{seed}.jpg"
        path.write_bytes(make_picture(1_000 + seed, size=(400, 300), quality=95))
        paths.append(path)
    return paths


@pytest.fixture
def bad_picture(tmp_path: Path) -> Path:
    path = tmp_path / "shopping-list.jpg"
    path.write_text("milk, bread, apples")
    return path


def add_product(page: Page, sku: str, name: str, files: list[Path]) -> None:
    page.goto("/admin/catalogue/product/add/")
    page.get_by_label("SKU").fill(sku)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Price").fill("2.50")
    page.get_by_label("Currency").fill("EUR")
    page.locator("#id_pictures").set_input_files(files)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Pictures", exact=True)).to_be_visible()


def delete_product(page: Page, sku: str) -> None:
    page.goto(f"/admin/catalogue/product/?q={sku}")
    page.locator("#result_list tbody a").first.click()
    page.get_by_role("link", name="Delete product").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("was deleted successfully")).to_be_visible()


def wait_embedded(page: Page, count: int) -> None:
    embedded = page.locator(".ck-picture .ck-success", has_text="embedded")
    expect(embedded).to_have_count(count, timeout=EMBEDDED_WITHIN_MS)


def read_box(page: Page) -> list[float]:
    return [float(page.locator(f"[name=box_{side}]").input_value()) for side in ("x1", "y1", "x2", "y2")]


def places_on_stage(page: Page, *shares: tuple[float, float]) -> list[tuple[float, float]]:
    """Where on the screen the given shares of the picture's width and height are, when it is scrolled to."""
    stage = page.locator("[data-stage]")
    stage.evaluate("stage => stage.scrollIntoView({block: 'start'})")
    area = stage.bounding_box()
    assert area is not None
    return [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in shares]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """By mouse; both in shares of the picture's width and height."""
    here, there = places_on_stage(page, start, end)
    page.mouse.move(*here)
    page.mouse.down()
    page.mouse.move(*there, steps=5)
    page.mouse.up()


def drag_by_finger(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Likewise."""
    here, there = places_on_stage(page, start, end)
    screen = page.context.new_cdp_session(page)
    for event, points in (("touchStart", [here]), ("touchMove", [there]), ("touchEnd", [])):
        screen.send(
            "Input.dispatchTouchEvent",
            {"type": event, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )


def test_a_product_goes_in_its_box_is_corrected_and_a_photo_of_it_is_recognised(
    page: Page, pictures: list[Path], bad_picture: Path
) -> None:
    add_product(page, "BROWSER-1", "Browser biscuits", [pictures[0], bad_picture, pictures[1]])
    expect(page.get_by_text("2 pictures added.")).to_be_visible()
    expect(page.get_by_text("shopping-list.jpg: Found something else than an image")).to_be_visible()

    # More of them on the product's own page, sent one by one by the script.
    page.locator("#id_pictures").set_input_files([bad_picture, pictures[2], pictures[0]])
    # A smooth pattern is blurred: it is asked about first.
    question = page.locator(".ck-question", has_text="side-2.jpg was not added yet")
    expect(question).to_contain_text("blurred")
    question.get_by_role("button", name="Add it all the same").click()
    expect(page.locator(".ck-chosen")).to_contain_text("1 picture added.")
    expect(question).to_have_count(0)
    expect(page.locator(".ck-chosen")).to_contain_text(
        "shopping-list.jpg: Found something else than an image"
    )
    expect(page.locator(".ck-chosen")).to_contain_text(
        "side-0.jpg: product BROWSER-1 has this very picture already"
    )
    expect(page.locator(".ck-picture")).to_have_count(3)
    wait_embedded(page, 3)

    # The box of the first, by a handle, by keys, and drawn anew.
    page.locator(".ck-picture").first.get_by_role("link", name="Set box").click()
    expect(page.locator("[data-box]")).to_be_visible()

    page.get_by_role("button", name="Whole picture").click()
    assert read_box(page) == [0, 0, 400, 300]
    drag(page, (0.99, 0.99), (0.8, 0.9))
    assert read_box(page) == pytest.approx([0, 0, 320, 270], abs=3)
    drag(page, (0.4, 0.4), (0.5, 0.45))  # its inside moves it
    assert read_box(page) == pytest.approx([40, 15, 360, 285], abs=3)
    before = read_box(page)
    page.locator("[data-box]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    after = read_box(page)
    assert [new - old for new, old in zip(after, before, strict=True)] == pytest.approx([-2, 0, -2, -2])
    drag(page, (0.95, 0.99), (0.92, 0.97))  # outside of it a new one is drawn
    assert read_box(page) == pytest.approx([368, 291, 380, 297], abs=3)
    page.get_by_role("button", name="Undo changes").click()
    page.get_by_label("left (x1)").fill("20")
    page.get_by_label("top (y1)").fill("10")
    page.get_by_label("right (x2)").fill("390")
    page.get_by_label("bottom (y2)").fill("290")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".ck-picture").first).to_contain_text("box by a person")
    wait_embedded(page, 3)

    # A photo is dropped: its box, its product, and the reference image beside it.
    page.get_by_role("link", name="Recognise").click()
    drop_photo(page, pictures[0])
    row = page.locator(".ck-item", has_text="Browser biscuits").first
    expect(row).to_be_visible(timeout=EMBEDDED_WITHIN_MS)
    expect(row).to_contain_text("BROWSER-1")
    expect(row).to_contain_text("2.50 EUR")
    expect(row).to_contain_text(re.compile("recognised|needs confirmation"))
    expect(row.locator(".ck-candidates svg image").first).to_be_visible()
    number = row.get_attribute("data-item")
    box = page.locator(f'.ck-box[data-item="{number}"]')
    box.click()
    expect(row).to_have_class(re.compile("ck-chosen-item"))
    expect(box).to_have_attribute("aria-pressed", "true")

    # What it really was, from its own page.
    page.get_by_role("link", name="Open its page").click()
    row = page.locator(".ck-item", has_text="Browser biscuits").first
    row.get_by_text("Correct", exact=True).click()
    row.get_by_label("SKU of the other product").fill("BROWSER")
    expect(row.locator("datalist option")).to_have_count(1)
    row.get_by_role("button", name="Save the correction").click()
    expect(row.get_by_role("alert")).to_contain_text("there is no product 'BROWSER'")
    row.get_by_label("SKU of the other product").fill("BROWSER-1")
    row.get_by_role("button", name="Save the correction").click()
    expect(page.get_by_text("Corrected by manager: BROWSER-1 Browser biscuits")).to_be_visible()

    # The product is found in the list, and one picture less is one card less.
    page.goto("/admin/catalogue/product/")
    page.locator("#searchbar").fill("biscuits")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody tr.data-row")).to_have_count(1)
    page.get_by_role("link", name="Browser biscuits").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator(".ck-picture").last.get_by_role("link", name="Delete").click()
    expect(page.locator(".ck-picture")).to_have_count(2)
    delete_product(page, "BROWSER-1")


def drop_photo(page: Page, photo: Path) -> None:
    """As if it were dragged in from the desktop."""
    page.evaluate(
        """([zone, bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            const how = {dataTransfer: transfer, bubbles: true, cancelable: true};
            document.querySelector(zone).dispatchEvent(new DragEvent("drop", how));
        }""",
        ["[data-drop]", list(photo.read_bytes()), photo.name],
    )


def test_a_refused_photo_is_told_with_its_reason_and_the_next_one_goes_through(
    page: Page, bad_picture: Path, demo_catalogue: Path
) -> None:
    page.goto("/admin/checkout/recognition/recognise/")
    page.locator("#photo").set_input_files(bad_picture)
    status = page.locator("[data-status]")
    expect(status).to_contain_text("shopping-list.jpg: Found something else than an image")
    page.locator("#photo").set_input_files(next((demo_catalogue / "images" / "query").rglob("*.jpg")))
    expect(page.locator("[data-result]")).to_be_visible(timeout=EMBEDDED_WITHIN_MS)
    expect(status).to_contain_text("is answered")
    expect(page.locator(".ck-box").first).to_be_visible()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_missed_item_is_drawn_and_named_and_then_shown_as_missed(
    browser: Browser, live_service: LiveService, size: dict[str, int]
) -> None:
    with open_admin(browser, live_service, "manager", size) as page:
        page.goto("/admin/checkout/recognition/")
        page.locator("#result_list tbody a").first.click()
        n_before = page.locator(".ck-box.ck-missed").count()
        page.get_by_role("link", name="Add a missed item").click()
        editor = page.locator("[data-main-body]")
        width, height = (float(editor.get_attribute(f"data-{side}") or 0) for side in ("width", "height"))
        (drag_by_finger if size is PHONE else drag)(page, (0.1, 0.2), (0.5, 0.6))
        drawn = [0.1 * width, 0.2 * height, 0.5 * width, 0.6 * height]
        assert read_box(page) == pytest.approx(drawn, abs=4)

        # A name alone is no SKU: it is said at the field, and the box stays.
        product = page.get_by_label("Which product it is")
        product.press_sequentially("CEREAL")
        expect(page.locator("datalist option").first).to_be_attached()
        sku = page.locator("datalist option").first.get_attribute("value")
        save = page.get_by_role("button", name="Save the missed item")
        save.click()
        expect(page.get_by_role("alert")).to_have_text("There is no product 'CEREAL' in the catalogue")
        expect(product).to_have_value("CEREAL")
        assert read_box(page) == pytest.approx(drawn, abs=4)
        page_width = page.evaluate("document.documentElement.scrollWidth")
        assert page_width <= size["width"], f"the page is {page_width} pixels wide"

        # By keyboard alone: a box outside of the photo, then one inside.
        product.fill(sku or "")
        right = page.get_by_label("right (x2)")
        right.fill(f"{width + 1:g}")
        right.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("is no box inside the picture")
        expect(product).to_have_value(sku or "")
        right.fill(f"{width:g}")
        page.locator("[data-box]").focus()
        page.keyboard.press("Shift+ArrowLeft")
        assert read_box(page)[2] < width
        save.focus()
        page.keyboard.press("Enter")

        expect(page.get_by_text("The missed item was added")).to_be_visible()
        boxes, rows = page.locator(".ck-box.ck-missed"), page.locator(".ck-item.ck-missed")
        expect(boxes).to_have_count(n_before + 1)
        expect(rows.last).to_contain_text(f"{sku}. No box came for it; added by manager.")
        rows.last.get_by_role("button", name="Show this missed item").click()
        expect(boxes.last).to_have_attribute("aria-pressed", "true")
        # It lies over the photo where it was drawn.
        place = boxes.last.evaluate(
            "box => [box.offsetLeft / box.parentElement.clientWidth, box.offsetTop / box.parentElement.clientHeight]"
        )
        assert place == pytest.approx([0.1, 0.2], abs=0.02)


def test_words_at_boxes_cover_neither_other_words_nor_numbers(
    browser: Browser, live_service: LiveService, recognise: Ask, query_images: list[Path]
) -> None:
    answer = recognise(query_images[0]).json()
    width, height = answer["image"]["width"], answer["image"]["height"]
    sku = answer["items"][0]["candidates"][0]["product"]["sku"]
    corners = random.Random(2).choices([(x / 20, y / 20) for x in range(18) for y in range(18)], k=12)
    for x, y in corners:
        box = [x * width, y * height, min(1, x + 0.25) * width, min(1, y + 0.3) * height]
        corrected = requests.post(
            f"{live_service.url}/api/v1/recognitions/{answer['id']}/corrections",
            headers=live_service.headers,
            json={"box": box, "sku": sku},
            timeout=30,
        )
        assert corrected.status_code == 201
    with open_admin(browser, live_service, "manager") as page:
        page.goto(f"/admin/checkout/recognition/{answer['id']}/change/")
        for viewport_width in (1400, 1280, 1024, 700, 390):
            page.set_viewport_size({"width": viewport_width, "height": 900})
            labels = page.locator(".ck-box-label").evaluate_all(
                """labels => labels.map((label) => {
                    const {left, top, right, bottom} = label.getBoundingClientRect();
                    const worded = label.querySelector(".ck-box-words").offsetParent !== null;
                    return {left, top, right, bottom, worded};
                })"""
            )
            assert len(labels) == 13
            worded = [one for one in labels if one["worded"]]
            assert bool(worded) == (viewport_width > 390)
            for one in worded:
                covered = [
                    other
                    for other in labels
                    if other is not one
                    and one["left"] < other["right"]
                    and other["left"] < one["right"]
                    and one["top"] < other["bottom"]
                    and other["top"] < one["bottom"]
                ]
                assert covered == [], f"at {viewport_width} pixels"


def test_a_manager_sees_no_operators_pages(page: Page) -> None:
    menu = page.locator("#nav-sidebar-apps")
    expect(menu.get_by_role("link", name="Products")).to_be_visible()
    for entry in ("Devices", "Users", "Roles", "Audit log", "Embeddings", "Models"):
        expect(menu.get_by_role("link", name=entry, exact=True)).to_have_count(0)
    for address in ("access/device", "auth/user", "gallery/embedding"):
        answer = page.goto(f"/admin/{address}/")
        assert answer is not None
        assert answer.status == 403
        expect(page.get_by_role("heading", name="Forbidden")).to_be_visible()


@pytest.fixture
def operators_page(browser: Browser, live_service: LiveService) -> Iterator[Page]:
    with open_admin(browser, live_service, live_service.username) as page:
        yield page


def test_a_jobs_progress_leaves_the_state_of_a_row_that_is_no_jobs(page: Page) -> None:
    """As the list of generations shows it, beside the generation's own state."""
    job = {
        "state": "paused",
        "cursor": 3,
        "total": 9,
        "failed": 0,
        "count": "3 of 9",
        "pace": "-",
        "stage": "",
    }
    page.route("**/a-job/", lambda route: route.fulfill(json=job))
    progress = '<td data-job="/a-job/" data-state="running"><progress></progress><i data-count></i></td>'
    page.set_content(
        f'<table><tr id="generation"><td><span class="ck-label">Building</span></td>{progress}</tr>'
        f'<tr id="job"><td><span data-job-state><span class="ck-label">running</span></span></td>{progress}</tr>'
        "</table>"
    )
    page.add_script_tag(path=PROGRESS, type="module")
    for row, state in (("#generation", "Building"), ("#job", "paused")):
        expect(page.locator(f"{row} [data-count]")).to_have_text("3 of 9")
        expect(page.locator(f"{row} .ck-label")).to_have_text(state)


def test_an_operator_makes_a_device_and_its_key_is_shown_once(operators_page: Page) -> None:
    page = operators_page
    page.goto("/admin/access/device/add/")
    page.get_by_label("Name").fill("browser till")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.locator("[data-key]").inner_text()
    assert key.startswith("ck_")
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="browser till").click()
    expect(page.get_by_role("link", name="Renew key")).to_be_visible()
    assert key not in page.content()
    page.get_by_role("link", name="Delete device").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("was deleted successfully")).to_be_visible()


def test_pages_fit_a_phone(browser: Browser, live_service: LiveService) -> None:
    with open_admin(browser, live_service, live_service.username, PHONE) as page:

        def first_link_of(address: str) -> str:
            page.goto(address)
            return str(page.locator("#result_list tbody a").first.get_attribute("href"))

        product = first_link_of("/admin/catalogue/product/")
        for address in (
            "/admin/", "/admin/catalogue/product/", product, "/admin/catalogue/product/import/",
            "/admin/catalogue/referenceimage/", first_link_of("/admin/catalogue/referenceimage/"),
            "/admin/catalogue/productset/add/", "/admin/jobs/job/", "/admin/checkout/recognition/recognise/",
            "/admin/checkout/recognition/", first_link_of("/admin/checkout/recognition/"),
            "/admin/gallery/generation/", "/admin/access/device/add/", "/admin/auditlog/logentry/",
        ):  # fmt: skip
            page.goto(address)
            page.wait_for_load_state("networkidle")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], f"{address} is {width} pixels wide"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_sidebar_and_the_account_are_opened_and_closed_by_keyboard(
    browser: Browser, live_service: LiveService, size: dict[str, int]
) -> None:
    with open_admin(browser, live_service, "manager", size) as page:
        menu = page.get_by_role("button", name="Menu")
        products = page.locator("#nav-sidebar-apps").get_by_role("link", name="Products")
        opened = [False, True, False] if size is PHONE else [True, False, True]
        expect(menu).to_have_count(1)
        for _ in range(60):  # however long the way there is
            page.keyboard.press("Tab")
            if menu.evaluate("toggle => toggle === document.activeElement"):
                break
        for now, key in zip(opened, ("Enter", "Space", ""), strict=True):
            focused = page.locator(":focus")
            expect(focused).to_have_accessible_name("Menu")
            expect(focused).to_have_attribute("aria-expanded", str(now).lower())
            expect(products).to_be_visible(visible=now)
            if key:
                page.keyboard.press(key)

        if not opened[-1]:
            page.keyboard.press("Enter")
        page.get_by_role("button", name="Account").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
