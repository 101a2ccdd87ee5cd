"""Recognising a photo, from the request to the stored answer, and correcting it.

The web process runs `recognise`: it stores the query image, sends a task and waits for the worker's signal.
The worker runs `run_recognition`. Each recognition ends once (outcomes.py).
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from uuid import UUID

import structlog
from celery import current_app
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction
from django.utils import timezone

from backend.access.models import Device
from backend.catalogue.models import Product, ProductSet, check_box
from backend.catalogue.services import image_limits
from backend.checkout import admission
from backend.checkout.answers import make_answer
from backend.checkout.crops import drop_crops, keep_crop, keep_crops_of
from backend.checkout.models import Correction, Recognition, RecognitionState, ReviewState
from backend.checkout.outcomes import end, store_answer, store_queued
from backend.checkout.recogniser import Found, Serving, get_serving, recognise_image
from backend.checkout.review import supersede_earlier
from backend.checkout.shadows import offer
from backend.common.problems import Problem, problem_of
from recognition.errors import ImageRefused
from recognition.images import check_header

IDEMPOTENCY_KEPT = timedelta(hours=24)
# In one transaction, and in one run: more than a host recognises in an hour, and the bulk worker has other work.
DELETED_AT_ONCE = 500
DELETED_AT_MOST = 50_000
EXPIRED_RETRY_AFTER_SECONDS = 2
# Tasks call services, so a service names its task instead of importing it.
RECOGNISE_TASK = "checkout.recognise"

log = structlog.get_logger(__name__)


def recognise(
    *,
    data: bytes,
    asked_by: str,
    device: Device | None = None,
    product_set: ProductSet | None = None,
    n_candidates: int = 5,
    idempotency_key: str = "",
) -> Recognition:
    """Have a query image recognised and wait for the answer.

    Returns:
        The recognition, done.
    Raises:
        ImageRefused: the bytes are no picture that is taken; nothing was stored.
        Problem: 422, the Idempotency-Key came with another body; 429, too many are under way; 503, nobody was
            free within the patience, or an engine does not answer.
    """
    image_format = check_header(data, image_limits())
    body_sha256 = _body_sha256(data, product_set, n_candidates) if idempotency_key else ""
    if idempotency_key:
        earlier = _find_by_key(device, idempotency_key)
        if earlier is not None:
            return _replay(earlier, body_sha256)
    recognition = Recognition(
        device=device,
        asked_by=asked_by,
        product_set=product_set,
        n_candidates=n_candidates,
        image_format=image_format,
        idempotency_key=idempotency_key,
        body_sha256=body_sha256,
    )
    # All requests with one key share one place.
    place = f"{device and device.pk}:{idempotency_key}" if idempotency_key else str(recognition.pk)
    with admission.admitted(place):
        recognition.image.save("", ContentFile(data), save=False)
        try:
            store_queued(recognition)
        except IntegrityError:
            # The same key came twice at once: the other request has the row, this one waits for its answer.
            _drop_image(recognition)
            earlier = _find_by_key(device, idempotency_key)
            if earlier is None:
                raise
            return _replay(earlier, body_sha256)
        except Exception:
            _drop_image(recognition)
            raise
        return _send_and_wait(recognition)


def _body_sha256(data: bytes, product_set: ProductSet | None, n_candidates: int) -> str:
    digest = hashlib.sha256(data)
    digest.update(f"|{product_set and product_set.slug}|{n_candidates}".encode())
    return digest.hexdigest()


def _find_by_key(device: Device | None, idempotency_key: str) -> Recognition | None:
    return Recognition.objects.filter(device=device, idempotency_key=idempotency_key).first()


def _replay(earlier: Recognition, body_sha256: str) -> Recognition:
    """The answer of the request that had this key first, waited for while it is still under way."""
    if earlier.body_sha256 != body_sha256:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            f"this Idempotency-Key came with another body before (recognition {earlier.pk}); use a new key",
        )
    deadline = time.monotonic() + settings.RECOGNITION_PATIENCE_SECONDS
    while earlier.state == RecognitionState.QUEUED and time.monotonic() < deadline:
        time.sleep(0.05)
        found = Recognition.objects.filter(pk=earlier.pk).first()
        if found is None:
            break  # its picture was refused and forgotten: sent again, it will be refused again
        earlier = found
    return _answered(earlier)


def _answered(recognition: Recognition) -> Recognition:
    """The recognition if it is done; else the problem that says how it ended."""
    if recognition.state == RecognitionState.DONE:
        assert recognition.answer is not None
        return recognition
    if recognition.state == RecognitionState.FAILED and recognition.failure:
        failure = recognition.failure
        raise Problem(
            failure["status"], failure["code"], failure["detail"], retry_after=failure.get("retry_after")
        )
    raise Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "no-worker-free",
        f"no worker was free within {settings.RECOGNITION_PATIENCE_SECONDS:g} s; send the photo again",
        retry_after=EXPIRED_RETRY_AFTER_SECONDS,
    )


def _send_and_wait(recognition: Recognition) -> Recognition:
    deadline = time.monotonic() + settings.RECOGNITION_PATIENCE_SECONDS
    try:
        current_app.send_task(
            RECOGNISE_TASK,
            (
                str(recognition.pk),
                recognition.image.name,
                recognition.n_candidates,
                recognition.product_set_id,
            ),
            expires=settings.RECOGNITION_PATIENCE_SECONDS,
        )
        outcome = admission.wait_for_signal(str(recognition.pk), deadline - time.monotonic())
    except Exception:
        # The broker is gone: free the key, so that the caller can send the same request again.
        end(recognition, RecognitionState.EXPIRED, idempotency_key="")
        raise
    if outcome is None:
        if not end(recognition, RecognitionState.EXPIRED, idempotency_key=""):
            recognition.refresh_from_db()  # it ended in the last moment; its signal is on the way
    elif outcome["state"] == RecognitionState.DONE:
        recognition.state, recognition.answer = outcome["state"], outcome["answer"]
    else:
        # As told by the worker, which may have been unable to write it (PostgreSQL was away).
        recognition.state, recognition.failure = outcome["state"], outcome["failure"]
    return _answered(recognition)


def _drop_image(recognition: Recognition) -> None:
    if recognition.image.name:
        recognition.image.storage.delete(recognition.image.name)


def run_recognition(recognition: Recognition) -> None:
    """In the worker: recognise a queued recognition, store the answer, and tell the web process.

    A failure is stored and told as the problem that it is to the caller, and raised where it is a mistake of ours.

    Args:
        recognition: as the web process sent it, not read from its row: that one is asked when the answer is stored.
    """
    started = time.perf_counter()
    try:
        serving = get_serving()
        found = _recognise(recognition, serving)
        answer, items = make_answer(recognition, serving, found, started)
        stored = store_answer(recognition, serving, answer, items)
    except Exception as error:
        problem = problem_of(error) or Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "recognition-failed",
            "the recognition failed; the log says why",
            retry_after=2,
        )
        _fail(recognition, problem, forget=isinstance(error, ImageRefused))
        if problem_of(error) is None:
            raise
        log.warning(
            "recognition failed", recognition=str(recognition.pk), code=problem.code, reason=str(error)
        )
        return
    if stored:
        admission.signal(str(recognition.pk), {"state": RecognitionState.DONE, "answer": answer})
        offer(recognition, serving.in_shadow, found)


def _recognise(recognition: Recognition, serving: Serving) -> Found:
    with recognition.image.open("rb") as file:
        data = file.read()
    return recognise_image(
        serving, data, product_set=recognition.product_set, candidates=recognition.n_candidates
    )


def _fail(recognition: Recognition, problem: Problem, *, forget: bool) -> None:
    """Store and tell how a recognition failed.

    Args:
        forget: the picture was at fault, so nothing of it is stored.
    """
    failure = problem.body() | {"retry_after": problem.retry_after}
    try:
        if forget:
            _drop_image(recognition)
            Recognition.objects.filter(pk=recognition.pk, state=RecognitionState.QUEUED).delete()
        else:
            # What may pass by itself must not be replayed to the same key.
            end(recognition, RecognitionState.FAILED, failure=failure, idempotency_key="")
    finally:
        # Also when PostgreSQL is what failed.
        admission.signal(str(recognition.pk), {"state": RecognitionState.FAILED, "failure": failure})


# --- corrections ------------------------------------------------------------------------------------------
def correct(
    recognition: Recognition,
    *,
    made_by: str,
    item: int | None,
    sku: str | None,
    box: Sequence[float] | None = None,
) -> Correction:
    """Store what a person says: item -> SKU; item -> not a product (sku None); or a missed item: box and SKU.

    Raises:
        Problem: 400, unknown item or SKU, or neither or both of item and box; 409, the recognition is not done.
        ValidationError: the box is not inside the query image.
    """
    if recognition.state != RecognitionState.DONE or recognition.answer is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "not-done",
            f"the recognition is {recognition.state}, only a done one is corrected",
        )
    if item is not None and box is not None:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid",
            f"found item {item} and a box too; one of them is wanted: an item of the recognition, or the box of one"
            " that was missed",
        )
    product = None
    if sku is not None:
        product = Product.objects.filter(sku=sku).first()
        if product is None:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "unknown-sku", f"there is no product {sku!r} in the catalogue"
            )
    recognised = None
    if item is not None:
        recognised = recognition.items.filter(number=item).first()
        if recognised is None:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "unknown-item",
                f"the recognition has no item {item}; it has {recognition.items.count()}",
            )
        box = recognised.box
    elif box is None or product is None:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "invalid", "give an item, or the box and SKU of what was missed"
        )
    else:
        size: Mapping[str, int] = recognition.answer["image"]
        check_box(box, size["width"], size["height"])
    correction = Correction(
        recognition=recognition,
        item=recognised,
        box=list(box),
        product=product,
        sku=sku or "",
        made_by=made_by,
    )
    keep_crop(correction)
    try:
        with transaction.atomic():
            correction.save()
            supersede_earlier(correction)
    except Exception:
        if correction.crop:
            correction.crop.delete(save=False)
        raise
    return correction


# --- what the clock does ----------------------------------------------------------------------------------
def expire_recognitions() -> int:
    """End those whose web process and worker both died."""
    deadline = timezone.now() - timedelta(seconds=2 * settings.RECOGNITION_PATIENCE_SECONDS)
    return Recognition.objects.filter(state=RecognitionState.QUEUED, created_at__lt=deadline).update(
        state=RecognitionState.EXPIRED, idempotency_key=""
    )


def purge_query_images() -> int:
    """Delete query images that were kept long enough; boxes, results and the crops of corrections stay. Frees
    Idempotency-Keys of yesterday.

    Returns:
        How many images were deleted.
    """
    now = timezone.now()
    Recognition.objects.exclude(idempotency_key="").filter(created_at__lt=now - IDEMPOTENCY_KEPT).update(
        idempotency_key=""
    )
    old = Recognition.objects.exclude(image="").exclude(state=RecognitionState.QUEUED)
    old = old.filter(created_at__lte=now - timedelta(days=settings.QUERY_IMAGE_DAYS))
    purged = 0
    for recognition in old.only("pk", "image").iterator(chunk_size=500):
        purged += forget_query_image(recognition.pk)
    drop_crops()
    return purged


def delete_old_recognitions() -> int:
    """Delete recognitions that were kept for HISTORY_DAYS, with all that belongs to them. One stays while a correction
    of it waits for review or could be undone. Of more than DELETED_AT_MOST the next run takes the rest.

    Returns:
        How many were deleted.
    """
    if settings.HISTORY_DAYS is None:
        return 0
    old = Recognition.objects.exclude(state=RecognitionState.QUEUED)
    old = old.filter(created_at__lte=timezone.now() - timedelta(days=settings.HISTORY_DAYS))
    needed = Correction.objects.filter(state__in=(ReviewState.OPEN, ReviewState.ACCEPTED))
    old = old.exclude(pk__in=needed.values("recognition_id"))
    deleted = 0
    while deleted < DELETED_AT_MOST and (batch := list(old.only("pk", "image")[:DELETED_AT_ONCE])):
        for recognition in batch:
            _drop_image(recognition)
        old.filter(pk__in=[recognition.pk for recognition in batch]).delete()
        deleted += len(batch)
    return deleted


def forget_query_image(recognition_id: UUID) -> bool:
    """Delete one query image: the file first, so that a failure leaves a row to try again from."""
    recognition = Recognition.objects.only("pk", "image").get(pk=recognition_id)
    if not recognition.image:
        return False
    keep_crops_of(recognition)
    _drop_image(recognition)
    Recognition.objects.filter(pk=recognition_id).update(image="")
    return True
