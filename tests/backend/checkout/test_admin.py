"""Recognising in the admin, a recognition's page, corrections, and why an item is not recognised."""

import io
import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from PIL import Image

from backend.catalogue.models import Product, ProductSet
from backend.catalogue.services import add_reference_image
from backend.checkout.admin import NO_PRODUCT, OTHER_PRODUCT
from backend.checkout.crops import drop_crops
from backend.checkout.display import explain, show_recognition
from backend.checkout.models import Correction, RecognisedItem, Recognition, RecognitionState
from backend.checkout.selectors import list_confusions
from backend.checkout.services import correct, forget_query_image
from backend.gallery.models import Generation, GenerationState, InstalledModel, ThresholdSet
from tests.backend.factories import make_picture, make_product, make_staff

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


def candidate(sku: str, similarity: float, reference_image: int = 0) -> dict:
    product = {"sku": sku, "gtin": None, "name": f"Product {sku}", "price": "1.99", "currency": "EUR"}
    return {"product": product, "similarity": similarity, "reference_image": reference_image}


def item(number: int, result: str, *candidates: dict) -> dict:
    best = candidates[0] if candidates else None
    return {
        "id": number,
        "box": [10.0 * number, 10.0, 10.0 * number + 40, 90.0],
        "detection_score": 0.9,
        "result": result,
        "product": best["product"] if best and result != "unknown" else None,
        "similarity": best["similarity"] if best else None,
        "confidence": None,
        "candidates": list(candidates),
        "basket_reason": None if result == "recognised" else result.replace("_", "-"),
    }


def make_recognition(*items: dict, **changes) -> Recognition:
    """A recognition that is done, as a worker leaves it."""
    recognition = Recognition(asked_by="till 1", state=RecognitionState.DONE, image_format="JPEG")
    recognition.answer = {
        "id": str(recognition.pk),
        "state": "done",
        "image": {"width": 160, "height": 120},
        "main_body_found": True,
        "product_set": None,
        "strategy": "float",
        "generation": 1,
        "threshold_set": None,
        "models": {"detector": "picodet 1", "embedder": "lite 1"},
        "items": list(items),
        "basket": {"lines": [], "total": None, "currency": None, "complete": False},
        "timings_ms": {"decode": 3.1, "search": 2.0, "worker": 40.0},
    } | changes
    recognition.image.save("", ContentFile(make_picture()), save=False)
    recognition.save()
    for shown in items:
        product = shown["product"] or {}
        RecognisedItem.objects.create(
            recognition=recognition, number=shown["id"], box=shown["box"], result=shown["result"],
            sku=product.get("sku", ""), name=product.get("name", ""), similarity=shown["similarity"],
        )  # fmt: skip
    return recognition


def change_url(recognition: Recognition) -> str:
    return reverse("admin:checkout_recognition_change", args=[recognition.pk])


def test_a_recognition_shows_boxes_products_and_the_reference_images_that_matched(manager):
    image = add_reference_image(product=make_product("A"), data=make_picture(), box=[5, 5, 100, 100])
    lines = [{"sku": "A", "name": "Product A", "quantity": 1, "unit_price": "1.99", "line_total": "1.99"}]
    recognition = make_recognition(
        item(1, "recognised", candidate("A", 0.91, image.pk), candidate("B", 0.4, 999_999)),
        item(2, "unknown"),
        basket={"lines": lines, "total": "1.99", "currency": "EUR", "complete": False},
    )
    page = manager.get(change_url(recognition)).content.decode()
    boxes = re.findall(r'data-item="(\d)"[^>]*style="([^"]*)"[^>]*aria-label="([^"]*)"', page)
    assert [(number, label) for number, _, label in boxes] == [
        ("1", "Item 1: Product A, recognised"),
        ("2", "Item 2: no product, unknown"),
    ]
    assert boxes[0][1] == "left: 6.25%; top: 8.33%; width: 25.00%; height: 66.67%"
    assert reverse("admin:catalogue_referenceimage_thumbnail", args=[image.pk]) in page
    assert "deleted since" in page
    assert "1.99 EUR" in page
    assert "an item is unknown" in page
    assert "No product of the catalogue came near" in page


