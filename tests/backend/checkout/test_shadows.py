"""A generation in the shadow: which recognitions it runs on, what it is said to say, what is dropped, when it ends."""

import time
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from celery import current_app
from django.core.files.base import ContentFile

from backend.catalogue.models import Product, ProductSet, ReferenceImage
from backend.catalogue.services import add_reference_image, change_product_set, image_limits
from backend.checkout import services
from backend.checkout.models import Difference, Recognition, RecognitionState, ShadowedItem
from backend.checkout.outcomes import store_queued
from backend.checkout.shadows import QUEUE, STALE_SECONDS, WAITING_AT_MOST, is_in_share, run_shadow
from backend.checkout.tasks import shadow_task
from backend.common.broker import broker_client
from backend.common.problems import Problem
from backend.gallery import generations
from backend.gallery import services as gallery_services
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_embedder, get_gallery
from backend.gallery.models import Generation, InstalledModel, Shadow, ThresholdSet
from backend.gallery.services import install_model, plan_missing
from backend.gallery.shadows import end_shadow, start_shadow
from recognition import images
from tests.backend.conftest import FLAT
from tests.backend.factories import make_picture, make_product
from tests.recognition.toy_models import detector_card, detector_model, write_folder

# In the detector's input of 32 x 24: three products side by side.
BOXES = [[1, 1, 11, 23], [11, 1, 21, 23], [21, 1, 31, 23]]
SCORES = [[0.9, 0], [0.8, 0], [0.7, 0]]
THRESHOLDS = {"recognised": 0.97, "margin": 0.01, "unknown": 0.8}


@pytest.fixture(autouse=True)
def empty_queue():
    broker_client().delete(QUEUE)
    yield
    broker_client().delete(QUEUE)


@pytest.fixture
def pictures(active) -> list[ReferenceImage]:
    """Three of each of six products, embedded in the active generation."""
    found = []
    for number in range(6):
        product = make_product(f"P{number}")
        found += [
            add_reference_image(
                product=product, data=make_picture(10 * number + shot), box=(10, 10, 110, 110)
            )
            for shot in range(3)
        ]
    enrol(active)
    return found


@pytest.fixture
def detector(pictures, tmp_path) -> InstalledModel:
    """The active one: three items in each photo."""
    write_folder(tmp_path / "detector", detector_model(BOXES, SCORES), detector_card(name="toy-detector"))
    detector = install_model(tmp_path / "detector")
    gallery_services.activate_model(detector)
    return detector


def make_ready(embedder: InstalledModel, active: Generation) -> Generation:
    """A generation of this embedder with every picture; both have the same thresholds, and can be searched."""
    opened = generations.open_generation(embedder, FLAT)
    plan_missing(opened)
    generation = generations.begin_verifying(opened)
    enrol(generation)
    for one in (active, generation):
        get_gallery(one).count()  # read strongly once, so that searches see all of it
        ThresholdSet.objects.get_or_create(generation=one, strategy="float", version=1, defaults=THRESHOLDS)
    return generations.make_ready(generation)


@pytest.fixture
def twin(active, toy, detector) -> Generation:
    """Of the active one's embedder and pictures."""
    return make_ready(toy, active)


@pytest.fixture
def other(active, better, detector) -> Generation:
    """Of another embedder."""
    return make_ready(better, active)


def shadow(generation: Generation, share: float = 1.0) -> Shadow:
    return start_shadow(generation, share=share, started_by="a test")


def recognise(seed: int, **changes) -> Recognition:
    """As a worker does, from the message of the web process to what it sends."""
    recognition = Recognition(image_format="JPEG", **changes)
    data = make_picture(seed, quality=40)
    recognition.image.save("", ContentFile(data), save=False)
    store_queued(recognition)
    services.run_recognition(Recognition.objects.get(pk=recognition.pk))
    recognition.refresh_from_db()
    assert recognition.state == RecognitionState.DONE
    return recognition


