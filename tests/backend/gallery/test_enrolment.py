"""The ledger and Milvus: the pending is embedded, the changed again, the deleted goes, what fails says why."""

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from backend.catalogue.models import BoxSource, Product, ReferenceImage
from backend.catalogue.services import add_reference_image, set_main_body
from backend.gallery import enrolment, services
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_embedder, get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation
from backend.gallery.selectors import count_ledger
from backend.gallery.tasks import enrol_task
from recognition import images
from recognition.embedder import ProductEmbedder
from recognition.errors import GalleryUnavailable, ModelRefused
from tests.backend.factories import make_device, make_picture, make_product


def add(seed: int = 0, sku: str = "A", **options) -> ReferenceImage:
    product = Product.objects.filter(sku=sku).first() or make_product(sku)
    return add_reference_image(product=product, data=make_picture(seed), **options)


def row_of(image: ReferenceImage) -> Embedding:
    return Embedding.objects.get(reference_image_id=image.pk)


def entry_of(generation: Generation, image_id: int):
    found = get_gallery(generation).fetch([image_id])
    return found[0] if found else None


def test_a_picture_is_embedded_as_the_model_embeds_its_crop(generation):
    image = add(box=(20, 10, 120, 110))
    assert row_of(image).state == EmbeddingState.PENDING
    assert enrol(generation) == 1
    assert (row_of(image).state, row_of(image).revision, row_of(image).lease_until) == ("embedded", 1, None)
    entry = entry_of(generation, image.pk)
    stored = images.decode(image.image.open("rb").read())
    wanted = get_embedder(generation.embedder).embed(
        [stored.crop((20, 10, 120, 110), generation.crop_margin)]
    )
    assert np.allclose(entry.vector, wanted.vectors[0], atol=1e-3)
    assert (entry.hash_code != wanted.hash_codes[0]).sum() == 0
    assert (entry.product_id, entry.revision) == (image.product_id, 1)
    assert enrol(generation) == 0


def test_a_device_learns_when_a_picture_can_be_found(generation):
    image = add(box=(20, 10, 120, 110))
    api = APIClient(headers=make_device()[1])
    url = f"/api/v1/products/A/reference-images/{image.pk}/embedding"
    answer = {"generation": generation.pk, "state": "pending", "error": None}
    assert api.get(url).json() == answer
    enrol(generation)
    assert api.get(url).json() == answer | {"state": "embedded"}
    set_main_body(image, (60, 40, 150, 110), BoxSource.PERSON)
    assert api.get(url).json() == answer | {"state": "pending"}
    Embedding.objects.update(state=EmbeddingState.FAILED, error="too small")
    assert api.get(url).json() == answer | {"state": "failed", "error": "too small"}
    Generation.objects.update(state="retired")
    assert api.get(url).json() == {"generation": None, "state": "pending", "error": None}
    assert api.get(url.replace("/A/", "/B/")).status_code == 404


def test_without_a_detector_the_whole_picture_is_the_main_body(generation):
    image = add()
    enrol(generation)
    image.refresh_from_db()
    assert (image.box, image.box_source) == ([0, 0, image.width, image.height], BoxSource.WHOLE)
    assert row_of(image).revision == image.revision


def test_a_new_box_is_embedded_again_in_the_same_place(generation):
    image = add(box=(0, 0, 80, 80))
    enrol(generation)
    before = entry_of(generation, image.pk)
    set_main_body(image, (60, 40, 150, 110), BoxSource.PERSON)
    assert row_of(image).state == EmbeddingState.PENDING
    enrol(generation)
    after = entry_of(generation, image.pk)
    assert (before.revision, after.revision) == (1, 2)
    assert not np.allclose(before.vector, after.vector, atol=1e-2)


def change(image):
    set_main_body(ReferenceImage.objects.get(pk=image.pk), (60, 40, 150, 110), BoxSource.PERSON)


def while_embedded(generation, monkeypatch, act):
    """Have something happen, once, between a picture's claim and its entry."""
    get_embedder(generation.embedder)  # which embeds too, when it is loaded
    embed_prepared = ProductEmbedder.embed_prepared

    def act_then_embed(model, inputs):
        monkeypatch.setattr(ProductEmbedder, "embed_prepared", embed_prepared)
        act()
        return embed_prepared(model, inputs)

    monkeypatch.setattr(ProductEmbedder, "embed_prepared", act_then_embed)