def test_the_photo_is_for_staff_with_the_permission(manager):
    recognition = make_recognition(item(1, "unknown"))
    for name in ("photo", "thumbnail"):
        url = reverse(f"admin:checkout_recognition_{name}", args=[recognition.pk])
        answer = manager.get(url)
        assert (answer.status_code, answer["Content-Type"]) == (200, "image/jpeg")
        assert answer["Cache-Control"].startswith("private")
        assert Client().get(url).headers["Location"].startswith("/admin/login/")
        assert make_staff(f"nobody {name}").get(url).status_code == 403


def test_a_purged_photo_is_said_to_be_deleted_and_the_boxes_stay(manager, settings):
    settings.QUERY_IMAGE_DAYS = 7
    recognition = make_recognition(item(1, "unknown", candidate("A", 0.2)))
    forget_query_image(recognition.pk)
    page = manager.get(change_url(recognition)).content.decode()
    assert "The image was deleted: query images are kept for 7 days." in page
    assert 'data-item="1"' in page
    for name in ("photo", "thumbnail"):
        url = reverse(f"admin:checkout_recognition_{name}", args=[recognition.pk])
        assert manager.get(url).status_code == 404
    assert "deleted" in manager.get(reverse("admin:checkout_recognition_changelist")).content.decode()


def test_how_a_recognition_without_an_answer_ended_is_told(manager):
    detail = "Milvus does not answer; nothing was lost, send the request again"
    for state, failure, said in (
        ("failed", {"status": 503, "code": "engine-unavailable", "detail": detail}, detail),
        ("expired", None, "No worker was free in time"),
        ("queued", None, "still under way"),
    ):
        recognition = Recognition.objects.create(state=state, failure=failure)
        assert said in manager.get(change_url(recognition)).content.decode()
    assert manager.get(reverse("admin:checkout_recognition_changelist")).status_code == 200
    assert manager.get(reverse("admin:index")).status_code == 200


