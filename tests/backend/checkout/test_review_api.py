"""Reviewing over the API: whose corrections a key may review, what it may decide, and what is said without a worker.

What a worker answers is asked of the running service (tests/end_to_end/test_review.py)."""

import pytest
from django.core.files.base import ContentFile
from rest_framework.test import APIClient

from backend.access.models import Device
from backend.catalogue.models import Product, ProductSet
from backend.catalogue.services import add_reference_image
from backend.checkout.models import Correction, Recognition, RecognitionState
from backend.checkout.services import correct
from tests.backend.factories import make_device, make_picture, make_product

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


def make_correction(device: Device | None, sku: str | None = "COLA") -> Correction:
    recognition = Recognition(
        device=device,
        state=RecognitionState.DONE,
        image_format="JPEG",
        answer={"image": {"width": 160, "height": 120}},
    )
    recognition.image.save("", ContentFile(make_picture()), save=False)
    recognition.save()
    recognition.items.create(number=1, box=[10, 10, 90, 90], result="unknown")
    return correct(recognition, made_by="till 1", item=1, sku=sku)


@pytest.fixture
def device() -> Device:
    make_product("COLA")
    return make_device("till 1", "recognise", "catalogue")[0]


def client_of(name: str, *scopes: str, **changes) -> APIClient:
    return APIClient(headers=make_device(name, *scopes, **changes)[1])


def test_a_key_reviews_corrections_of_its_own_recognitions_and_with_operate_all(device):
    own, others = make_correction(device), make_correction(None)
    everything = client_of("office", "catalogue", "operate")
    listed = everything.get("/api/v1/corrections").json()["results"]
    assert [row["id"] for row in listed] == [own.pk, others.pk]
    Device.objects.filter(pk=device.pk).delete()
    some = make_device("till 2", "catalogue")
    mine = make_correction(some[0])
    api = APIClient(headers=some[1])
    assert [row["id"] for row in api.get("/api/v1/corrections").json()["results"]] == [mine.pk]
    for path in ("", "/crop"):
        assert api.get(f"/api/v1/corrections/{others.pk}{path}").status_code == 404
    for act in ("check", "accept", "reject", "undo"):
        assert api.post(f"/api/v1/corrections/{others.pk}/{act}", {}, format="json").status_code == 404
    assert client_of("till 3", "recognise").get("/api/v1/corrections").status_code == 403
    bound = client_of(
        "kiosk", "catalogue", "operate", product_set_id=ProductSet.objects.create(slug="k", name="K").pk
    )
    assert bound.get("/api/v1/corrections").json()["code"] == "bound-device"
    # What a check names may be another set's.
    cola = Product.objects.get()
    ProductSet.objects.get().products.add(cola)
    image = add_reference_image(product=cola, data=make_picture())
    for ask, path in ((bound.post, "check"), (bound.get, f"{image.pk}/findings")):
        assert ask(f"/api/v1/products/COLA/reference-images/{path}").json()["code"] == "bound-device"


def test_a_correction_is_listed_with_what_a_reviewer_needs(device):
    correction = make_correction(device)
    api = client_of("office", "catalogue", "operate")
    shown = api.get(f"/api/v1/corrections/{correction.pk}").json()
    assert shown == {
        "id": correction.pk, "recognition": str(correction.recognition_id), "item": 1,
        "box": [10.0, 10.0, 90.0, 90.0], "sku": "COLA", "answered_sku": None, "made_by": "till 1",
        "created_at": shown["created_at"], "has_crop": True, "state": "open", "reviewed_by": "",
        "reviewed_at": None, "note": "", "reference_image": None, "last_check": None, "not_checked": None,
    }  # fmt: skip
    crop = api.get(f"/api/v1/corrections/{correction.pk}/crop")
    assert crop["Content-Type"] == "image/jpeg"
    assert b"".join(crop.streaming_content).startswith(b"\xff\xd8\xff")
    assert api.get("/api/v1/corrections?state=accepted").json()["results"] == []
    assert len(api.get("/api/v1/corrections?state=open&sku=COLA").json()["results"]) == 1
    assert api.get("/api/v1/corrections?state=nonsense").status_code == 400


def test_reject_and_undo_and_what_is_refused(device):
    correction = make_correction(device)
    api = client_of("office", "catalogue", "operate")
    url = f"/api/v1/corrections/{correction.pk}"
    assert api.post(f"{url}/undo").json()["code"] == "correction-state"
    assert api.post(f"{url}/reject", {"note": "x" * 501}, format="json").status_code == 400
    assert api.post(f"{url}/reject", {"notes": "x"}, format="json").status_code == 400
    rejected = api.post(f"{url}/reject", {"note": "it is a bag"}, format="json").json()
    assert [rejected[name] for name in ("state", "reviewed_by", "note")] == [
        "rejected", "office", "it is a bag",
    ]  # fmt: skip
    refused = api.post(f"{url}/accept", {}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "correction-state")
    assert api.post(f"{url}/undo").json()["state"] == "open"
    none = make_correction(device, sku=None)
    accepted = api.post(f"/api/v1/corrections/{none.pk}/accept", {}, format="json").json()
    assert [accepted[name] for name in ("state", "sku", "reference_image")] == ["accepted", None, None]


def test_without_a_gallery_or_a_worker_it_is_said_and_nothing_changes(device, generation, settings):
    correction = make_correction(device)
    api = client_of("office", "catalogue", "operate")
    settings.RECOGNITION_PATIENCE_SECONDS = 0.3
    form = {"image": ContentFile(make_picture(), "p.jpg")}
    asked = [
        (f"/api/v1/corrections/{correction.pk}/check", None, "json"),
        (f"/api/v1/corrections/{correction.pk}/accept", {}, "json"),
        ("/api/v1/products/COLA/reference-images/check", form, "multipart"),
    ]
    for code in ("no-worker-free", "no-generation"):
        for url, body, kind in asked:
            form["image"].seek(0)
            answer = api.post(url, body, format=kind)
            assert (answer.status_code, answer.json()["code"]) == (503, code)
            assert int(answer["Retry-After"]) > 0
        generation.state = "retired"
        generation.save()
    correction.refresh_from_db()
    assert (correction.state, correction.last_check) == ("open", None)


def test_a_picture_that_would_be_refused_is_refused_when_it_is_only_asked_about(device):
    api = client_of("office", "catalogue")
    url = "/api/v1/products/COLA/reference-images/check"
    for data, form, code in (
        (b"milk, bread", {}, "image-not-an-image"),
        (make_picture(), {"x1": 1, "y1": 1, "x2": 999, "y2": 9}, "invalid"),
        (make_picture(), {"x1": 1}, "invalid"),
    ):
        answer = api.post(url, {"image": ContentFile(data, "p.jpg")} | form, format="multipart")
        assert answer.json()["code"] == code
    picture = ContentFile(make_picture(), "p.jpg")
    assert api.post(url.replace("COLA", "NONE"), {"image": picture}, format="multipart").status_code == 404
