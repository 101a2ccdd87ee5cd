"""Pictures are stored re-encoded, once a product, and leave nothing behind; product sets change as a whole."""

import io

import pytest
from django.core.exceptions import ValidationError
from PIL import ExifTags, Image

from backend.catalogue.models import BoxSource, ProductSet, ReferenceImage
from backend.catalogue.services import (
    add_reference_image,
    change_product_set,
    propose_main_body,
    set_main_body,
)
from backend.common.problems import Problem
from recognition.errors import ImageRefused
from tests.backend.factories import make_picture, make_product

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


def files_under(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_picture_is_stored_upright_without_metadata(media):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "a phone"
    image = add_reference_image(product=make_product(), data=make_picture(size=(160, 120), exif=exif))
    with Image.open(io.BytesIO(image.image.read())) as stored:
        assert (image.width, image.height) == stored.size == (120, 160)
        assert not stored.getexif()
    assert len(files_under(media)) == 2  # the picture and its thumbnail
    assert not any("upload" in str(path) for path in files_under(media))


def test_the_same_picture_twice_for_one_product_is_refused_and_leaves_no_file(media):
    product, data = make_product(), make_picture()
    add_reference_image(product=product, data=data)
    before = files_under(media)
    with pytest.raises(Problem, match="this very picture") as refused:
        add_reference_image(product=product, data=data)
    assert refused.value.status == 409
    assert files_under(media) == before
    add_reference_image(product=make_product("OTHER"), data=data)


def test_a_picture_that_is_none_leaves_nothing(media):
    with pytest.raises(ImageRefused):
        add_reference_image(product=make_product(), data=make_picture()[:400])
    assert not files_under(media)
    assert not ReferenceImage.objects.exists()


def test_a_box_follows_the_picture_when_it_is_stored_smaller():
    image = add_reference_image(
        product=make_product(), data=make_picture(size=(4096, 1024)), box=(1024, 0, 2048, 1024)
    )
    assert (image.width, image.height) == (2048, 512)
    assert image.box == pytest.approx([512, 0, 1024, 512])
    assert image.box_source == BoxSource.PERSON


def test_a_box_outside_the_picture_is_refused_and_leaves_nothing(media):
    with pytest.raises(ValidationError, match="no box inside the picture of 160 x 120"):
        add_reference_image(product=make_product(), data=make_picture(), box=(0, 0, 161, 50))
    assert not files_under(media)


def test_a_new_box_is_a_new_revision_and_a_proposal_never_replaces_a_persons():
    image = add_reference_image(product=make_product(), data=make_picture())
    stale = ReferenceImage.objects.get(pk=image.pk)
    set_main_body(image, (10, 10, 50, 60), BoxSource.PERSON)
    assert image.revision == 2
    propose_main_body(stale, (0, 0, 160, 120), BoxSource.DETECTOR, detector="d 1")
    image.refresh_from_db()
    assert (image.box, image.box_source, image.revision) == ([10, 10, 50, 60], BoxSource.PERSON, 2)
    assert stale.box == [10, 10, 50, 60]


@pytest.mark.django_db(transaction=True)
def test_files_go_with_their_row(media):
    product = make_product()
    add_reference_image(product=product, data=make_picture())
    product.delete()
    assert not files_under(media)


def test_members_change_as_a_whole():
    product_set = ProductSet.objects.create(slug="store", name="Store")
    make_product("A")
    make_product("B")
    change_product_set(product_set, add=["A", "B"])
    with pytest.raises(Problem, match="not in the catalogue: C, D"):
        change_product_set(product_set, add=["C"], remove=["A", "D"])
    assert set(product_set.products.values_list("sku", flat=True)) == {"A", "B"}
    change_product_set(product_set, remove=["A"])
    assert set(product_set.products.values_list("sku", flat=True)) == {"B"}