def run_waiting() -> int:
    """Take what waits in the queue and run it, as the bulk worker does; how many there were."""
    taken = 0
    with current_app.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as queue:
        while True:
            try:
                message = queue.get(block=False)
            except queue.Empty:
                return taken
            message.ack()
            args, _, _ = message.payload
            assert message.headers["task"] == shadow_task.name
            shadow_task(*args)
            taken += 1


def told(item: ShadowedItem) -> tuple[str, str, float]:
    return item.result, item.sku, item.similarity


# --- which recognitions -----------------------------------------------------------------------------------
def test_the_share_is_kept_and_a_larger_one_holds_the_smaller():
    ids = [UUID(int=number) for number in range(10_000)]
    chosen = {share: {pk for pk in ids if is_in_share(pk, share)} for share in (0, 0.01, 0.3, 0.8, 1)}
    assert [len(chosen[share]) for share in (0, 1)] == [0, 10_000]
    for share in (0.01, 0.3, 0.8):
        assert len(chosen[share]) == pytest.approx(
            10_000 * share, abs=4 * np.sqrt(10_000 * share * (1 - share))
        )
    assert chosen[0.01] < chosen[0.3] < chosen[0.8]


def test_the_share_of_the_recognitions_is_sent_and_no_other(twin):
    under_way = shadow(twin, share=0.5)
    made = [recognise(1_000 + seed) for seed in range(8)]
    wanted = {one.pk for one in made if is_in_share(one.pk, 0.5)}
    assert run_waiting() == len(wanted)
    ran = ShadowedItem.objects.filter(shadow=under_way).values_list("item__recognition", flat=True)
    assert set(ran) == wanted
    shadow(twin, share=0)
    recognise(2_000)
    assert run_waiting() == 0


# --- what it says -----------------------------------------------------------------------------------------
def test_a_twin_agrees_wholly(twin):
    under_way = shadow(twin)
    for seed in range(6):
        recognise(10 * seed)
    assert run_waiting() == 6
    items = list(under_way.items.select_related("item__recognition"))
    assert len(items) == 18
    for one in items:
        assert told(one) == (one.item.result, one.item.sku, one.item.similarity)
        assert one.difference == Difference.SAME
        assert one.threshold_set.generation == twin


def brute_force(
    generation: Generation, recognition: Recognition, keep: set[int]
) -> list[tuple[str, str, float]]:
    """Result, SKU and similarity of each item: crops, plain cosines with all that the generation holds, thresholds."""
    embedder, gallery = get_embedder(generation.embedder), get_gallery(generation)
    entries = gallery.fetch(list(generation.embeddings.values_list("reference_image_id", flat=True)))
    entries = [one for one in entries if one.product_id in keep]
    skus = dict(Product.objects.values_list("pk", "sku"))
    with recognition.image.open("rb") as file:
        photo = images.decode(file.read(), image_limits(), longest_side=1920)
    scale = np.array([photo.width / 32, photo.height / 24, photo.width / 32, photo.height / 24])
    said = []
    for box in BOXES:
        crop = photo.crop(tuple(np.float32(np.array(box) * scale).tolist()), generation.crop_margin)
        vector = embedder.embed([crop]).vectors[0]
        best: dict[int, float] = {}
        for entry in entries:
            best[entry.product_id] = max(best.get(entry.product_id, -1.0), float(entry.vector @ vector))
        (product, first), (_, second) = sorted(best.items(), key=lambda one: -one[1])[:2]
        if first < THRESHOLDS["unknown"]:
            said.append(("unknown", "", first))
        elif first >= THRESHOLDS["recognised"] and first - second >= THRESHOLDS["margin"]:
            said.append(("recognised", skus[product], first))
        else:
            said.append(("needs_confirmation", skus[product], first))
    return said


def expected_difference(item, said: tuple[str, str, float]) -> str:
    if item.sku and said[1] and item.sku != said[1]:
        return "another_product"
    return "same" if item.result == said[0] else f"{item.result}_to_{said[0]}"