def test_a_picture_that_changes_while_it_is_embedded_is_pending_again(generation, monkeypatch):
    image = add(box=(0, 0, 80, 80))
    while_embedded(generation, monkeypatch, lambda: change(image))
    assert enrol(generation) == 2
    assert (row_of(image).state, row_of(image).revision) == ("embedded", 2)
    assert entry_of(generation, image.pk).revision == 2


@pytest.mark.parametrize("whole_product", [False, True])
def test_what_is_deleted_leaves_milvus_and_then_the_ledger(generation, whole_product):
    image = add()
    enrol(generation)
    image_id = image.pk
    (image.product if whole_product else image).delete()
    assert Embedding.objects.get(reference_image_id=image_id).state == EmbeddingState.REMOVING
    enrol(generation)
    assert entry_of(generation, image_id) is None
    assert not Embedding.objects.filter(reference_image_id=image_id).exists()


def test_a_picture_deleted_while_it_is_embedded_leaves_no_ghost(generation, monkeypatch):
    image = add()
    image_id = image.pk
    while_embedded(generation, monkeypatch, lambda: ReferenceImage.objects.get(pk=image_id).delete())
    enrol(generation)
    assert entry_of(generation, image_id) is None
    assert not Embedding.objects.filter(reference_image_id=image_id).exists()


def test_a_picture_deleted_before_its_proposed_box_is_kept_stops_nobody(generation, monkeypatch):
    """The others of its batch are embedded, and it is removed."""
    other, image = add(0), add(1)
    image_id, propose = image.pk, enrolment.propose_main_body

    def delete_then_propose(picture, *proposed, **how):
        if picture.pk == image_id:
            ReferenceImage.objects.filter(pk=image_id).first().delete()
        propose(picture, *proposed, **how)

    monkeypatch.setattr(enrolment, "propose_main_body", delete_then_propose)
    enrol(generation)
    assert row_of(other).state == EmbeddingState.EMBEDDED
    enrol(generation)
    assert entry_of(generation, image_id) is None
    assert not Embedding.objects.filter(reference_image_id=image_id).exists()


def test_what_somebody_else_holds_is_left_alone_until_its_lease_runs_out(generation):
    image = add()
    rows = Embedding.objects.filter(reference_image_id=image.pk)
    rows.update(lease_until=timezone.now() + timedelta(minutes=1))
    assert enrol(generation) == 0
    rows.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert enrol(generation) == 1


def test_a_picture_that_fails_says_why_and_the_batch_goes_on(generation):
    good, lost, small = add(0), add(1), add(2, box=(0, 0, 5, 5))
    lost.image.storage.delete(lost.image.name)
    assert enrol(generation) == 3
    assert row_of(good).state == EmbeddingState.EMBEDDED
    assert (row_of(lost).state, row_of(small).state) == (EmbeddingState.FAILED, EmbeddingState.FAILED)
    assert "No such file" in row_of(lost).error
    assert "16" in row_of(small).error  # the embedder's minimum
    set_main_body(small, (0, 0, 90, 90), BoxSource.PERSON)
    enrol(generation)
    assert (row_of(small).state, row_of(small).error) == ("embedded", "")


def test_a_picture_that_kills_its_worker_again_and_again_is_given_up(generation):
    image = add()
    Embedding.objects.update(attempts=enrolment.MAX_ATTEMPTS)
    enrol(generation)
    assert row_of(image).state == EmbeddingState.FAILED
    assert "gave up" in row_of(image).error
    assert services.try_again([image.pk]) == 1
    enrol(generation)
    assert row_of(image).state == EmbeddingState.EMBEDDED


def test_milvus_away_costs_no_attempt_and_loses_nothing(generation, monkeypatch):
    image = add()

    def fail(_):
        raise GalleryUnavailable("gone")

    with monkeypatch.context() as away:
        away.setattr(get_gallery(generation), "upsert", fail)
        with pytest.raises(GalleryUnavailable):
            enrol(generation)
    assert (row_of(image).state, row_of(image).attempts, row_of(image).lease_until) == ("pending", 0, None)
    enrol(generation)
    assert row_of(image).state == EmbeddingState.EMBEDDED


