"""The loop: a wrong answer is corrected, reviewed, becomes a picture, and the next answer is right; and back again."""

import threading
from datetime import timedelta

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.db import close_old_connections
from django.utils import timezone

from backend.catalogue.models import Product, ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.checkout import review, services
from backend.checkout.models import Correction, Recognition, RecognitionState, ReviewState
from backend.checkout.recogniser import get_serving, recognise_image
from backend.checkout.review import accept, check_correction, reject, undo
from backend.common.problems import Problem
from backend.gallery.checks import CLOSER, NEAR_DUPLICATE, WORSENS
from backend.gallery.loading import get_gallery
from backend.gallery.models import Embedding
from backend.jobs.services import run_job, start_job
from recognition import images
from recognition.errors import ImageRefused
from tests.backend.factories import make_picture, make_product
from tests.backend.gallery.searched import enrol_and_wait

SIZE = (320, 240)


def picture(seed: int, quality: int = 95) -> bytes:
    return make_picture(seed, SIZE, quality=quality)


def recognise(data: bytes) -> Recognition:
    """A photo through the real recogniser, stored as a worker stores it."""
    recognition = Recognition(image_format="JPEG", asked_by="till 1")
    recognition.image.save("", ContentFile(data), save=False)
    recognition.save()
    services.run_recognition(recognition)
    recognition.refresh_from_db()
    assert recognition.state == RecognitionState.DONE
    return recognition


def nearest_sku(data: bytes) -> str | None:
    found = recognise_image(get_serving(), data)
    candidates = found.image.items[0].candidates
    return found.products[candidates[0].product_id].sku if candidates else None


def in_gallery(generation) -> set[int]:
    return {pk for pk, _, _ in get_gallery(generation).entries()}


def review_here(correction: Correction, **how) -> Correction:
    """Accept with the models of this process."""
    how = {"reviewed_by": "anna", "judge": review._judge_here} | how
    return accept(correction, **how)


@pytest.fixture
def products(generation) -> dict[str, Product]:
    """COLA and PLUM, each with a picture in the gallery and one that is nearly the same."""
    products = {sku: make_product(sku) for sku in ("COLA", "PLUM")}
    for number, product in enumerate(products.values()):
        for quality in (95, 85):
            add_reference_image(product=product, data=picture(10 * number + 1, quality))
    enrol_and_wait(generation)
    return products


@pytest.fixture
def wrong(generation, products) -> Correction:
    """A photo of what nobody has a picture of yet; a person says that it is the product that was not answered."""
    recognition = recognise(picture(77))
    answered = recognition.answer["items"][0]["candidates"][0]["product"]["sku"]
    really = "PLUM" if answered == "COLA" else "COLA"
    return services.correct(recognition, made_by="till 1", item=1, sku=really)


def test_the_next_answer_to_a_like_crop_is_right_and_wrong_again_when_it_is_undone(
    generation, wrong, django_capture_on_commit_callbacks
):
    like = picture(77, quality=60)
    assert nearest_sku(like) != wrong.sku
    accepted = review_here(wrong)
    image = accepted.reference_image
    assert image is not None
    assert (accepted.state, accepted.reviewed_by) == (ReviewState.ACCEPTED, "anna")
    assert timezone.now() - accepted.reviewed_at < timedelta(minutes=1)
    assert (image.product.sku, image.box_source) == (wrong.sku, "person")
    assert image.box == [0, 0, *SIZE]
    enrol_and_wait(generation)
    assert image.pk in in_gallery(generation)
    assert nearest_sku(like) == wrong.sku

    with django_capture_on_commit_callbacks(execute=True):
        reopened = undo(accepted)
    assert (reopened.state, reopened.reviewed_by, reopened.reference_image) == (ReviewState.OPEN, "", None)
    assert not ReferenceImage.objects.filter(pk=image.pk).exists()
    assert not image.image.storage.exists(image.image.name)
    enrol_and_wait(generation)
    assert image.pk not in in_gallery(generation)
    assert nearest_sku(like) != wrong.sku
    # And once more: nothing of the first time is in the way.
    assert review_here(reopened).reference_image is not None


def test_a_crop_is_cut_with_its_surroundings_and_the_box_in_it(products):
    recognition = recognise(picture(5))
    correction = services.correct(recognition, made_by="anna", item=None, sku="COLA", box=[100, 80, 180, 140])
    crop = images.decode(correction.crop.open("rb").read())
    assert (crop.width, crop.height) == (120, 90)
    assert correction.crop_box == [20, 15, 100, 75]
    photo = images.decode(picture(5))
    difference = photo.crop((100, 80, 180, 140)).astype(int) - crop.crop((20, 15, 100, 75)).astype(int)
    assert abs(difference).mean() < 3
    at_the_edge = services.correct(recognition, made_by="anna", item=None, sku="COLA", box=[0, 0, 319.5, 240])
    assert at_the_edge.crop_box == [0, 0, 319.5, 240]