def test_an_item_is_corrected_to_a_candidate_another_product_or_none(manager):
    make_product("A")
    make_product("B")
    recognition = make_recognition(item(1, "needs_confirmation", candidate("A", 0.6)))
    url = reverse("admin:checkout_recognition_correct", args=[recognition.pk])
    for form, sku in (
        ({"choice": "A"}, "A"),
        ({"choice": OTHER_PRODUCT, "other": " B "}, "B"),
        ({"choice": NO_PRODUCT}, ""),
    ):
        assert manager.post(url, {"item": "1"} | form).headers["Location"] == change_url(recognition)
        correction = Correction.objects.latest("created_at")
        assert (correction.sku, correction.made_by, correction.item.number) == (sku, "manager", 1)
    assert "Corrected by manager: not a product" in manager.get(change_url(recognition)).content.decode()
    by_script = manager.post(url, {"item": "1", "choice": "A"}, headers={"Accept": "application/json"})
    assert "Corrected by manager: A Product A" in by_script.json()["html"]
    assert "not a product" in manager.get(reverse("admin:checkout_correction_changelist")).content.decode()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"item": "1", "choice": OTHER_PRODUCT, "other": "NOPE"}, "there is no product 'NOPE'"),
        ({"item": "9", "choice": NO_PRODUCT}, "the recognition has no item 9"),
        ({"item": "x", "choice": NO_PRODUCT}, "'x' is no item's number"),
        ({"item": "1", "choice": OTHER_PRODUCT, "other": " "}, "Say which product it is"),
        ({"item": "1"}, "Say which product it is"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_with_the_reason(manager, form, said):
    recognition = make_recognition(item(1, "unknown"))
    url = reverse("admin:checkout_recognition_correct", args=[recognition.pk])
    answer = manager.post(url, form, headers={"Accept": "application/json"})
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert said.replace("'", "&#x27;") in manager.post(url, form, follow=True).content.decode()
    assert not Correction.objects.exists()


def test_only_who_may_correct_corrects():
    recognition = make_recognition(item(1, "unknown"))
    reader = make_staff("reader", permissions=["checkout.view_recognition"])
    assert "data-correct" not in reader.get(change_url(recognition)).content.decode()
    url = reverse("admin:checkout_recognition_correct", args=[recognition.pk])
    assert reader.post(url, {"item": "1", "choice": NO_PRODUCT}).status_code == 403
    assert reader.get(reverse("admin:checkout_recognition_recognise")).status_code == 403


def test_pairs_of_products_are_counted_by_the_last_correction_of_each_item(manager):
    for sku in ("A", "B"):
        make_product(sku)
    answered_a = [make_recognition(item(1, "recognised", candidate("A", 0.9))) for _ in range(3)]
    unknown = make_recognition(item(1, "unknown"))
    for recognition, choices in (
        (answered_a[0], ["B"]),
        (answered_a[1], [NO_PRODUCT, "B"]),
        (answered_a[2], ["B", "A"]),  # in the end the answer was right
        (unknown, ["A"]),
    ):
        for sku in choices:
            correct(recognition, made_by="anna", item=1, sku=None if sku == NO_PRODUCT else sku)
    for sku in ("A", "B", "B"):
        correct(unknown, made_by="anna", item=None, sku=sku, box=[1, 1, 9, 9])
    counted = {(pair.answered_sku, pair.sku): pair.n for pair in list_confusions(10)}
    assert counted == {("A", "B"): 2, (None, "B"): 2, ("", "A"): 1, (None, "A"): 1}
    assert [pair.n for pair in list_confusions(3)] == [2, 2, 1]

    url = reverse("admin:checkout_correction_show_confusions")
    page = manager.get(url).content.decode()
    product = Product.objects.get(sku="B")
    assert f'href="{reverse("admin:catalogue_product_change", args=[product.pk])}">Product B</a>' in page
    assert "nothing: it was missed" in page
    product.delete()
    assert manager.get(url).status_code == 200
    assert make_staff("nobody").get(url).status_code == 403


def test_corrections_stand_newest_first_each_with_its_crop(manager):
    recognition = make_recognition(item(1, "unknown"))
    first, second = (correct(recognition, made_by=who, item=1, sku=None) for who in ("anna", "ben"))
    page = manager.get(reverse("admin:checkout_correction_changelist"))
    assert list(page.context["cl"].result_list) == [second, first]
    url = reverse("admin:checkout_correction_crop", args=[first.pk])
    assert url in page.content.decode()
    cut = Image.open(io.BytesIO(manager.get(url).content))
    assert cut.size == (40, 80), "the box of the item, (10, 10) to (50, 90)"
    assert make_staff("nobody").get(url).status_code == 403
    forget_query_image(recognition.pk)
    assert manager.get(url).status_code == 200, "a correction keeps its crop"
    drop_crops()
    assert manager.get(url).status_code == 404, "but for one that is superseded"
    assert url not in manager.get(reverse("admin:checkout_correction_changelist")).content.decode()


def test_moments_are_told_alike_everywhere(manager):
    recognition = make_recognition(item(1, "unknown"))
    correct(recognition, made_by="anna", item=1, sku=None)
    Recognition.objects.update(created_at=datetime(2026, 11, 22, 14, 5, tzinfo=UTC))
    for url in (
        change_url(recognition),
        reverse("admin:checkout_recognition_changelist"),
        reverse("admin:checkout_correction_changelist"),
    ):
        assert "22 Nov 2026, 14:05" in manager.get(url).content.decode(), url


def post_missed(client: Client, recognition: Recognition, sku: str, *box: str) -> HttpResponse:
    sides = dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), box, strict=True))
    url = reverse("admin:checkout_recognition_missed", args=[recognition.pk])
    return client.post(url, {"sku": sku} | sides)


def test_a_missed_item_is_boxed_and_named_and_then_drawn_as_such(manager):
    product = make_product("A")
    recognition = make_recognition(item(1, "unknown"))
    url = reverse("admin:checkout_recognition_missed", args=[recognition.pk])
    assert url in manager.get(change_url(recognition)).content.decode()
    assert '<path d="M10.0 10.0H50.0V90.0H10.0Z"/>' in manager.get(url).content.decode()

    answer = post_missed(manager, recognition, " A ", "80", "30", "120", "90.5")
    assert answer.headers["Location"] == change_url(recognition)
    correction = Correction.objects.get()
    assert (correction.item, correction.box) == (None, [80, 30, 120, 90.5])
    assert (correction.product, correction.sku, correction.made_by) == (product, "A", "manager")

    page = manager.get(change_url(recognition)).content.decode()
    assert "1 item and 1 missed" in page
    assert 'aria-label="Missed item: Product A"' in page
    assert "left: 50.00%; top: 25.00%; width: 25.00%; height: 50.42%" in page
    assert "No box came for it; added by manager." in page
    assert '<path d="M80.0 30.0H120.0V90.5H80.0Z"/>' in manager.get(url).content.decode()

    product.delete()
    assert 'aria-label="Missed item: A"' in manager.get(change_url(recognition)).content.decode()


