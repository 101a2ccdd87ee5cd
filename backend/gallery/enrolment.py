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
    while rows := _claim(generation, EmbeddingState.REMOVING, reference_image_ids, REMOVAL_BATCH):
        _remove(generation, rows)
        over += len(rows)
    while rows := _claim(generation, EmbeddingState.PENDING, reference_image_ids, BATCH):
        _embed(generation, rows)
        over += len(rows)
        if each is not None:
            each(len(rows))
    return over


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
        prepared = _prepare(generation, rows)
        if prepared:
            embeddings = get_embedder(generation.embedder).embed([one.crop for one in prepared])
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


def _prepare(generation: Generation, rows: Sequence[Embedding]) -> list[Prepared]:
    """Decode each row's picture, propose its main body if it has none, cut it out. What fails is noted on its row."""
    found = ReferenceImage.objects.in_bulk([row.reference_image_id for row in rows])
    detector_model = get_active_detector()
    detector = None if detector_model is None else get_detector(detector_model)
    prepared = []
    for row in rows:
        image = found.get(row.reference_image_id)
        if image is None:  # deleted a moment ago: its row says `removing` by now
            _rows([row]).update(lease_until=None)
        elif row.attempts >= MAX_ATTEMPTS:
            _fail(
                row, f"gave up after {row.attempts} attempts; the worker died or the model failed each time"
            )
        else:
            try:
                with image.image.open("rb") as file:
                    decoded = images.decode(file.read(), STORED)
                _see_to_main_body(image, decoded, detector, str(detector_model or ""))
                assert image.box is not None
                x1, y1, x2, y2 = image.box
                crop = decoded.crop((x1, y1, x2, y2), generation.crop_margin)
                set_quality_findings(image, images.quality_findings(crop))
                prepared.append(Prepared(row, image, crop))
            except Exception as error:
                if engine_of(error) is not None:
                    raise
                log.warning("picture not embedded", reference_image=image.pk, reason=str(error))
                _fail(row, f"{type(error).__name__}: {error}")
    return prepared


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


def _fail(row: Embedding, reason: str) -> None:
    _rows([row]).filter(state=EmbeddingState.PENDING).update(
        state=EmbeddingState.FAILED, error=reason[:2_000], lease_until=None
    )


def _finish(prepared: Sequence[Prepared]) -> None:
    """Say `embedded`, but `pending` again where the picture changed meanwhile; a row that is to go keeps saying so."""
    now_at = Subquery(ReferenceImage.objects.filter(pk=OuterRef("reference_image_id")).values("revision"))
    for one in prepared:
        rows = _rows([one.row])
        rows.filter(state=EmbeddingState.PENDING).annotate(now_at=now_at).update(
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
