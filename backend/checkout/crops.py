"""The piece of a query image that a correction is about. It is kept when the correction is made, for query images are
deleted after some days, or the same hour; with something round it, so that the box can still be drawn wider."""

import math
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver

from backend.catalogue.services import image_limits
from backend.checkout.models import Correction, Recognition, ReviewState
from recognition import images
from recognition.errors import ImageRefused
from recognition.images import DecodedImage

# Kept round the box, as a share of its sides.
SURROUNDINGS = 0.25
QUALITY = 92
# A list's thumbnails are asked for at once, and a large photo takes some 150 MB while it is decoded.
_one_at_a_time = Lock()


class Crop(NamedTuple):
    """A piece of a query image.

    Attributes:
        jpeg: its pixels, and nothing else that the photo carried.
        box: of the main body, in pixels of the piece.
    """

    jpeg: bytes
    box: list[float]


def decode_query_image(recognition: Recognition, longest_side: int) -> DecodedImage | None:
    """The query image, at most so many pixels a side; None when it is gone, or was refused."""
    try:
        with recognition.image.open("rb") as file, _one_at_a_time:
            return images.decode(file.read(), image_limits(), longest_side=longest_side)
    except (FileNotFoundError, ValueError, ImageRefused):
        return None


def cut_out(recognition: Recognition, box: Sequence[float]) -> Crop | None:
    """The box and what is round it, at the size at which the photo was recognised; None when the photo is gone.

    Args:
        box: x1, y1, x2, y2 in pixels of the upright query image.
    """
    photo = decode_query_image(recognition, settings.DECODE_LONGEST_SIDE)
    if photo is None:
        return None
    x1, y1, x2, y2 = box
    right, down = SURROUNDINGS * (x2 - x1), SURROUNDINGS * (y2 - y1)
    left, top = max(0, math.floor(x1 - right)), max(0, math.floor(y1 - down))
    outer = (left, top, min(photo.width, math.ceil(x2 + right)), min(photo.height, math.ceil(y2 + down)))
    pixels = photo.crop(outer)
    height, width = pixels.shape[:2]
    across, along = width / (outer[2] - outer[0]), height / (outer[3] - outer[1])
    inner = [(x1 - left) * across, (y1 - top) * along, (x2 - left) * across, (y2 - top) * along]
    return Crop(
        images.encode_jpeg(pixels, quality=QUALITY),
        [min(max(side, 0.0), float(most)) for side, most in zip(inner, 2 * (width, height), strict=True)],
    )


def keep_crop(correction: Correction) -> bool:
    """Store the correction's crop, unless it has one; False when its query image is gone.

    Saves the file and sets the fields; the row is the caller's to save.
    """
    if correction.crop:
        return True
    crop = cut_out(correction.recognition, correction.box)
    if crop is None:
        return False
    correction.crop.save("", ContentFile(crop.jpeg), save=False)
    correction.crop_box = crop.box
    return True


def keep_crops_of(recognition: Recognition) -> None:
    """Before its query image goes: what is still to be reviewed keeps its crop."""
    for correction in recognition.corrections.filter(state=ReviewState.OPEN, crop=""):
        correction.recognition = recognition
        if keep_crop(correction):
            correction.save(update_fields=["crop", "crop_box", "updated_at"])


def drop_crops() -> int:
    """Delete the crops that nobody will ask for: of corrections that were rejected or superseded, once their query
    image is gone too.

    Returns:
        How many were deleted.
    """
    over = Correction.objects.filter(
        state__in=[ReviewState.REJECTED, ReviewState.SUPERSEDED], recognition__image=""
    ).exclude(crop="")
    dropped = 0
    for correction in over.only("pk", "crop").iterator(chunk_size=500):
        # The file first, so that a failure leaves a row to try again from.
        correction.crop.storage.delete(str(correction.crop.name))
        Correction.objects.filter(pk=correction.pk).update(crop="", crop_box=None)
        dropped += 1
    return dropped


@receiver(post_delete, sender=Correction)
def _delete_file(instance: Correction, **_: Any) -> None:
    if instance.crop:
        transaction.on_commit(partial(instance.crop.storage.delete, str(instance.crop.name)))
