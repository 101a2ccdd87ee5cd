"""The pages of the review: who may see them, in what order they come, and what they say when nothing can be decided.

Keys and what a worker answers are tried in a browser (tests/end_to_end/test_review.py)."""

import pytest
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse

from backend.catalogue.models import Product
from backend.checkout.models import Correction, Recognition, RecognitionState, ReviewState
from backend.checkout.review import ACCEPT_KIND, accept
from backend.checkout.services import correct, forget_query_image
from backend.gallery.models import Generation, InstalledModel
from backend.jobs.models import Job
from tests.backend.factories import make_picture, make_product, make_staff

pytestmark = pytest.mark.django_db
QUEUE = "/admin/checkout/correction/review/"


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


@pytest.fixture
def cola() -> Product:
    return make_product("COLA")


def make_recognition() -> Recognition:
    recognition = Recognition(
        state=RecognitionState.DONE,
        image_format="JPEG",
        answer={"image": {"width": 160, "height": 120}, "items": []},
    )
    recognition.image.save("", ContentFile(make_picture()), save=False)
    recognition.save()
    recognition.items.create(number=1, box=[10, 10, 90, 90], result="unknown")
    return recognition


def make_correction(sku: str | None = "COLA") -> Correction:
    return correct(make_recognition(), made_by="till 1", item=1, sku=sku)


def page_of(correction: Correction) -> str:
    return f"{QUEUE}{correction.pk}/"


def decide(client: Client, correction: Correction, act: str, **fields: str):
    return client.post(f"{page_of(correction)}decide/", {"act": act} | fields)


def test_only_who_may_review_sees_and_decides(cola, manager):
    correction = make_correction()
    looker = make_staff("looker", permissions=["checkout.view_correction"])
    for path in ("", f"{correction.pk}/", f"{correction.pk}/crop/"):
        assert looker.get(QUEUE + path).status_code == 403
        assert manager.get(QUEUE + path, follow=True).status_code == 200
    for path in (f"{correction.pk}/check/", f"{correction.pk}/decide/", "accept-clean/"):
        assert looker.post(QUEUE + path, {"act": "reject"}).status_code == 403
        assert manager.get(QUEUE + path).status_code == 405
    correction.refresh_from_db()
    assert correction.state == ReviewState.OPEN
    assert "Waiting for review: 1 correction." in manager.get(reverse("admin:index")).content.decode()


def test_the_queue_goes_round_and_ends_when_nothing_waits(cola, manager):
    first, second = make_correction(), make_correction()

    def after(pk: object) -> str:
        return manager.get(f"{QUEUE}?after={pk}")["Location"]

    assert after("") == after("nonsense") == after(second.pk) == after("9" * 30) == page_of(first)
    assert after(first.pk) == page_of(second)
    assert decide(manager, first, "reject")["Location"] == f"{QUEUE}?after={first.pk}"
    assert after(first.pk) == after(second.pk) == page_of(second)  # skipping the only one comes back to it
    decide(manager, second, "reject", note="blurred")
    done = manager.get(QUEUE).content.decode()
    assert "No correction waits for review" in done
    assert done.count("rejected</span>") == 2
    reopened = decide(manager, second, "undo")
    assert reopened["Location"] == page_of(second)


def test_wrong_answers_come_before_what_confirms_one(cola, manager):
    confirmed, wrong, missed = make_correction(), make_correction(), make_correction(sku=None)
    confirmed.item.product, confirmed.item.sku = cola, cola.sku
    confirmed.item.save()
    assert manager.get(QUEUE)["Location"] == page_of(wrong)
    assert manager.get(f"{QUEUE}?after={wrong.pk}")["Location"] == page_of(missed)
    assert manager.get(f"{QUEUE}?after={missed.pk}")["Location"] == page_of(confirmed)
    assert manager.get(f"{QUEUE}?after={confirmed.pk}")["Location"] == page_of(wrong)
    for place, correction in enumerate((wrong, missed, confirmed), start=1):
        assert f"{place} of 3 that wait" in manager.get(page_of(correction)).content.decode()


def test_what_was_decided_is_told_with_who_and_why(cola, manager):
    correction = make_correction(sku=None)
    decide(manager, correction, "accept", note="a hand")
    page = manager.get(page_of(correction)).content.decode()
    assert "by manager" in page
    assert "a hand" in page
    again = decide(manager, correction, "reject").content.decode()
    assert "The correction is accepted by manager; this is possible only when it is open." in again
    nonsense = decide(manager, correction, "nonsense").content.decode()
    assert "accept, force, reject or undo is wanted" in nonsense


def test_a_correction_that_can_become_no_picture_says_why(cola, manager):
    recognition = make_recognition()
    forget_query_image(recognition.pk)
    recognition.refresh_from_db()
    late = correct(recognition, made_by="till 1", item=1, sku="COLA")
    assert "was deleted before one was kept" in manager.get(page_of(late)).content.decode()
    gone = make_correction()
    Product.objects.all().delete()
    assert "COLA, which was deleted" in manager.get(page_of(gone)).content.decode()
    refused = decide(manager, gone, "accept").content.decode()
    assert "Product COLA was deleted; reject the correction" in refused


def test_an_item_that_was_accepted_before_is_pointed_at(cola, manager):
    first = make_correction(sku=None)
    accept(first, reviewed_by="anna")
    later = correct(first.recognition, made_by="till 1", item=1, sku="COLA")
    assert "An earlier correction" not in manager.get(page_of(later)).content.decode()  # it gave no picture
    superseded = make_correction()
    correct(superseded.recognition, made_by="till 1", item=1, sku=None)
    assert (
        "A later correction of this item says otherwise" in manager.get(page_of(superseded)).content.decode()
    )


def test_all_that_nothing_speaks_against_are_accepted_by_a_job(cola, manager):
    embedder = InstalledModel.objects.create(name="e", version="1", task="embedder", card={})
    generation = Generation.objects.create(embedder=embedder, index={}, collection="c", state="active")
    clean, faulty, old = make_correction(), make_correction(), make_correction()
    finding = {"finding": "blurred", "detail": "it is", "reference_image": None, "sku": None}
    for correction, number, findings in (
        (clean, generation.pk, []),
        (faulty, generation.pk, [finding]),
        (old, generation.pk - 1, []),
    ):
        check = {"generation": number, "findings": findings, "worse": [], "better": []}
        Correction.objects.filter(pk=correction.pk).update(last_check=check)
    assert "Nothing speaks against 1 of those" in manager.get(page_of(old)).content.decode()
    answer = manager.post(f"{QUEUE}accept-clean/")
    job = Job.objects.get()
    assert (job.kind, job.parameters, job.asked_by) == (
        ACCEPT_KIND, {"corrections": [clean.pk]}, "manager",
    )  # fmt: skip
    assert answer["Location"] == reverse("admin:jobs_job_change", args=[job.pk])
    listed = "/admin/checkout/correction/?findings="
    assert list(manager.get(listed + "blurred").context["cl"].result_list) == [faulty]
    assert set(manager.get(listed + "none").context["cl"].result_list) == {clean, old}
    Correction.objects.update(state=ReviewState.REJECTED)
    assert manager.post(f"{QUEUE}accept-clean/")["Location"] == QUEUE
    assert Job.objects.count() == 1
