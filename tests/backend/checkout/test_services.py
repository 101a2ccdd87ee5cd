"""Recognitions end once, expire, and lose their pictures in time; what is told is what is stored."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from backend.catalogue.models import Product, ProductSet, ReferenceImage, SoldBy
from backend.catalogue.selectors import ActiveProduct, get_answerable_products
from backend.catalogue.services import add_reference_image, change_product_set
from backend.checkout import admission, services
from backend.checkout.answers import make_answer
from backend.checkout.api import CorrectionSerializer
from backend.checkout.models import Correction, RecognisedItem, Recognition, RecognitionState, ReviewState
from backend.checkout.outcomes import end, store_answer, store_queued
from backend.checkout.recogniser import Found, Serving
from backend.common.broker import broker_client
from backend.common.problems import Problem
from backend.gallery.models import Generation, InstalledModel, ThresholdSet
from backend.gallery.selectors import ActiveIds, get_active_ids
from recognition.errors import GalleryUnavailable, ImageRefused
from recognition.gallery import Match
from recognition.pipeline import ImageRecognition, ItemRecognition
from recognition.ranking import Candidate, Result
from tests.backend.factories import make_picture, make_product

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


def test_a_correction_names_an_item_or_a_box_and_not_both(serving):
    recognition = Recognition.objects.create(
        state=RecognitionState.DONE, answer={"image": {"width": 100, "height": 100}}
    )
    make_product("A")
    with pytest.raises(Problem, match="found item 1 and a box too; one of them is wanted"):
        services.correct(recognition, made_by="till", item=1, sku="A", box=[1, 2, 30, 40])
    missed = services.correct(recognition, made_by="till", item=None, sku="A", box=[1.234, 2, 30, 40])
    assert CorrectionSerializer(missed).data["box"] == [1.2, 2.0, 30.0, 40.0]


def queued(age: timedelta = timedelta(0), **changes) -> Recognition:
    recognition = Recognition(image_format="JPEG", **changes)
    recognition.image.save("", ContentFile(make_picture()), save=False)
    recognition.save()
    Recognition.objects.filter(pk=recognition.pk).update(created_at=timezone.now() - age)
    return recognition


@pytest.fixture
def serving() -> Serving:
    """Rows of what answers, without a model or collection behind them."""
    detector, embedder = (
        InstalledModel.objects.create(
            name=task, version="1", task=task, card={}, is_active=task == "detector"
        )
        for task in ("detector", "embedder")
    )
    generation = Generation.objects.create(
        embedder=embedder, index={}, collection=uuid4().hex, state="active"
    )
    fitted = ThresholdSet.objects.create(
        generation=generation, strategy="float", version=3, recognised=0.8, margin=0.1, unknown=0.2
    )
    return Serving(generation, fitted, detector, "float")


def candidate(product: ActiveProduct, similarity: float) -> Candidate:
    return Candidate(product.id, similarity, (Match(17, product.id, similarity),))


def found(*items: ItemRecognition, products: dict[int, ActiveProduct]) -> Found:
    return Found(ImageRecognition(160, 120, True, items, {"decode": 1.234}), products)


class TestAnswer:
    def test_what_is_told_is_what_is_stored(self, serving):
        ids = [
            make_product("COLA", name="Cöla ½ l", price=Decimal("1.99")).pk,
            make_product("PLUM", price=None, currency="", sold_by=SoldBy.WEIGHT).pk,
        ]
        pictures = {
            pk: add_reference_image(product=Product.objects.get(pk=pk), data=make_picture(pk)).pk
            for pk in ids
        }
        held = get_answerable_products(pictures.values())
        products = {pk: held[picture] for pk, picture in pictures.items()}
        cola, plum = (products[pk] for pk in ids)
        both = (candidate(plum, 0.7), candidate(cola, 0.6))
        recognition = queued(n_candidates=2)
        answer, items = make_answer(
            recognition,
            serving,
            found(
                ItemRecognition((1.04, 2, 30, 40), 0.91, Result.RECOGNISED, (candidate(cola, 0.912345),)),
                ItemRecognition((5, 6, 70, 80), 0.5, Result.NEEDS_CONFIRMATION, both),
                ItemRecognition((0, 0, 160, 120), None, Result.UNKNOWN, (candidate(plum, 0.1),)),
                ItemRecognition((0, 0, 9, 9), 0.3, Result.UNKNOWN, ()),
                products=products,
            ),
            started=0.0,
        )  # fmt: skip
        assert store_answer(recognition, serving, answer, items)
        recognition.refresh_from_db()
        assert (recognition.state, recognition.answer) == ("done", answer)
        assert (recognition.generation, recognition.threshold_set, recognition.detector) == (
            serving.generation, serving.threshold_set, serving.detector,
        )  # fmt: skip
        assert answer["threshold_set"] == 3
        rows = list(
            recognition.items.values_list(
                "number", "box", "detection_score", "result", "sku", "price", "similarity"
            )
        )
        assert rows == [
            (1, [1, 2, 30, 40], 0.91, "recognised", "COLA", Decimal("1.99"), 0.9123),
            (2, [5, 6, 70, 80], 0.5, "needs_confirmation", "PLUM", None, 0.7),
            (3, [0, 0, 160, 120], None, "unknown", "", None, 0.1),
            (4, [0, 0, 9, 9], 0.3, "unknown", "", None, None),
        ]
        first = recognition.items.get(number=1)
        assert (first.product_id, first.name, first.currency) == (cola.id, "Cöla ½ l", "EUR")
        assert recognition.items.get(number=3).product is None
        assert [item["product"] and item["product"]["sku"] for item in answer["items"]] == [
            "COLA",
            "PLUM",
            None,
            None,
        ]
        assert answer["basket"]["total"] == "1.99"
        assert answer["basket"]["complete"] is False

    @pytest.mark.parametrize(
        "state", [RecognitionState.DONE, RecognitionState.EXPIRED, RecognitionState.FAILED]
    )
    def test_who_comes_second_changes_nothing(self, serving, state):
        recognition = queued()
        Recognition.objects.update(state=state, answer={"told": True})
        answer, items = make_answer(
            recognition,
            serving,
            found(ItemRecognition((0, 0, 9, 9), None, Result.UNKNOWN, ()), products={}),
            started=0.0,
        )
        assert not store_answer(recognition, serving, answer, items)
        assert not end(recognition, RecognitionState.EXPIRED)
        recognition.refresh_from_db()
        assert (recognition.state, recognition.answer) == (state, {"told": True})
        assert not RecognisedItem.objects.exists()

    def test_answer_and_items_are_stored_together_or_not_at_all(self, serving):
        recognition = queued()
        item = {"number": 1, "box": [0, 0, 9, 9], "result": "unknown", "sku": "", "name": "", "currency": ""}
        with pytest.raises(IntegrityError, match="item_number_once"), transaction.atomic():
            store_answer(recognition, serving, {}, [item, item])
        recognition.refresh_from_db()
        assert recognition.state == "queued"

    def test_what_answers_is_the_newest_of_the_active(self, serving):
        newest = ThresholdSet.objects.create(
            generation=serving.generation,
            strategy="float",
            version=4,
            recognised=0.8,
            margin=0.1,
            unknown=0.2,
        )
        assert get_active_ids("float") == ActiveIds(
            serving.generation.pk, newest.pk, serving.detector.pk, (serving.generation.pk,)
        )
        InstalledModel.objects.update(is_active=False)
        assert get_active_ids("hash") == ActiveIds(
            serving.generation.pk, None, None, (serving.generation.pk,)
        )
        Generation.objects.update(state="standby")
        assert get_active_ids("float") is None


def test_only_active_products_of_the_set_may_be_answered():
    cola, milk, gone = make_product("COLA"), make_product("MILK"), make_product("GONE", state="retired")
    store = ProductSet.objects.create(slug="store", name="store")
    change_product_set(store, add=["MILK", "GONE"])
    ours, theirs, gones = (
        add_reference_image(product=product, data=make_picture(seed)).pk
        for seed, product in enumerate((cola, milk, gone))
    )
    every = {ours, theirs, gones, 10**12}
    assert {pk: one.id for pk, one in get_answerable_products(every).items()} == {
        ours: cola.pk,
        theirs: milk.pk,
    }
    assert get_answerable_products(every, store.pk).keys() == {theirs}
    assert get_answerable_products(set()) == {}
    ReferenceImage.objects.get(pk=ours).delete()
    assert get_answerable_products(every).keys() == {theirs}


class TestFailure:
    """What `run_recognition` makes of a failure; the real failures are in end_to_end."""

    @pytest.mark.parametrize(
        ("error", "state", "code"),
        [
            (GalleryUnavailable("gone"), "failed", "engine-unavailable"),
            (RuntimeError("a mistake of ours"), "failed", "recognition-failed"),
            (ImageRefused("truncated", "Found half a picture."), None, "image-truncated"),
        ],
    )
    def test_it_is_stored_and_told(self, monkeypatch, media, error, state, code):
        recognition = queued(idempotency_key="key")

        def fail() -> Serving:
            raise error

        monkeypatch.setattr(services, "get_serving", fail)
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError):
                services.run_recognition(recognition)
        else:
            services.run_recognition(recognition)
        told = admission.wait_for_signal(str(recognition.pk), 1)
        assert (told["state"], told["failure"]["code"]) == ("failed", code)
        rows = list(Recognition.objects.values_list("state", "idempotency_key"))
        # What may pass by itself is not replayed; of a bad picture nothing stays.
        assert rows == ([] if state is None else [(state, "")])
        assert len([path for path in media.rglob("*") if path.is_file()]) == len(rows)


class TestTime:
    def test_who_was_forgotten_expires_and_frees_its_key(self, settings):
        settings.RECOGNITION_PATIENCE_SECONDS = 10
        forgotten = queued(timedelta(seconds=21), idempotency_key="a")
        waiting = queued(timedelta(seconds=19), idempotency_key="b")
        done = queued(timedelta(days=1), idempotency_key="c", state=RecognitionState.DONE)
        assert services.expire_recognitions() == 1
        assert dict(Recognition.objects.values_list("pk", "state")) == {
            forgotten.pk: "expired", waiting.pk: "queued", done.pk: "done",
        }  # fmt: skip
        assert set(Recognition.objects.values_list("idempotency_key", flat=True)) == {"", "b", "c"}

    def test_pictures_go_after_their_days_and_answers_stay(self, settings, media):
        settings.QUERY_IMAGE_DAYS = 30
        old = queued(timedelta(days=31), state=RecognitionState.DONE, answer={"items": []})
        gone = queued(timedelta(days=31), state=RecognitionState.DONE)
        (media / gone.image.name).unlink()  # by hand, or in a purge that was cut short
        kept = [
            queued(timedelta(days=29), state=RecognitionState.DONE),
            queued(timedelta(days=31)),  # still queued: a worker may be about to read it
        ]
        assert services.purge_query_images() == 2
        assert services.purge_query_images() == 0
        assert set(Recognition.objects.exclude(image="")) == set(kept)
        assert {path for path in media.rglob("*") if path.is_file()} == {
            media / one.image.name for one in kept
        }
        old.refresh_from_db()
        assert (old.state, old.answer) == ("done", {"items": []})

    def test_no_days_keep_no_picture(self, settings):
        settings.QUERY_IMAGE_DAYS = 0
        queued(state=RecognitionState.DONE)
        assert services.purge_query_images() == 1

    def test_keys_are_free_again_after_a_day(self):
        queued(timedelta(hours=25), idempotency_key="yesterday", state=RecognitionState.DONE)
        queued(timedelta(hours=23), idempotency_key="today", state=RecognitionState.DONE)
        services.purge_query_images()
        assert sorted(Recognition.objects.values_list("idempotency_key", flat=True)) == ["", "today"]


class TestHistory:
    """What is kept for HISTORY_DAYS, and what stays beyond."""

    def test_all_stays_unless_days_are_set(self):
        queued(timedelta(days=4_000), state=RecognitionState.DONE)
        assert services.delete_old_recognitions() == 0
        assert Recognition.objects.count() == 1

    def test_old_recognitions_go_with_their_files_and_what_belongs_to_them(
        self, settings, media, monkeypatch, django_capture_on_commit_callbacks
    ):
        settings.HISTORY_DAYS = 90
        monkeypatch.setattr(services, "DELETED_AT_ONCE", 2)
        kept = [queued(timedelta(days=89), state=RecognitionState.DONE), queued(timedelta(days=91))]
        old = {
            state: queued(timedelta(days=91), state=RecognitionState.DONE) for state in (None, *ReviewState)
        }
        for state, recognition in old.items():
            item = RecognisedItem.objects.create(
                recognition=recognition, number=1, box=[0, 0, 9, 9], result="unknown"
            )
            if state is not None:
                correction = Correction(recognition=recognition, item=item, box=item.box, state=state)
                correction.crop.save("", ContentFile(b"a crop"))
        with django_capture_on_commit_callbacks(execute=True):
            assert services.delete_old_recognitions() == 3
        assert services.delete_old_recognitions() == 0
        kept += [old[ReviewState.OPEN], old[ReviewState.ACCEPTED]]
        assert set(Recognition.objects.all()) == set(kept)
        assert set(Correction.objects.values_list("state", flat=True)) == {"open", "accepted"}
        named = {recognition.image.name for recognition in kept}
        named |= set(Correction.objects.values_list("crop", flat=True))
        assert {str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()} == named


class TestPlaces:
    @pytest.fixture(autouse=True)
    def one_place(self, settings):
        settings.RECOGNITION_MAX_IN_FLIGHT = 1
        broker_client().delete(admission.IN_FLIGHT_KEY)
        yield
        broker_client().delete(admission.IN_FLIGHT_KEY)

    def test_a_place_is_given_back_after_an_answer_and_after_a_refusal(self):
        with (
            admission.admitted("first"),
            pytest.raises(Problem, match="under way"),
            admission.admitted("second"),
        ):
            pass
        with pytest.raises(ZeroDivisionError), admission.admitted("third"):
            raise ZeroDivisionError
        assert admission.count_in_flight() == 0

    def test_a_refused_photo_takes_no_place_and_no_row(self):
        with pytest.raises(ImageRefused):
            services.recognise(data=b"no picture", asked_by="till")
        with admission.admitted("another"), pytest.raises(Problem, match="under way"):
            services.recognise(data=make_picture(), asked_by="till")
        assert not Recognition.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_only_the_row_of_a_queued_recognition_is_written_without_waiting_for_the_disk():
    """The connection waits again for whatever it writes next."""
    recognition = Recognition(image_format="JPEG")
    store_queued(recognition)
    assert Recognition.objects.get(pk=recognition.pk).state == RecognitionState.QUEUED
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)
    with pytest.raises(IntegrityError):
        store_queued(Recognition(pk=recognition.pk, image_format="JPEG"))
    assert Recognition.objects.filter(pk=recognition.pk).count() == 1
