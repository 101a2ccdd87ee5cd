"""Running a generation in the shadow: on a share of the live recognitions, after their callers have their answer.

The recognition worker offers (`offer`), the bulk worker runs (`run_shadow`). Both generations see the same boxes of the
stored query image, so what differs is the embedder's and the gallery's. No picture is kept for it. What cannot be run
soon is dropped and counted; what a killed worker was at is lost, and nothing else.
"""

import hashlib
import time
from uuid import UUID

import structlog
from celery import current_app
from django.conf import settings
from django.db import IntegrityError

from backend.checkout.models import Difference, Recognition, RecognitionState, ShadowedItem
from backend.checkout.recogniser import Found, InShadow, Serving, recognise_boxes
from backend.common.broker import broker_client
from backend.common.problems import engine_of, problem_of
from backend.gallery.models import Shadow
from backend.gallery.selectors import get_open_shadow, get_threshold_set
from backend.gallery.shadows import count_dropped, count_failed
from recognition.boxes import as_boxes
from recognition.ranking import Result

# Tasks call services, so a service names its task instead of importing it.
SHADOW_TASK = "checkout.shadow"
QUEUE = "shadow"  # where settings route it to
# Whoever finds so many waiting drops his: a queue that is behind gets no longer.
WAITING_AT_MOST = 20
# After so long the gallery is no longer the one that the answer came from.
STALE_SECONDS = 60.0

log = structlog.get_logger(__name__)


def is_in_share(recognition_id: UUID, share: float) -> bool:
    """Whether a recognition is among the share, 0 to 1. Of two shares the larger holds all of the smaller."""
    place = int.from_bytes(hashlib.sha256(recognition_id.bytes).digest()[:8])
    return place < share * 2**64


def offer(recognition: Recognition, in_shadow: InShadow | None, found: Found) -> None:
    """In the recognition worker, when the caller has been told: have it run in the shadow too, if it is of the share.

    An engine that is away costs the shadow's result, and nothing else.

    Args:
        found: as it was answered. The boxes go along as they are, for the stored ones are rounded.
    """
    if in_shadow is None or not is_in_share(recognition.pk, in_shadow.share):
        return
    try:
        if broker_client().llen(QUEUE) >= WAITING_AT_MOST:
            count_dropped(in_shadow.shadow)
            return
        boxes = [list(item.box) for item in found.image.items]
        current_app.send_task(SHADOW_TASK, (in_shadow.shadow, str(recognition.pk), boxes, time.time()))
    except Exception as error:
        if engine_of(error) is None:
            raise
        log.warning("not run in the shadow", recognition=str(recognition.pk), reason=str(error))


def run_shadow(shadow_id: int, recognition_id: UUID, boxes: list[list[float]], sent_at: float) -> None:
    """In the bulk worker: have the generation answer what was answered, and store what it says.

    Nothing is done for a shadow that is over, or a recognition that was deleted. A photo that was purged, or a message
    that lay too long, is counted as dropped. A failure is counted, and raised where it is a mistake of ours.

    Args:
        boxes: of the items, in their order, in pixels of the upright photo.
        sent_at: seconds since the epoch.
    """
    shadow = get_open_shadow(shadow_id)
    recognition = (
        Recognition.objects.select_related("product_set")
        .filter(pk=recognition_id, state=RecognitionState.DONE)
        .first()
    )
    if shadow is None or recognition is None:
        return
    try:
        photo = None if time.time() - sent_at > STALE_SECONDS else _read_photo(recognition)
        rows = [] if photo is None else _recognise(shadow, recognition, photo, boxes)
    except Exception as error:
        count_failed(shadow.pk, str(error) or type(error).__name__)
        if problem_of(error) is None:
            raise
        log.warning("failed in the shadow", recognition=str(recognition_id), reason=str(error))
        return
    if photo is None:
        count_dropped(shadow.pk)
        return
    try:
        # One statement, so all of them or none; a message that came twice changes nothing more.
        ShadowedItem.objects.bulk_create(rows, ignore_conflicts=True)
    except IntegrityError as error:
        log.warning(
            "the recognition was deleted meanwhile", recognition=str(recognition_id), reason=str(error)
        )


def _read_photo(recognition: Recognition) -> bytes | None:
    """The stored query image; None when it was purged."""
    try:
        with recognition.image.open("rb") as file:
            data: bytes = file.read()
    except (FileNotFoundError, ValueError):
        return None
    return data


def _recognise(
    shadow: Shadow, recognition: Recognition, photo: bytes, boxes: list[list[float]]
) -> list[ShadowedItem]:
    strategy = settings.SEARCH_STRATEGY
    serving = Serving(
        shadow.generation, get_threshold_set(shadow.generation, strategy), detector=None, strategy=strategy
    )
    answered = list(recognition.items.order_by("number"))
    assert recognition.answer is not None  # it is done
    found, products = recognise_boxes(serving, photo, as_boxes(boxes), product_set=recognition.product_set)
    rows = []
    for item, told, said in zip(answered, recognition.answer["items"], found, strict=True):
        best = said.candidates[0] if said.candidates else None
        named = None if best is None or said.result is Result.UNKNOWN else products[best.product_id]
        sku = "" if named is None else named.sku
        rows.append(
            ShadowedItem(
                shadow=shadow,
                item=item,
                active_confidence=told["confidence"],
                threshold_set=serving.threshold_set,
                result=said.result.value,
                product_id=None if named is None else named.id,
                sku=sku,
                name="" if named is None else named.name,
                similarity=None if best is None else round(best.similarity, 4),
                confidence=None if said.confidence is None else round(said.confidence, 4),
                difference=Difference.between(item, said.result.value, sku),
            )
        )
    return rows
