"""From pending rows of the ledger to entries in Milvus, and from removed pictures to none.

Safe to run by many workers at once, to be killed at any point, and to be called twice: a row is leased before its
entry is touched, the entry's key is the picture's id, and the row says `embedded` only after Milvus has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
from django.db import transaction
from django.db.models import Case, F, OuterRef, Q, QuerySet, Subquery, Value, When
from django.utils import timezone
from numpy.typing import NDArray

from backend.catalogue.models import BoxSource, ReferenceImage
from backend.catalogue.services import propose_main_body, set_quality_findings
from backend.common.problems import engine_of
from backend.gallery.loading import get_detector, get_embedder, get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation
from backend.gallery.selectors import get_active_detector
from recognition import images
from recognition.detector import MainBodyDetector, main_body
from recognition.errors import ImageRefused
from recognition.gallery import Entry
from recognition.images import DecodedImage, ImageLimits

BATCH = 16
REMOVAL_BATCH = 500
# Longer than a batch can take, with Milvus' time-outs in it: nobody else may touch a leased row's entry.
LEASE = timedelta(minutes=5)
MAX_ATTEMPTS = 5
# Our own stored files: bounded when they came in.
STORED = ImageLimits(max_bytes=1 << 30, max_pixels=1 << 30, min_side=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready to be embedded."""

    row: Embedding
    image: ReferenceImage
    crop: NDArray[np.uint8]


def enrol(
    generation: Generation,
    reference_image_ids: Sequence[int] | None = None,
    *,
    each: Callable[[int], Any] | None = None,
) -> int:
    """Embed what is pending and remove what is to go, until nothing claimable is left.

    Args:
        reference_image_ids: only these pictures; None for all.
        each: called after each batch with the number of rows that are over.
    Returns:
        Rows that are over, failed ones among them.
    Raises:
        GalleryUnavailable: Milvus does not answer; leases are given back, nothing is lost.
    """
    over = 0
    while True:
        # Removals before each batch: a picture that is deleted while it is embedded is to go at once.
        if rows := _claim(generation, EmbeddingState.REMOVING, reference_image_ids, REMOVAL_BATCH):
            _remove(generation, rows)
        elif rows := _claim(generation, EmbeddingState.PENDING, reference_image_ids, BATCH):
            _embed(generation, rows)
        else:
            return over
        over += len(rows)
        if each is not None:
            each(len(rows))


def _claim(
    generation: Generation, state: EmbeddingState, reference_image_ids: Sequence[int] | None, limit: int
) -> list[Embedding]:
    """Lease up to `limit` rows that nobody holds."""
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    rows = Embedding.objects.filter(free, generation=generation, state=state)
    if reference_image_ids is not None:
        rows = rows.filter(reference_image_id__in=reference_image_ids)
    with transaction.atomic():
        claimed = list(rows.select_for_update(skip_locked=True).order_by("reference_image_id")[:limit])
        _rows(claimed).update(lease_until=timezone.now() + LEASE, attempts=F("attempts") + 1)
    return claimed


def _rows(rows: Sequence[Embedding]) -> QuerySet[Embedding]:
    return Embedding.objects.filter(pk__in=[row.pk for row in rows])


def _remove(generation: Generation, rows: Sequence[Embedding]) -> None:
    try:
        get_gallery(generation).delete([row.reference_image_id for row in rows])
    except Exception:
        _rows(rows).update(lease_until=None)
        raise
    _rows(rows).filter(state=EmbeddingState.REMOVING).delete()


def _embed(generation: Generation, rows: Sequence[Embedding]) -> None:
    try:
        embedder = get_embedder(generation.embedder)
        prepared = _prepare(generation, rows, embedder.card.minimum_side_pixels)
        if prepared:
            embeddings = embedder.embed([one.crop for one in prepared])
            get_gallery(generation).upsert(
                [
                    Entry(one.image.pk, one.image.product_id, one.image.revision, vector, hash_code)
                    for one, vector, hash_code in zip(
                        prepared, embeddings.vectors, embeddings.hash_codes, strict=True
                    )
                ]
            )
            _finish(prepared)
    except Exception as error:
        # An engine's failure is not the picture's: it does not count as an attempt.
        given_back = {"attempts": F("attempts") - 1} if engine_of(error) is not None else {}
        _rows(rows).update(lease_until=None, **given_back)
        raise