def assert_as_brute_force(generation: Generation, made: list[Recognition], keep: set[int]) -> set[str]:
    """Returns the kinds of difference that were seen."""
    kinds = set()
    for recognition in made:
        wanted = brute_force(generation, recognition, keep)
        found = ShadowedItem.objects.filter(item__recognition=recognition).order_by("item__number")
        for one, said in zip(found.select_related("item"), wanted, strict=True):
            assert (one.result, one.sku) == said[:2]
            assert one.similarity == pytest.approx(said[2], abs=2e-4)
            assert one.difference == expected_difference(one.item, said)
            kinds.add(one.difference)
    return kinds


def test_another_embedder_differs_as_brute_force_does(other):
    shadow(other)
    made = [recognise(seed) for seed in (*range(0, 60, 8), *range(500, 504))]
    assert run_waiting() == len(made)
    everything = set(Product.objects.values_list("pk", flat=True))
    kinds = assert_as_brute_force(other, made, everything)
    assert len(kinds) >= 4, kinds


def test_a_product_that_the_gallery_lost_is_what_differs(twin, pictures):
    """The twin without P2: what brute force over the rest says, and where P2 was answered another product is."""
    lost = Product.objects.get(sku="P2")
    ids = list(lost.reference_images.values_list("pk", flat=True))
    get_gallery(twin).delete(ids)
    get_gallery(twin).count()
    twin.embeddings.filter(reference_image_id__in=ids).delete()
    shadow(twin)
    made = [recognise(seed) for seed in (20, 21, 22, 0, 10, 30)]
    run_waiting()
    assert_as_brute_force(twin, made, set(Product.objects.exclude(pk=lost.pk).values_list("pk", flat=True)))
    items = ShadowedItem.objects.select_related("item")
    assert {one.item.sku for one in items if one.difference != Difference.SAME} == {"P2"}
    assert not items.filter(sku="P2").exists()


def test_both_are_asked_within_the_same_product_set(twin):
    few = ProductSet.objects.create(slug="few", name="Few")
    change_product_set(few, add=["P1", "P4"])
    shadow(twin)
    recognise(20, product_set=few)
    run_waiting()
    for one in ShadowedItem.objects.select_related("item"):
        assert told(one) == (one.item.result, one.item.sku, one.item.similarity)
        assert one.sku in {"P1", "P4", ""}


def test_its_own_thresholds_hold_and_a_box_too_small_for_it_is_unknown(twin, monkeypatch):
    under_way = shadow(twin)
    ThresholdSet.objects.create(
        generation=twin, strategy="float", version=2, recognised=2.0, margin=0.0, unknown=-1.0
    )
    recognise(1)
    run_waiting()
    assert set(under_way.items.values_list("result", flat=True)) == {"needs_confirmation"}
    assert under_way.items.first().threshold_set.version == 2
    recognise(2)
    embedder = get_embedder(twin.embedder)
    monkeypatch.setattr(embedder, "card", replace(embedder.card, minimum_side_pixels=1_000))
    run_waiting()
    newest = under_way.items.order_by("-pk")[:3]
    assert [told(one) for one in newest] == [("unknown", "", None)] * 3


# --- what is not run --------------------------------------------------------------------------------------
def counts(under_way: Shadow) -> tuple[int, int]:
    under_way.refresh_from_db()
    return under_way.n_dropped, under_way.n_failed


def test_what_comes_while_the_queue_is_behind_is_dropped_and_counted(twin):
    under_way = shadow(twin)
    broker_client().rpush(QUEUE, *["waiting"] * (WAITING_AT_MOST - 1))
    recognise(1)
    assert broker_client().llen(QUEUE) == WAITING_AT_MOST
    for seed in (2, 3):
        assert recognise(seed).answer["items"]
    assert broker_client().llen(QUEUE) == WAITING_AT_MOST
    assert counts(under_way) == (2, 0)