def test_milvus_away_in_the_middle_keeps_what_is_written_and_lets_go_of_the_rest(generation, monkeypatch):
    """One batch has arrived, one fails on its way, one is embedded behind it and one is being decoded."""
    monkeypatch.setattr(enrolment, "FIRST_BATCH", 1)
    monkeypatch.setattr(enrolment, "LARGEST_BATCH", 1)
    images = [add(number) for number in range(5)]
    gallery = get_gallery(generation)
    upsert, written = gallery.upsert, []

    def fail_second(entries):
        written.append(entries)
        if len(written) > 1:
            raise GalleryUnavailable("gone")
        upsert(entries)

    with monkeypatch.context() as away:
        away.setattr(gallery, "upsert", fail_second)
        with pytest.raises(GalleryUnavailable):
            enrol(generation)
    rows = [row_of(image) for image in images]
    assert [row.state for row in rows] == ["embedded"] + 4 * ["pending"]
    assert all((row.attempts, row.lease_until) == (0, None) for row in rows)
    assert enrol(generation) == 4
    assert all(row_of(image).state == EmbeddingState.EMBEDDED for image in images)


def test_a_model_that_cannot_be_loaded_costs_no_attempt_and_holds_nothing(generation, monkeypatch):
    image = add()

    def fail(_):
        raise ModelRefused("no folder")

    with monkeypatch.context() as away:
        away.setattr(enrolment, "Models", fail)
        with pytest.raises(ModelRefused):
            enrol(generation)
    assert (row_of(image).state, row_of(image).attempts, row_of(image).lease_until) == ("pending", 0, None)
    enrol(generation)
    assert row_of(image).state == EmbeddingState.EMBEDDED


def test_a_picture_that_changes_while_milvus_is_away_is_forgiven_once(generation, monkeypatch):
    image = add(box=(0, 0, 80, 80))

    def fail(_):
        raise GalleryUnavailable("gone")

    while_embedded(generation, monkeypatch, lambda: change(image))
    with monkeypatch.context() as away:
        away.setattr(get_gallery(generation), "upsert", fail)
        with pytest.raises(GalleryUnavailable):
            enrol(generation)
    assert (row_of(image).state, row_of(image).attempts) == ("pending", 0)


def test_the_message_of_a_picture_takes_along_a_batch_or_two_of_what_waits_besides(generation, monkeypatch):
    monkeypatch.setattr(enrolment, "FIRST_BATCH", 2)
    monkeypatch.setattr(enrolment, "LARGEST_BATCH", 2)
    gallery = get_gallery(generation)
    upsert, written = gallery.upsert, []
    monkeypatch.setattr(
        gallery,
        "upsert",
        lambda entries: (written.append([one.reference_image_id for one in entries]), upsert(entries)),
    )
    a, b, c, d, e, f, mine = [add(seed).pk for seed in range(7)]
    enrol_task([mine])
    assert written == [[mine], [a, b], [c, d]]
    assert count_ledger(generation)[EmbeddingState.PENDING] == 2
    enrol_task([a])  # whose message comes now
    assert written[3:] == [[e, f]]


def test_the_sweep_finds_what_no_signal_told(generation):
    """Bulk writes send no signals; a lost message looks the same."""
    unseen, stale, gone = add(0), add(1), add(2)
    enrol(generation)
    gone_id = gone.pk
    Embedding.objects.filter(reference_image_id=unseen.pk).delete()
    ReferenceImage.objects.filter(pk=stale.pk).update(revision=7, box=[0, 0, 90, 90])
    ReferenceImage.objects.filter(pk=gone_id)._raw_delete("default")
    services.plan_missing(generation)
    assert count_ledger(generation) == {"pending": 2, "embedded": 0, "failed": 0, "removing": 1}
    enrol(generation)
    assert count_ledger(generation) == {"pending": 0, "embedded": 2, "failed": 0, "removing": 0}
    assert entry_of(generation, stale.pk).revision == 7
    assert entry_of(generation, gone_id) is None