def _prepare(generation: Generation, rows: Sequence[Embedding], minimum_side: int) -> list[Prepared]:
    """Decode each row's picture, propose its main body if it has none, cut it out. What fails is noted on its row.

    Args:
        minimum_side: of a crop that the embedder takes, in pixels.
    """
    found = ReferenceImage.objects.in_bulk([row.reference_image_id for row in rows])
    detector_model = get_active_detector()
    detector = None if detector_model is None else get_detector(detector_model)
    prepared = []
    for row in rows:
        image = found.get(row.reference_image_id)
        if image is None:  # deleted a moment ago, or by somebody who told nobody
            _rows([row]).update(state=EmbeddingState.REMOVING, lease_until=None)
        elif row.attempts >= MAX_ATTEMPTS:
            _fail(
                row,
                image,
                f"gave up after {row.attempts} attempts; the worker died or the model failed each time",
            )
        else:
            try:
                with image.image.open("rb") as file:
                    decoded = images.decode(file.read(), STORED)
                _see_to_main_body(image, decoded, detector, str(detector_model or ""))
                assert image.box is not None
                x1, y1, x2, y2 = image.box
                crop = decoded.crop((x1, y1, x2, y2), generation.crop_margin)
                _refuse_small(crop, minimum_side)
                set_quality_findings(image, images.quality_findings(crop))
                prepared.append(Prepared(row, image, crop))
            except Exception as error:
                if engine_of(error) is not None:
                    raise
                log.warning("picture not embedded", reference_image=image.pk, reason=str(error))
                _fail(row, image, f"{type(error).__name__}: {error}")
    return prepared


def _refuse_small(crop: NDArray[np.uint8], minimum_side: int) -> None:
    """One by one: the embedder would refuse the whole batch for one crop."""
    height, width = crop.shape[:2]
    if min(height, width) < minimum_side:
        raise ImageRefused(
            "too-small",
            f"Found a main body of {width} x {height} pixels, wanted at least {minimum_side} a side: "
            "draw its box larger, or give a larger picture.",
        )


def _see_to_main_body(
    image: ReferenceImage, decoded: DecodedImage, detector: MainBodyDetector | None, detector_name: str
) -> None:
    if image.box is not None:
        return
    box = None if detector is None else main_body(detector.detect(decoded), decoded.width, decoded.height)
    if box is None:
        propose_main_body(image, (0.0, 0.0, float(image.width), float(image.height)), BoxSource.WHOLE)
    else:
        propose_main_body(image, [float(side) for side in box], BoxSource.DETECTOR, detector=detector_name)


# The revision that a row's picture has by now; null where it was deleted.
_NOW_AT = Subquery(ReferenceImage.objects.filter(pk=OuterRef("reference_image_id")).values("revision"))


def _fail(row: Embedding, image: ReferenceImage, reason: str) -> None:
    """Say `failed`; a row whose picture changed meanwhile stays pending, for the new box may be a better one."""
    rows = _rows([row])
    rows.annotate(now_at=_NOW_AT).filter(state=EmbeddingState.PENDING, now_at=image.revision).update(
        state=EmbeddingState.FAILED, error=reason[:2_000]
    )
    rows.update(lease_until=None)


def _finish(prepared: Sequence[Prepared]) -> None:
    """Say `embedded`, but `pending` again where the picture changed meanwhile; a row that is to go keeps saying so."""
    for one in prepared:
        rows = _rows([one.row])
        rows.filter(state=EmbeddingState.PENDING).annotate(now_at=_NOW_AT).update(
            state=Case(
                When(now_at=one.image.revision, then=Value(EmbeddingState.EMBEDDED)),
                default=Value(EmbeddingState.PENDING),
            ),
            revision=one.image.revision,
            attempts=0,
            error="",
        )
        rows.update(lease_until=None)


def count_waiting(generation: Generation) -> int:
    """Rows that are pending or to be removed."""
    return generation.embeddings.filter(state__in=[EmbeddingState.PENDING, EmbeddingState.REMOVING]).count()
