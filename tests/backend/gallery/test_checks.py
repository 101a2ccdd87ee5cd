"""What the gallery says of a picture before it is in it, and of one that is."""

import pytest
from rest_framework.test import APIClient

from backend.catalogue.models import Product, ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.gallery.checks import CLOSER, NEAR_DUPLICATE, WORSENS, check_embedded, check_picture
from backend.gallery.models import ThresholdSet
from recognition import images
from recognition.errors import ImageRefused
from tests.backend.factories import make_device, make_picture, make_product, make_staff
from tests.backend.gallery.searched import enrol_and_wait

SIZE = (320, 240)
SHARP = {"blurred"}  # smooth patterns are blurred; what is asked here is something else


def picture(seed: int, quality: int = 95) -> bytes:
    return make_picture(seed, SIZE, quality=quality)


def words(findings) -> set[str]:
    return {one.finding for one in findings} - SHARP


@pytest.fixture
def cola(generation) -> ReferenceImage:
    """COLA's only picture, with PLUM's beside it."""
    image = add_reference_image(product=make_product("COLA"), data=picture(1))
    add_reference_image(product=make_product("PLUM"), data=picture(2))
    enrol_and_wait(generation)
    image.refresh_from_db()
    return image


def test_quality_is_told_in_the_words_of_enrolment_and_with_what_to_do(generation):
    check = check_picture(generation, make_product(), picture(1), (10, 10, 50, 50))
    crop = images.decode(picture(1)).crop((10, 10, 50, 50), generation.crop_margin)
    assert tuple(one.finding for one in check.findings) == images.quality_findings(crop)
    (small,) = [one for one in check.findings if one.finding == "small"]
    assert "go nearer" in small.detail
    assert (check.box, check.box_source) == ((10, 10, 50, 50), "person")
    assert (check.own, check.other, check.finds_own_product) == (None, None, None)


def test_a_main_body_that_cannot_be_embedded_is_refused(generation):
    with pytest.raises(ImageRefused, match="wanted at least"):
        check_picture(generation, make_product(), picture(1), (10, 10, 13, 13))


def test_the_same_shot_again_is_told_with_its_picture_whatever_its_box(generation, cola):
    for box in (None, (0, 0, 320, 240), (40, 30, 300, 220)):
        check = check_picture(generation, cola.product, picture(1, quality=40), box)
        (same,) = [one for one in check.findings if one.finding == NEAR_DUPLICATE]
        assert (same.reference_image, same.sku) == (cola.pk, "COLA")
        assert f"as picture {cola.pk}" in same.detail
    assert NEAR_DUPLICATE not in words(check_picture(generation, cola.product, picture(9)).findings)


def test_another_product_that_is_nearer_is_told_with_how_much(generation, cola):
    plum = Product.objects.get(sku="PLUM")
    check = check_picture(generation, plum, picture(1, quality=50))
    (closer,) = [one for one in check.findings if one.finding == CLOSER]
    assert (closer.reference_image, closer.sku) == (cola.pk, "COLA")
    assert check.finds_own_product is False
    by = float(closer.detail.rpartition("by ")[2])
    assert by == pytest.approx(check.other.similarity - check.own.similarity, abs=2e-3)
    assert by > 0
    right = check_picture(generation, cola.product, picture(1, quality=50))
    assert CLOSER not in words(right.findings)
    assert right.finds_own_product is True


def test_of_products_with_one_picture_it_is_told_that_nothing_can_be_said(generation, cola):
    """Left out, such a picture has nothing right to find, so that none can be said to become worse."""
    check = check_picture(generation, make_product("NEW"), picture(1, quality=50))
    assert (check.worse, check.n_alone) == ((), 2)
    assert check_picture(generation, cola.product, picture(1, quality=50)).n_alone == 1
    add_reference_image(product=cola.product, data=picture(1, quality=70))
    enrol_and_wait(generation)
    assert check_picture(generation, make_product("OTHER"), picture(1, quality=50)).n_alone == 1


def test_the_first_picture_of_a_product_is_told_only_what_it_would_be_taken_for(generation, cola):
    new = make_product("NEW")
    like, unlike = (check_picture(generation, new, picture(seed, quality=50)) for seed in (1, 7))
    assert CLOSER not in words(like.findings) | words(unlike.findings)
    between = (like.other.similarity + unlike.other.similarity) / 2
    ThresholdSet.objects.create(
        generation=generation, strategy="float", version=1, recognised=between, margin=0.1, unknown=0.2
    )
    assert CLOSER in words(check_picture(generation, new, picture(1, quality=50)).findings)
    assert CLOSER not in words(check_picture(generation, new, picture(7, quality=50)).findings)


def test_a_picture_that_is_there_is_judged_as_if_it_were_not(generation, cola):
    assert words(check_embedded(generation, cola)) == set()
    again = add_reference_image(product=make_product("NEW"), data=picture(1, quality=30))
    assert check_embedded(generation, again) is None
    enrol_and_wait(generation)
    again.refresh_from_db()
    assert NEAR_DUPLICATE in words(check_embedded(generation, again))
    twin = add_reference_image(product=cola.product, data=picture(1, quality=60))
    enrol_and_wait(generation)
    again.refresh_from_db()
    assert twin.pk in {one.reference_image for one in check_embedded(generation, again)}


def test_whose_pictures_would_be_taken_for_it_is_told(generation, cola):
    add_reference_image(product=cola.product, data=picture(1, quality=15))
    enrol_and_wait(generation)
    plum = Product.objects.get(sku="PLUM")
    check = check_picture(generation, plum, picture(1, quality=50))
    assert WORSENS in words(check.findings)
    assert {one.sku for one in check.worse} == {"COLA"}
    assert all(one.similarity >= one.similarity_before for one in check.worse)


def test_devices_and_people_read_what_speaks_against_a_picture(generation, cola):
    api = APIClient(headers=make_device()[1])
    url = f"/api/v1/products/COLA/reference-images/{cola.pk}/findings"
    answer = api.get(url).json()
    assert answer["generation"] == generation.pk
    assert {one["finding"] for one in answer["findings"]} == SHARP
    page = make_staff("manager", "manager").get(f"/admin/catalogue/referenceimage/{cola.pk}/change/")
    assert "nothing against it" in page.content.decode()
    generation.state = "retired"
    generation.save()
    assert api.get(url).json() == {"generation": None, "findings": None}
