"""Turning on and off that a ready generation runs in the shadow: on a share of the live recognitions, beside the one
that answers, so that an operator sees before a switch what it would change at the tills.

What runs it, and keeps what it says, is the checkout's. It ends with whatever it rests on: when either generation's
state changes, in the same transaction.
"""

from http import HTTPStatus

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from backend.common.problems import Problem
from backend.gallery.models import Generation, GenerationState, Shadow
from backend.gallery.selectors import get_active_generation

FAILURE_LENGTH = 2_000


def start_shadow(generation: Generation, *, share: float, started_by: str) -> Shadow:
    """Run a ready generation on this share of the live recognitions; where it does already, change the share.

    Args:
        share: 0 to 1; with 0 nothing is run, and what was found so far stays in view.
    Raises:
        Problem: 400, a share that is none; 409, the generation is not ready, none is active, or another generation is
            in the shadow.
    """
    if not 0 <= share <= 1:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "invalid", f"found a share of {share:g}, a number from 0 to 1 is wanted"
        )
    try:
        with transaction.atomic():
            # Locked before any shadow is, as by whoever changes a generation's state.
            found = (
                Generation.objects.select_for_update(of=("self",))
                .select_related("embedder")
                .get(pk=generation.pk)
            )
            active = get_active_generation()
            if found.state != GenerationState.READY or active is None:
                raise Problem(
                    HTTPStatus.CONFLICT,
                    "generation-state",
                    f"{found} is {found.state}; one that is ready runs in the shadow of the active one",
                )
            under_way = Shadow.objects.select_for_update().filter(ended_at=None).first()
            if under_way is None:
                return Shadow.objects.create(
                    generation=found, active=active, share=share, started_by=started_by
                )
            if under_way.generation_id != found.pk:
                raise _another(under_way)
            under_way.share = share
            under_way.save(update_fields=["share", "updated_at"])
            return under_way
    except IntegrityError as error:
        under_way = Shadow.objects.filter(ended_at=None).first()
        if under_way is None:
            raise
        raise _another(under_way) from error


def _another(under_way: Shadow) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "shadow-under-way",
        f"{under_way.generation} is in the shadow, and one is at a time; end that first with"
        f" `manage.py shadow_generation {under_way.generation_id} --off`",
    )


def end_shadow(generation: Generation, *, ended_by: str) -> Shadow:
    """Run the generation on no further recognition; what was found stays.

    Raises:
        Problem: 409, it is not in the shadow.
    """
    with transaction.atomic():
        under_way = Shadow.objects.select_for_update().filter(generation=generation, ended_at=None).first()
        if under_way is None:
            raise Problem(HTTPStatus.CONFLICT, "generation-state", f"{generation} does not run in the shadow")
        return _end(under_way, f"turned off by {ended_by}")


def end_with(generation: Generation) -> None:
    """A generation's state has changed: what it has a part in is over."""
    concerned = Q(generation=generation) | Q(active=generation)
    for under_way in Shadow.objects.select_for_update().filter(concerned, ended_at=None):
        _end(under_way, f"{generation} is {generation.state}")


def end_for_switch(generation: Generation) -> None:
    """Another generation is to answer: whatever ran beside the one that did has nothing to be beside of."""
    for under_way in Shadow.objects.select_for_update().filter(ended_at=None):
        _end(under_way, f"{generation} was switched to")


def _end(shadow: Shadow, because: str) -> Shadow:
    shadow.ended_at, shadow.ended_because = timezone.now(), because[:250]
    shadow.save(update_fields=["ended_at", "ended_because", "updated_at"])
    return shadow


# --- what is counted --------------------------------------------------------------------------------------
def count_dropped(shadow_id: int) -> None:
    """A recognition of the share was not run."""
    Shadow.objects.filter(pk=shadow_id, ended_at=None).update(n_dropped=F("n_dropped") + 1)


def count_failed(shadow_id: int, reason: str) -> None:
    """The generation failed on a recognition; the last reason is kept, the log has each."""
    Shadow.objects.filter(pk=shadow_id, ended_at=None).update(
        n_failed=F("n_failed") + 1, last_failure=reason[:FAILURE_LENGTH]
    )