def test_what_lay_too_long_or_lost_its_photo_is_dropped(twin, settings):
    under_way = shadow(twin)
    first, second, third = (recognise(seed) for seed in range(3))
    late = time.time() - STALE_SECONDS - 1
    boxes = [item["box"] for item in first.answer["items"]]
    run_shadow(under_way.pk, first.pk, boxes, late)
    services.forget_query_image(second.pk)
    run_shadow(under_way.pk, second.pk, boxes, time.time())
    assert counts(under_way) == (2, 0)
    third.delete()
    run_shadow(under_way.pk, third.pk, boxes, time.time())
    assert counts(under_way) == (2, 0)
    assert not ShadowedItem.objects.exists()


def test_its_failure_is_counted_with_the_reason_and_no_recognition_fails(twin, pictures):
    under_way = shadow(twin)
    get_gallery(twin).drop()
    try:
        recognise(1)
        assert run_waiting() == 1
        assert counts(under_way) == (0, 1)
        assert "collection not found" in under_way.last_failure
        recognise(2)
    finally:
        get_gallery(twin).create()
        get_gallery(twin).load()
    assert not ShadowedItem.objects.exists()


def test_a_message_that_comes_twice_is_one_result(twin):
    under_way = shadow(twin)
    recognition = recognise(1)
    assert run_waiting() == 1
    boxes = [item["box"] for item in recognition.answer["items"]]
    run_shadow(under_way.pk, recognition.pk, boxes, time.time())
    assert under_way.items.count() == 3


def test_what_it_said_goes_with_the_recognition(twin):
    under_way = shadow(twin)
    recognition = recognise(1)
    run_waiting()
    recognition.delete()
    assert not under_way.items.exists()


# --- its beginning and its end ----------------------------------------------------------------------------
def test_one_that_is_ready_and_one_at_a_time(active, better, twin):
    with pytest.raises(Problem, match="is active; one that is ready runs in the shadow"):
        shadow(active)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(Problem, match="a number from 0 to 1 is wanted"):
            shadow(twin, share=share)
    first = shadow(twin, share=0.1)
    assert (shadow(twin, share=0.2).pk, Shadow.objects.get().share) == (first.pk, 0.2)
    another = make_ready(better, active)
    with pytest.raises(Problem, match=f"shadow_generation {twin.pk} --off") as refused:
        shadow(another)
    assert (refused.value.status, refused.value.code) == (409, "shadow-under-way")
    end_shadow(twin, ended_by="a test")
    with pytest.raises(Problem, match="does not run in the shadow"):
        end_shadow(twin, ended_by="a test")
    assert shadow(another).pk != first.pk
    first.refresh_from_db()
    assert first.ended_because == "turned off by a test"


@pytest.mark.parametrize("act", ["switch", "retire", "off"])
def test_it_ends_with_what_it_rests_on_and_nothing_more_is_sent_or_stored(active, twin, act):
    under_way = shadow(twin)
    recognise(1)
    match act:
        case "switch":
            generations.switch(twin, active)
            reason = f"{twin} was switched to"
        case "retire":
            generations.retire(twin)
            reason = f"{twin} is retired"
        case "off":
            end_shadow(twin, ended_by="anna")
            reason = "turned off by anna"
    under_way.refresh_from_db()
    assert (under_way.ended_at is not None, under_way.ended_because) == (True, reason)
    assert run_waiting() == 1  # sent before it ended
    recognise(2)
    assert broker_client().llen(QUEUE) == 0
    assert not under_way.items.exists()
    assert counts(under_way) == (0, 0)


def test_a_switch_to_a_third_ends_it_too_for_it_was_beside_another(active, toy, better, twin):
    under_way = shadow(twin)
    third = make_ready(better, active)
    generations.switch(third, active)
    under_way.refresh_from_db()
    assert under_way.ended_because == f"{third} was switched to"
    assert shadow(twin).active == third
    generations.roll_back()
    assert not Shadow.objects.filter(ended_at=None).exists()