@pytest.mark.parametrize(
    ("sku", "box", "field", "said"),
    [
        ("NOPE", ("10", "10", "50", "50"), "sku", "there is no product 'NOPE' in the catalogue"),
        ("", ("10", "10", "50", "50"), "sku", "Say which product it is."),
        ("A", ("", "", "", ""), "box", "Draw a box around the item"),
        ("A", ("10", "", "50", "50"), "box", "Draw a box around the item"),
        ("A", ("10", "ten", "50", "50"), "box", "Enter a number."),
        ("A", ("10", "nan", "50", "50"), "box", "Enter a number."),
        ("A", ("50", "10", "10", "50"), "box", "(50, 10, 10, 50) is no box inside the picture of 160 x 120 pixels"),
        ("A", ("10", "10", "50", "121"), "box", "(10, 10, 50, 121) is no box inside the picture"),
    ],
)  # fmt: skip
def test_a_missed_item_that_cannot_be_is_refused_at_its_field_and_what_was_typed_stays(
    manager, sku, box, field, said
):
    make_product("A")
    answer = post_missed(manager, make_recognition(item(1, "unknown")), sku, *box)
    form = answer.context["form"]
    assert list(form.errors) == [field]
    assert said in form.errors[field][0]
    shown = re.findall(r'name="box_..".*?>', answer.content.decode(), re.DOTALL)
    assert [
        side for side, value in zip(shown, box, strict=True) if value and f'value="{value}' not in side
    ] == []
    assert form["sku"].value() == sku
    assert not Correction.objects.exists()


def test_only_who_may_correct_adds_missed_items_and_only_where_there_is_something_to_see(manager):
    recognition = make_recognition(item(1, "unknown"))
    url = reverse("admin:checkout_recognition_missed", args=[recognition.pk])
    reader = make_staff("reader", permissions=["checkout.view_recognition"])
    assert url not in reader.get(change_url(recognition)).content.decode()
    assert reader.get(url).status_code == post_missed(reader, recognition, "A", *"1234").status_code == 403
    forget_query_image(recognition.pk)
    assert url not in manager.get(change_url(recognition)).content.decode()
    Recognition.objects.update(state=RecognitionState.QUEUED)
    assert manager.get(url).status_code == 404


def test_recognitions_are_found_by_result_and_product(manager):
    make_product("A")
    known = make_recognition(item(1, "recognised", candidate("A", 0.9)))
    unknown = make_recognition(item(1, "unknown"))
    manager.post(
        reverse("admin:checkout_recognition_correct", args=[unknown.pk]), {"item": "1", "choice": NO_PRODUCT}
    )

    def found(query: str) -> list[Recognition]:
        page = manager.get(f"{reverse('admin:checkout_recognition_changelist')}?{query}")
        return list(page.context["cl"].result_list)

    assert found("result=recognised") == [known]
    assert found("result=unknown") == found("result=corrected") == [unknown]
    assert found("q=product+a") == [known]


def test_a_refused_photo_says_why_and_nothing_is_stored(manager, settings):
    url = reverse("admin:checkout_recognition_recognise")
    cases = (
        (b"", 400, "0 bytes"),
        (b"no picture at all", 400, "Found something else than an image"),
        (b"II*\x00" + bytes(100), 415, "Found a TIFF"),
    )
    for data, status, said in cases:
        answer = manager.post(url, {"image": SimpleUploadedFile("p.jpg", data)})
        assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
        assert said in answer.json()["detail"]
    settings.IMAGE_MAX_BYTES = 10
    assert manager.post(url, {"image": SimpleUploadedFile("p.jpg", make_picture())}).status_code == 413
    assert "There is no photo" in manager.post(url, {}).json()["detail"]
    answer = manager.post(url, {"image": SimpleUploadedFile("p.jpg", b"x"), "product_set": "nowhere"})
    assert answer.status_code == 404
    assert not Recognition.objects.exists()