def test_the_crop_outlives_the_query_image_and_goes_when_nobody_will_ask(settings, wrong):
    settings.QUERY_IMAGE_DAYS = 0
    services.purge_query_images()
    wrong.refresh_from_db()
    wrong.recognition.refresh_from_db()
    assert not wrong.recognition.image
    stored = wrong.crop.name
    assert wrong.crop.storage.exists(stored)
    accepted = review_here(wrong)
    services.purge_query_images()
    assert wrong.crop.storage.exists(stored)  # for an undo
    reject(undo(accepted), reviewed_by="anna")
    services.purge_query_images()
    wrong.refresh_from_db()
    assert not wrong.crop
    assert not wrong.crop.storage.exists(stored)
    with pytest.raises(Problem, match="deleted before a crop was kept"):
        review_here(undo(wrong))


def test_corrections_of_older_versions_keep_their_crop_when_the_query_image_goes(settings, wrong):
    wrong.crop.delete()
    Correction.objects.update(crop="", crop_box=None)
    settings.QUERY_IMAGE_DAYS = 0
    services.purge_query_images()
    wrong.refresh_from_db()
    assert wrong.crop
    assert review_here(wrong).reference_image is not None


def test_a_correction_made_after_the_query_image_went_cannot_become_a_picture(products):
    recognition = recognise(picture(77))
    services.forget_query_image(recognition.pk)
    recognition.refresh_from_db()
    correction = services.correct(recognition, made_by="till", item=1, sku="COLA")
    assert not correction.crop
    with pytest.raises(Problem) as refused:
        review_here(correction)
    assert refused.value.code == "crop-gone"
    assert reject(correction, reviewed_by="anna", note="too late").note == "too late"


def test_a_correction_that_is_not_a_product_is_agreed_to_and_gives_no_picture(products):
    recognition = recognise(picture(77))
    correction = services.correct(recognition, made_by="till", item=1, sku=None)
    n_before = ReferenceImage.objects.count()
    accepted = accept(correction, reviewed_by="anna")  # asks no worker
    assert (accepted.state, accepted.reference_image) == (ReviewState.ACCEPTED, None)
    assert ReferenceImage.objects.count() == n_before
    with pytest.raises(Problem, match="'not a product'"):
        check_correction(undo(accepted), review._judge_here)


def test_what_makes_others_worse_is_refused_and_names_them_unless_somebody_says_why(generation, products):
    """A photo of COLA, said to be PLUM: a picture of COLA would find it first."""
    recognition = recognise(picture(1, quality=50))
    correction = services.correct(recognition, made_by="till", item=1, sku="PLUM")
    add_reference_image(product=products["COLA"], data=make_picture(1, (320, 240), quality=51))
    enrol_and_wait(generation)
    with pytest.raises(Problem) as refused:
        review_here(correction)
    assert (refused.value.status, refused.value.code) == (409, "worsens-neighbours")
    assert "of COLA Product COLA would find this one first, and so be taken for PLUM" in refused.value.detail
    assert [one["sku"] for one in refused.value.errors["worse"]] == ["COLA"]
    correction.refresh_from_db()
    assert {one["finding"] for one in correction.last_check["findings"]} >= {WORSENS, CLOSER, NEAR_DUPLICATE}
    assert correction.last_check["finds_own_product"] is False
    with pytest.raises(Problem, match="found no note"):
        review_here(correction, force=True, note="  ")
    assert correction.state == ReviewState.OPEN
    accepted = review_here(correction, force=True, note="the cola bottle holds plum juice")
    assert accepted.note == "the cola bottle holds plum juice"
    assert accepted.reference_image is not None


@pytest.mark.parametrize("act", ["accept", "reject"])
def test_a_correction_is_decided_once(wrong, act):
    reviewed = review_here(wrong) if act == "accept" else reject(wrong, reviewed_by="anna")
    for again in (
        lambda one: review_here(one, reviewed_by="bert"),
        lambda one: reject(one, reviewed_by="bert"),
    ):
        with pytest.raises(Problem) as refused:
            again(Correction.objects.get(pk=wrong.pk))
        assert refused.value.code == "correction-state"
        assert f"is {reviewed.state} by anna" in refused.value.detail
    undo(reviewed)
    with pytest.raises(Problem, match="is open; this is possible only when it is accepted or rejected"):
        undo(Correction.objects.get(pk=wrong.pk))


def test_a_retired_or_deleted_product_gets_no_picture(wrong):
    product = wrong.product
    Product.objects.filter(pk=product.pk).update(state="retired")
    with pytest.raises(Problem, match="is retired and never answered"):
        review_here(Correction.objects.get(pk=wrong.pk))

    def retired_meanwhile(*asked):
        Product.objects.filter(pk=product.pk).update(state="retired")
        return review._judge_here(*asked)

    Product.objects.filter(pk=product.pk).update(state="active")
    with pytest.raises(Problem, match="is retired and never answered"):
        review_here(Correction.objects.get(pk=wrong.pk), judge=retired_meanwhile)

    def deleted_meanwhile(*asked):
        check = review._judge_here(*asked)
        Product.objects.get(pk=product.pk).delete()
        return check

    Product.objects.filter(pk=product.pk).update(state="active")
    with pytest.raises(Problem, match="was deleted; reject the correction"):
        review_here(Correction.objects.get(pk=wrong.pk), judge=deleted_meanwhile)
    assert Correction.objects.get(pk=wrong.pk).state == ReviewState.OPEN


