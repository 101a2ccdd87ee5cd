"""Acts on the catalogue. Each checks, writes in one transaction, and returns the object."""

import hashlib
import io
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction
from django.db.models import F

from backend.catalogue.models import BoxSource, Product, ProductSet, ReferenceImage, check_box
from backend.common.problems import Problem
from recognition import images
from recognition.images import ImageLimits

# A reference picture is kept at this size at most: its crop feeds an input of some 260 pixels.
STORED_LONGEST_SIDE = 2_048
THUMBNAIL_SIDE = 256

Box = Sequence[float]


def image_limits() -> ImageLimits:
    """The deployment's limits for any picture that comes in."""
    return ImageLimits(max_bytes=settings.IMAGE_MAX_BYTES, max_pixels=settings.IMAGE_MAX_PIXELS)


def save_product(product: Product, changes: dict[str, Any]) -> Product:
    """Create or change a product from checked or unchecked values.

    Raises:
        ValidationError: by field.
    """
    for field, value in changes.items():
        setattr(product, field, value)
    product.full_clean()
    product.save()
    return product


def add_reference_image(
    *, product: Product, data: bytes, box: Box | None = None, box_source: BoxSource = BoxSource.PERSON
) -> ReferenceImage:
    """Store a picture of a product, re-encoded upright and without its metadata.

    Args:
        data: the picture as uploaded: JPEG, PNG or WebP.
        box: main body in pixels of the upright picture as uploaded; without one it is proposed on enrolment.
    Raises:
        ImageRefused: the bytes are no picture, or beyond the limits.
        Problem: 409, the product has this picture already.
        ValidationError: the box is not inside the picture.
    """
    sha256 = refuse_duplicate(product, data)
    decoded = images.decode(data, image_limits(), longest_side=STORED_LONGEST_SIDE)
    height, width = decoded.pixels.shape[:2]
    if box is not None:
        check_box(box, decoded.width, decoded.height)
        across, down = width / decoded.width, height / decoded.height
        box = [box[0] * across, box[1] * down, box[2] * across, box[3] * down]
    image = ReferenceImage(
        product=product,
        sha256=sha256,
        width=width,
        height=height,
        box=None if box is None else list(box),
        box_source=BoxSource.NONE if box is None else box_source,
    )
    image.image.save("", ContentFile(images.encode_jpeg(decoded.pixels, quality=92)), save=False)
    try:
        thumbnail = images.encode_jpeg(_shrink(decoded.pixels), quality=85)
        image.thumbnail.save("", ContentFile(thumbnail), save=False)
        with transaction.atomic():
            image.save(force_insert=True)
    except Exception as error:
        # The row is the truth: without it the files must not stay.
        for file in (image.image, image.thumbnail):
            if file.name:
                file.storage.delete(file.name)
        if isinstance(error, IntegrityError):
            raise _duplicate(product) from error
        raise
    return image


def refuse_duplicate(product: Product, data: bytes) -> str:
    """The SHA-256 of a picture that the product does not have.

    Raises:
        Problem: 409, it has.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if product.reference_images.filter(sha256=sha256).exists():
        raise _duplicate(product)
    return sha256


def _duplicate(product: Product) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT, "duplicate-picture", f"product {product.sku} has this very picture already"
    )


def _shrink(pixels: Any) -> Any:
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    return images.resize(
        pixels,
        max(1, round(width * scale)),
        max(1, round(height * scale)),
        interpolation="bilinear",
        antialias=True,
    )


def set_main_body(
    image: ReferenceImage, box: Box | None, source: BoxSource, *, detector: str = ""
) -> ReferenceImage:
    """Set the box of a picture's main body, or with None ask for a new proposal. A new revision is embedded again.

    Raises:
        ValidationError: the box is not inside the picture.
    """
    if box is not None:
        check_box(box, image.width, image.height)
    image.box = None if box is None else [float(side) for side in box]
    image.box_source = source if box is not None else BoxSource.NONE
    image.box_detector = detector
    image.revision = F("revision") + 1
    image.save(update_fields=["box", "box_source", "box_detector", "revision", "updated_at"])
    image.refresh_from_db(fields=["revision"])
    return image


def propose_main_body(image: ReferenceImage, box: Box, source: BoxSource, *, detector: str = "") -> None:
    """Set a box that no person asked for, unless somebody set one meanwhile; `image` then has what the row has.

    Who proposes also embeds, so this makes a new revision but announces nothing.

    Raises:
        ReferenceImage.DoesNotExist: it was deleted meanwhile.
    """
    proposed = ReferenceImage.objects.filter(pk=image.pk, revision=image.revision).update(
        box=list(box), box_source=source, box_detector=detector, revision=image.revision + 1
    )
    if proposed:
        image.box, image.box_source, image.box_detector = list(box), source, detector
        image.revision += 1
    else:
        image.refresh_from_db()


def confirm_main_body(image: ReferenceImage, detector: str) -> None:
    """Note that a detector proposes the box that the picture has already; no new revision, for nothing changed."""
    ReferenceImage.objects.filter(pk=image.pk, revision=image.revision).update(box_detector=detector)


def set_quality_findings(image: ReferenceImage, findings: Collection[str]) -> None:
    """Keep what was found wrong with a picture; people read it, nothing is refused for it."""
    ReferenceImage.objects.filter(pk=image.pk).update(quality_findings=list(findings))


def find_products(skus: Collection[str]) -> dict[str, int]:
    """Ids of the products that have these SKUs.

    Raises:
        Problem: 400, naming the SKUs that are not in the catalogue.
    """
    found = dict(Product.objects.filter(sku__in=skus).values_list("sku", "pk"))
    missing = sorted(set(skus) - found.keys())
    if missing:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "unknown-sku",
            f"not in the catalogue: {', '.join(missing[:20])}{' ...' if len(missing) > 20 else ''}",
            errors={"skus": missing[:1_000]},
        )
    return found


def change_product_set(
    product_set: ProductSet, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> ProductSet:
    """Add and remove members by SKU; both lists hold, or nothing changes.

    Raises:
        Problem: 400, naming the SKUs that are not in the catalogue.
    """
    found = find_products([*add, *remove])
    with transaction.atomic():
        product_set.products.add(*(found[sku] for sku in add))
        product_set.products.remove(*(found[sku] for sku in remove))
    return product_set


def read_upload(file: Any, max_bytes: int) -> bytes:
    """The bytes of an uploaded file, refused before they are read when they are too many.

    Raises:
        Problem: 413, naming both sizes.
    """
    if file.size > max_bytes:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "image-too-many-bytes",
            f"the file has {file.size:,} bytes, at most {max_bytes:,} are taken",
        )
    data: bytes = file.read()
    if isinstance(file, io.IOBase):
        file.close()
    return data