def test_without_a_free_worker_the_photo_is_to_be_sent_again(manager, settings):
    settings.RECOGNITION_PATIENCE_SECONDS = 0.2
    url = reverse("admin:checkout_recognition_recognise")
    answer = manager.post(url, {"image": SimpleUploadedFile("p.jpg", make_picture())})
    assert answer.status_code == 503
    assert "no worker was free" in answer.json()["detail"]


def test_the_recognise_page_tells_beforehand_what_is_missing(manager):
    ProductSet.objects.create(slug="north", name="Store North")
    url = reverse("admin:checkout_recognition_recognise")
    page = manager.get(url).content.decode()
    assert "no embedder is active" in page
    assert "Store North" in page
    embedder = InstalledModel.objects.create(
        name="lite", version="1", task="embedder", sha256="0" * 64, card={}
    )
    Generation.objects.create(embedder=embedder, index={}, collection="c", state=GenerationState.ACTIVE)
    page = manager.get(url).content.decode()
    assert "No detector is installed" in page
    assert "No thresholds are fitted yet" in page


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (item(1, "recognised", candidate("A", 0.9)), "^$"),
        (item(1, "unknown", candidate("A", 0.2)), r"similarity of 0\.20; below 0\.30 an item is unknown"),
        (
            item(1, "needs_confirmation", candidate("A", 0.5)),
            r"is 0\.50; from 0\.80 on it would be recognised",
        ),
        (
            item(1, "needs_confirmation", candidate("A", 0.9), candidate("B", 0.88)),
            r"^Product B is nearly as similar \(0\.88\); a lead of 0\.05 is wanted",
        ),
        (item(1, "needs_confirmation", candidate("A", 0.9)), "Another product is nearly as similar"),
        (item(1, "unknown"), "No product of the catalogue came near"),
    ],
)
def test_the_reason_is_the_number_that_decided(shown, said):
    thresholds = ThresholdSet(recognised=0.8, margin=0.05, unknown=0.3)
    assert re.search(said, explain(shown, thresholds))


def test_without_thresholds_the_reason_is_that():
    assert "No thresholds are fitted yet" in explain(
        item(1, "needs_confirmation", candidate("A", 0.99)), None
    )


@pytest.mark.parametrize(
    ("detector", "said"), [(None, "No detector is installed"), ("picodet 1", "No main body was found")]
)
def test_when_the_whole_photo_was_taken_the_answer_says_why(detector, said):
    recognition = make_recognition(
        item(1, "unknown"), main_body_found=False, models={"detector": detector, "embedder": "lite 1"}
    )
    assert said in show_recognition(recognition).notes[0]


@pytest.mark.parametrize(
    ("boxes", "sides", "worded"),
    [
        ([[0, 0, 30, 30], [55, 4, 90, 40], [140, 0, 160, 40]], ["left", "left", "right"], [True, True, True]),
        # The first's words would lie over the number of the second, of the third.
        ([[0, 0, 30, 30], [48, 4, 90, 40], [0, 60, 30, 100]], ["left"] * 3, [False, True, True]),
        # There is room on its other side.
        (
            [[20, 50, 60, 90], [90, 0, 120, 20], [62, 55, 150, 90]],
            ["right", "left", "left"],
            [True, True, True],
        ),
    ],
)
def test_words_at_boxes_stay_inside_the_photo_and_cover_neither_others_words_nor_numbers(
    boxes, sides, worded
):
    items = [item(number, "unknown") | {"box": box} for number, box in enumerate(boxes, start=1)]
    shown = show_recognition(make_recognition(*items)).items
    assert [one.side for one in shown] == sides
    assert [one.worded for one in shown] == worded


def test_a_recognition_that_is_not_there_is_a_404(manager):
    for name in ("change", "photo", "thumbnail"):
        assert manager.get(reverse(f"admin:checkout_recognition_{name}", args=[uuid4()])).status_code == 404