def test_the_very_same_picture_twice_is_refused_as_an_upload_is(generation, wrong):
    review_here(wrong)
    again = services.correct(wrong.recognition, made_by="till", item=1, sku=wrong.sku)
    assert review.get_earlier_accepted(again).pk == wrong.pk
    with pytest.raises(Problem) as refused:
        review_here(again)
    assert refused.value.code == "duplicate-picture"
    assert Correction.objects.get(pk=again.pk).state == ReviewState.OPEN


def test_a_crop_that_cannot_be_embedded_is_refused(products):
    recognition = recognise(picture(77))
    tiny = services.correct(recognition, made_by="till", item=None, sku="COLA", box=[0, 0, 3, 3])
    with pytest.raises((ImageRefused, Problem), match="wanted at least"):
        review_here(tiny)
    review.check_open_corrections()
    tiny.refresh_from_db()
    assert tiny.last_check["code"] == "image-too-small"


def test_the_last_correction_of_an_item_is_the_one_to_review(wrong):
    later = services.correct(wrong.recognition, made_by="anna", item=1, sku=None)
    wrong.refresh_from_db()
    assert (wrong.state, later.state) == (ReviewState.SUPERSEDED, ReviewState.OPEN)
    missed = [
        services.correct(wrong.recognition, made_by="anna", item=None, sku="COLA", box=[0, 0, 99, 99])
        for _ in range(2)
    ]
    assert {one.state for one in missed} == {ReviewState.OPEN}


def sharp_picture(share: float, shift: tuple[int, int] = (0, 0)) -> bytes:
    """Blocks of colour, sharp enough for every check, between two patterns: 1.0 is one of them, 0.0 the other."""
    one, other = (np.random.default_rng(seed).integers(0, 256, (3, 4, 3)) for seed in (3, 4))
    blocks = np.kron(share * one + (1 - share) * other, np.ones((80, 80, 1)))
    return images.encode_jpeg(np.roll(blocks, shift, (0, 1)).astype(np.uint8), quality=90)


def correct_missed(data: bytes, sku: str) -> Correction:
    return services.correct(recognise(data), made_by="till", item=None, sku=sku, box=[0, 0, *SIZE])


def test_many_are_accepted_by_a_job_that_stops_at_none(generation, wrong):
    for sku, share in (("FIZZ", 1.0), ("GRAPE", 0.0)):
        product = make_product(sku)
        for shift in ((0, 0), (9, 7)):
            add_reference_image(product=product, data=sharp_picture(share, shift))
    enrol_and_wait(generation)
    clean = correct_missed(sharp_picture(0.6, (2, 8)), "FIZZ")
    # Nothing speaks against it, until the one before it is in the gallery, which is nearer than GRAPE's own.
    harmed = correct_missed(sharp_picture(0.45, (2, 8)), "GRAPE")
    assert not check_correction(clean, review._judge_here)["findings"]
    assert not check_correction(harmed, review._judge_here)["findings"]
    gone = services.correct(recognise(picture(3)), made_by="till", item=1, sku="COLA")
    Correction.objects.filter(pk=gone.pk).update(product=None)
    pks = [wrong.pk, clean.pk, harmed.pk, gone.pk, 999_999]
    job = start_job(kind=review.ACCEPT_KIND, parameters={"corrections": pks}, asked_by="anna")
    for _ in range(2):  # a job that is taken up again does nothing twice
        run_job(str(job.pk))
    job.refresh_from_db()
    states = dict(Correction.objects.filter(pk__in=pks).values_list("pk", "state"))
    # What was answered wrongly is nearer to another product by its nature: that one wants a person.
    assert states[wrong.pk] == states[gone.pk] == states[harmed.pk] == ReviewState.OPEN
    told = {failure["where"]: failure["reason"] for failure in job.failures}
    assert "is nearer" in told[f"correction {wrong.pk}"]
    assert "FIZZ Product FIZZ is nearer" in told[f"correction {harmed.pk}"]
    assert "was deleted" in told[f"correction {gone.pk}"]
    accepted = Correction.objects.get(pk=clean.pk)
    assert (accepted.state, accepted.reviewed_by) == (ReviewState.ACCEPTED, "anna")
    assert Embedding.objects.get(reference_image_id=accepted.reference_image_id).state == "embedded"
    assert job.result["accepted"] == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_who_accept_at_once_one_does(generation, wrong):
    ready = threading.Barrier(2)
    ended: list[object] = []

    def at_once(name: str) -> None:
        def judge(*asked):
            check = review._judge_here(*asked)
            ready.wait(30)
            return check

        try:
            ended.append(accept(Correction.objects.get(pk=wrong.pk), reviewed_by=name, judge=judge).state)
        except Problem as problem:
            ended.append(problem.code)
        finally:
            close_old_connections()

    threads = [threading.Thread(target=at_once, args=(name,)) for name in ("anna", "bert")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, ended)) == ["accepted", "correction-state"]
    assert ReferenceImage.objects.filter(product=wrong.product).count() == 3
