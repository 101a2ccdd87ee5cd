"""Reviewing corrections: one that is accepted becomes a reference image, so that the next answer is better.

An accepted correction's crop is stored as any upload is and enrolled by the ledger as any picture; undoing takes it
out again. It is refused where it would make pictures of other products be taken for its own, unless who reviews says
why it is to be so.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from backend.catalogue.models import BoxSource, Product, ProductState, ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.checkout import picture_checks
from backend.checkout.crops import keep_crop
from backend.checkout.models import Correction, ReviewState
from backend.common.problems import Problem, engine_of, problem_of
from backend.gallery import enrolment
from backend.gallery.checks import WORSENS
from backend.gallery.loading import get_gallery
from backend.gallery.models import EmbeddingState
from backend.gallery.selectors import get_active_generation, list_live_generations
from backend.jobs.models import Job
from backend.jobs.services import Progress
from recognition.errors import ImageRefused

ACCEPT_KIND = "accept-corrections"
CHECKED_AT_ONCE = 100
# Searches see a write within a second as a rule.
FOUND_WITHIN_SECONDS = 60.0
NOTE_LENGTH = 500

# What is asked about a crop: through the queue, or in this process where it has the models.
Judge = Callable[[Product, bytes, Sequence[float] | None], dict[str, Any]]

log = structlog.get_logger(__name__)


def check_correction(correction: Correction, judge: Judge = picture_checks.ask) -> dict[str, Any]:
    """Ask the gallery about a correction's crop, and keep what it says beside the correction.

    Returns:
        A PictureCheck as JSON.
    Raises:
        Problem: 409, there is nothing to ask about (see `get_candidate_picture`); what `judge` raises.
        ImageRefused: too-small, the crop cannot be embedded.
    """
    product, picture = get_candidate_picture(correction)
    check = judge(product, picture, correction.crop_box)
    Correction.objects.filter(pk=correction.pk).update(last_check=check)
    correction.last_check = check
    return check


def get_candidate_picture(correction: Correction) -> tuple[Product, bytes]:
    """The product that a correction names, and its crop.

    Raises:
        Problem: 409: not-a-product; product-gone; product-retired; crop-gone.
    """
    if not correction.sku:
        raise Problem(
            HTTPStatus.CONFLICT,
            "not-a-product",
            "the correction says 'not a product', so there is no picture to it",
        )
    product = correction.product
    if product is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "product-gone",
            f"product {correction.sku} was deleted; reject the correction, or correct the item anew",
        )
    if product.state != ProductState.ACTIVE:
        raise Problem(
            HTTPStatus.CONFLICT,
            "product-retired",
            f"product {product.sku} is retired and never answered; make it active again first, or reject the"
            " correction",
        )
    if not correction.crop and keep_crop(correction):
        correction.save(update_fields=["crop", "crop_box", "updated_at"])
    try:
        with correction.crop.open("rb") as file:
            return product, file.read()
    except (FileNotFoundError, ValueError) as error:
        raise Problem(
            HTTPStatus.CONFLICT,
            "crop-gone",
            "the query image was deleted before a crop was kept of it, so nothing is left that could become a"
            " picture; reject the correction",
        ) from error


def accept(
    correction: Correction,
    *,
    reviewed_by: str,
    force: bool = False,
    note: str = "",
    judge: Judge = picture_checks.ask,
) -> Correction:
    """Let a correction become a reference image of its product; one that says 'not a product' is only agreed to.

    Args:
        force: also if it makes pictures of other products be taken for this one; then `note` must say why.
    Raises:
        Problem: 409: correction-state, it is not open; worsens-neighbours, with those pictures in `errors`;
            duplicate-picture; as `get_candidate_picture`; what `judge` raises; 400, a forced one without a note.
        ImageRefused: too-small, the crop cannot be embedded.
    """
    _refuse_unless(correction, ReviewState.OPEN)
    _refuse_long(note)
    if force and not note.strip():
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid",
            "found no note; who accepts a picture that makes others worse says why in it",
        )
    if not correction.sku:
        return _decide(correction, ReviewState.ACCEPTED, reviewed_by, note)
    # Before the transaction: it waits for a worker.
    check = check_correction(correction, judge)
    if check["worse"] and not force:
        detail = next(one["detail"] for one in check["findings"] if one["finding"] == WORSENS)
        raise Problem(
            HTTPStatus.CONFLICT,
            "worsens-neighbours",
            f"{detail}; reject it, or accept it all the same and say why",
            errors={"worse": check["worse"]},
        )
    _, picture = get_candidate_picture(correction)
    with transaction.atomic():
        locked = _lock(correction, ReviewState.OPEN)
        # Neither deleted nor retired until the picture stands.
        product = Product.objects.select_for_update(no_key=True).filter(pk=locked.product_id or 0).first()
        if product is None or product.state != ProductState.ACTIVE:
            locked.product = product
            get_candidate_picture(locked)  # which says what is wrong
            raise AssertionError("unreachable")
        image = add_reference_image(
            product=product, data=picture, box=locked.crop_box, box_source=BoxSource.PERSON
        )
        try:
            return _decide(locked, ReviewState.ACCEPTED, reviewed_by, note, reference_image=image)
        except Exception:
            # The row is rolled back; its files would stay.
            for file in (image.image, image.thumbnail):
                file.delete(save=False)
            raise


def reject(correction: Correction, *, reviewed_by: str, note: str = "") -> Correction:
    """Say that a correction is wrong, or of no use; no picture comes of it, and it is no longer counted.

    Raises:
        Problem: 409, it is not open.
    """
    _refuse_long(note)
    with transaction.atomic():
        return _decide(_lock(correction, ReviewState.OPEN), ReviewState.REJECTED, reviewed_by, note)


def undo(correction: Correction) -> Correction:
    """Open a reviewed correction again, and take the picture that it became out of the gallery.

    Raises:
        Problem: 409, it was not reviewed.
    """
    with transaction.atomic():
        locked = _lock(correction, ReviewState.ACCEPTED, ReviewState.REJECTED)
        image = locked.reference_image
        if image is not None:
            image.delete()
        later = Correction.objects.filter(item=locked.item, pk__gt=locked.pk)
        superseded = locked.item_id is not None and later.exists()
        locked.state = ReviewState.SUPERSEDED if superseded else ReviewState.OPEN
        locked.reviewed_by, locked.reviewed_at, locked.note = "", None, ""
        locked.reference_image, locked.last_check = None, None
        locked.save()
        return locked


def supersede_earlier(correction: Correction) -> None:
    """The last correction of an item is the one that is meant; earlier ones need no review. What was accepted stays,
    and is said on the page of the later one."""
    if correction.item_id is not None:
        Correction.objects.filter(
            item=correction.item_id, pk__lt=correction.pk, state=ReviewState.OPEN
        ).update(state=ReviewState.SUPERSEDED)


def get_earlier_accepted(correction: Correction) -> Correction | None:
    """An earlier correction of the same item whose picture stands in the gallery."""
    if correction.item_id is None:
        return None
    return (
        Correction.objects.filter(item=correction.item_id, pk__lt=correction.pk, state=ReviewState.ACCEPTED)
        .exclude(reference_image=None)
        .select_related("product", "reference_image")
        .last()
    )


def _lock(correction: Correction, *states: ReviewState) -> Correction:
    """The row as it is now, held until the end of the transaction.

    Raises:
        Problem: 409, it is in none of the states; 404, it is gone.
    """
    locked = (
        Correction.objects.select_for_update(of=("self",))
        .select_related("recognition", "item", "product", "reference_image")
        .filter(pk=correction.id)
        .first()
    )
    if locked is None:
        raise Problem(HTTPStatus.NOT_FOUND, "not-found", f"there is no correction {correction.pk} any more")
    _refuse_unless(locked, *states)
    return locked


def _refuse_unless(correction: Correction, *states: ReviewState) -> None:
    if correction.state in states:
        return
    by = f" by {correction.reviewed_by}" if correction.reviewed_by else ""
    raise Problem(
        HTTPStatus.CONFLICT,
        "correction-state",
        f"the correction is {correction.state}{by}; this is possible only when it is {' or '.join(states)}",
    )


def _refuse_long(note: str) -> None:
    if len(note) > NOTE_LENGTH:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid",
            f"the note has {len(note):,} characters, at most {NOTE_LENGTH} are taken",
        )


def _decide(
    correction: Correction,
    state: ReviewState,
    reviewed_by: str,
    note: str,
    reference_image: ReferenceImage | None = None,
) -> Correction:
    correction.state, correction.note = state, note.strip()
    correction.reviewed_by, correction.reviewed_at = reviewed_by, timezone.now()
    correction.reference_image = reference_image
    correction.save()
    return correction


# --- many at once, in a worker ----------------------------------------------------------------------------
def _judge_here(product: Product, picture: bytes, box: Sequence[float] | None) -> dict[str, Any]:
    return picture_checks.check_here(product, picture, box).to_dict()


def check_open_corrections() -> int:
    """Ask about each open correction that this generation was not asked about yet; what cannot be asked says why.

    Returns:
        How many were looked at.
    """
    generation = get_active_generation()
    if generation is None:
        return 0
    unchecked = (
        Correction.objects.filter(state=ReviewState.OPEN)
        .exclude(sku="")
        .filter(Q(last_check__isnull=True) | ~Q(last_check__generation=generation.pk))
        .select_related("recognition", "product")
        .order_by("pk")[:CHECKED_AT_ONCE]
    )
    n_checked = 0
    for correction in unchecked:
        try:
            check_correction(correction, _judge_here)
        except (Problem, ImageRefused) as error:
            problem = problem_of(error)
            assert problem is not None
            refused = {"generation": generation.pk, "problem": problem.detail, "code": problem.code}
            Correction.objects.filter(pk=correction.pk).update(last_check=refused)
        n_checked += 1
    return n_checked


def run_accept_job(job: Job, progress: Progress) -> None:
    """The job's runner: accept the corrections that are named in it, one after the other.

    Each picture is enrolled before the next is judged, so that two of one batch cannot harm each other unseen.
    """
    for pk in progress.over(job.parameters["corrections"]):
        correction = Correction.objects.filter(pk=pk).select_related("recognition", "item", "product").first()
        if correction is None or correction.state == ReviewState.ACCEPTED:
            continue  # done before the job was taken up again, or by somebody else
        try:
            accepted = accept(correction, reviewed_by=job.asked_by, judge=_judge_clean)
        except Exception as error:
            problem = problem_of(error)
            if problem is None or engine_of(error) is not None:
                raise
            progress.fail(problem.detail, where=f"correction {pk}")
            continue
        job.result["accepted"] = job.result.get("accepted", 0) + 1
        if accepted.reference_image_id is not None:
            enrolment.enrol_in_each(list_live_generations(), [accepted.reference_image_id])
            _wait_found(accepted.reference_image_id)


def _wait_found(reference_image_id: int) -> None:
    """Until searches see the picture, if it was embedded; what failed is seen by none."""
    generation = get_active_generation()
    if generation is None:
        return
    row = generation.embeddings.filter(reference_image_id=reference_image_id)
    if row.filter(state=EmbeddingState.EMBEDDED).exists():
        get_gallery(generation).wait_found([reference_image_id], FOUND_WITHIN_SECONDS)


def _judge_clean(product: Product, picture: bytes, box: Sequence[float] | None) -> dict[str, Any]:
    """Many at once are only those that nothing speaks against.

    Raises:
        Problem: 409, something does by now.
    """
    check = _judge_here(product, picture, box)
    if check["findings"]:
        raise Problem(
            HTTPStatus.CONFLICT, "has-findings", "; ".join(one["detail"] for one in check["findings"])
        )
    return check
