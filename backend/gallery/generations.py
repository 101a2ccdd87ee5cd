"""The life of a generation: opened, verified, ready, active, standby, retired; or failed, or cancelled.

What fills one is reembedding.py, what compares two is the evaluation. Which generation answers is one row, so a switch
is one transaction: its threshold sets are its own, and come with it.
"""

from collections.abc import Collection
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from backend.common.audit import because
from backend.common.problems import Problem
from backend.common.words import counted
from backend.gallery import shadows
from backend.gallery.loading import get_gallery
from backend.gallery.models import (
    SWITCHABLE_STATES,
    UNFINISHED_STATES,
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
)
from backend.gallery.selectors import get_active_detector, get_active_generation, get_threshold_set
from recognition.gallery import IndexSettings
from recognition.model_card import ModelCard

# Of pictures that a generation lacks, in a refusal.
LACKING_NAMED = 5
RETIRABLE = (*SWITCHABLE_STATES, GenerationState.FAILED)
ROWS_FREED_AT_ONCE = 10_000

log = structlog.get_logger(__name__)


# --- opening ----------------------------------------------------------------------------------------------
def open_first_generation(embedder: InstalledModel, index: IndexSettings) -> Generation:
    """The generation that answers while there is no other: active from the start, and empty."""
    return _open(embedder, index, state=GenerationState.ACTIVE, activated_at=timezone.now())


def open_generation(embedder: InstalledModel, index: IndexSettings, *, redetect: bool = False) -> Generation:
    """A generation beside the active one, building. Of the active one's embedder, it copies that one's vectors.

    Args:
        redetect: the active detector looks at each picture again; then nothing is copied.
    Raises:
        Problem: 409, none is active, another is being built, or there is no detector to look again.
        GalleryUnavailable: Milvus does not answer; no generation was opened.
    """
    active = get_active_generation()
    if active is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"no generation is active yet; open the first with `manage.py activate_model {embedder.name}`",
        )
    if redetect and get_active_detector() is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-detector",
            "no detector is active that could look at the pictures again; install one with"
            " `manage.py install_model DIR --activate`",
        )
    copies = active.embedder_id == embedder.pk and active.crop_margin == _crop_margin(embedder)
    try:
        return _open(
            embedder,
            index,
            state=GenerationState.BUILDING,
            copied_from=active if copies and not redetect else None,
            redetect=redetect,
        )
    except IntegrityError as error:
        other = Generation.objects.filter(state__in=UNFINISHED_STATES).first()
        if other is None:
            raise
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-building",
            f"{other} is {other.state}, and one is built at a time; wait for it, or cancel its job",
        ) from error


def _open(embedder: InstalledModel, index: IndexSettings, **values: Any) -> Generation:
    with transaction.atomic():
        generation = Generation.objects.create(
            embedder=embedder,
            detector=get_active_detector(),
            crop_margin=_crop_margin(embedder),
            index=index.to_dict(),
            collection=_collection_name(embedder),
            **values,
        )
        # Inside the transaction: a generation whose collections could not be made is none.
        gallery = get_gallery(generation)
        gallery.create()
        gallery.load()
    return generation


def _crop_margin(embedder: InstalledModel) -> float:
    return ModelCard.from_dict(embedder.card).crop_margin or 0.0


def _collection_name(embedder: InstalledModel) -> str:
    # Milvus takes letters, digits and '_'. The stamp keeps a restored database apart from an old Milvus' names.
    stamp = timezone.now().strftime("%Y%m%d%H%M%S%f")
    return f"checklane_{slugify(embedder.name).replace('-', '_')[:60]}_{stamp}"


# --- from state to state ----------------------------------------------------------------------------------
def _move(
    generation: Generation, *, to: GenerationState, from_states: Collection[GenerationState], **values: Any
) -> Generation:
    """Change the state if it is one of `from_states`; the audit log has it.

    Raises:
        Problem: 409, the generation is in another state.
    """
    with transaction.atomic():
        # Locked: of two who move it one finds the state that the other left.
        found = (
            Generation.objects.select_for_update(of=("self",))
            .select_related("embedder")
            .get(pk=generation.pk)
        )
        if found.state not in from_states:
            raise Problem(
                HTTPStatus.CONFLICT,
                "generation-state",
                f"{found} is {found.state}; it becomes {to} only from {' or '.join(from_states)}",
            )
        found.state = to
        for name, value in values.items():
            setattr(found, name, value)
        found.save(update_fields=["state", "updated_at", *values])
        shadows.end_with(found)
    generation.state = found.state
    return found


def begin_verifying(generation: Generation) -> Generation:
    """It is filled; from now on the sweep and the enrolment of single pictures see to it too."""
    return _move(generation, to=GenerationState.VERIFYING, from_states=[GenerationState.BUILDING])


def make_ready(generation: Generation) -> Generation:
    """It was verified, and may be switched to."""
    return _move(generation, to=GenerationState.READY, from_states=[GenerationState.VERIFYING])


def build_on(generation: Generation) -> Generation:
    """A failed one is taken up again.

    Raises:
        Problem: 409, it is not failed, or another is being built.
    """
    try:
        return _move(
            generation,
            to=GenerationState.BUILDING,
            from_states=[GenerationState.FAILED],
            failure="",
        )
    except IntegrityError as error:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-building",
            f"another generation is being built; {generation} can be taken up again when that is over",
        ) from error


def fail(generation: Generation, reason: str) -> Generation:
    """It cannot be made ready; its collections stay until it is taken up again or retired."""
    return _move(generation, to=GenerationState.FAILED, from_states=UNFINISHED_STATES, failure=reason[:2_000])


def cancel(generation: Generation) -> Generation:
    """Nobody wants it any more; the sweep drops its collections."""
    return _move(generation, to=GenerationState.CANCELLED, from_states=UNFINISHED_STATES)


def switch(generation: Generation, instead_of: Generation | None, *, reason: str = "") -> Generation:
    """Let a generation answer from the next recognition on, with its threshold sets; the active one stands by.

    Args:
        instead_of: the one that was active when this was decided.
        reason: why it is switched to in spite of what speaks against it, for the audit log.
    Raises:
        Problem: 409, it answers already, is neither ready nor standing by, has no threshold set, or lacks pictures
            that the active one has; or another became active meanwhile.
    """
    with transaction.atomic(), because(reason):
        active = _lock_active()
        refuse_switch(generation, active)
        if active != instead_of:
            raise Problem(
                HTTPStatus.CONFLICT,
                "generation-state",
                f"{active} became active meanwhile, and {generation} was not compared with it; evaluate it again",
            )
        return _answer_with(generation, active)


def refuse_switch(generation: Generation, active: Generation | None) -> None:
    """See that a generation can be switched to as things stand.

    Raises:
        Problem: 409, as `switch` says.
    """
    if active == generation:
        raise Problem(HTTPStatus.CONFLICT, "generation-state", f"{generation} answers already")
    generation.refresh_from_db(fields=["state"])
    if generation.state not in SWITCHABLE_STATES:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"{generation} is {generation.state}; one that is ready or stands by is switched to",
        )
    if get_threshold_set(generation, settings.SEARCH_STRATEGY) is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"{generation} has no threshold set for the strategy {settings.SEARCH_STRATEGY!r}, which is the"
            " deployment's; the sweep fits one within a minute",
        )
    if active is not None and (n_behind := count_behind(generation, active)):
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-behind",
            f"{generation} has {counted(n_behind, 'picture')} still to embed that {active} has embedded; the bulk"
            " worker is at it, try again in a moment",
        )


def refuse_lacking(generation: Generation, active: Generation) -> None:
    """See that nothing would be lost: each picture that the active generation has embedded, the other has too.

    Raises:
        Problem: 409, pictures failed there, or are not even planned.
    """
    lacking = list_lacking(generation, active)
    if n_lacking := lacking.count():
        named = ", ".join(
            str(pk) for pk in lacking.values_list("reference_image_id", flat=True)[:LACKING_NAMED]
        )
        raise Problem(
            HTTPStatus.CONFLICT,
            "pictures-lacking",
            f"{generation} could not embed {counted(n_lacking, 'picture')} that {active} answers with: reference images"
            f" {named}{' and more' if n_lacking > LACKING_NAMED else ''}. Its job says why;"
            " mend them and retry it, or force the switch with a reason",
        )


def list_lacking(generation: Generation, active: Generation) -> QuerySet[Embedding]:
    """Rows of the active generation whose pictures it has embedded and the other has not."""
    own = generation.embeddings.filter(
        state=EmbeddingState.EMBEDDED, reference_image_id=OuterRef("reference_image_id")
    )
    # NOT EXISTS: NOT IN is compared row by row with row where there are more than PostgreSQL keeps in memory.
    return active.embeddings.filter(~Exists(own), state=EmbeddingState.EMBEDDED)


def _lock_active() -> Generation | None:
    """The active generation; of two who switch at once, the second finds what the first has left."""
    list(Generation.objects.select_for_update().order_by("pk"))
    return get_active_generation()


def _answer_with(generation: Generation, active: Generation | None) -> Generation:
    # In this order, for there is never more than one.
    shadows.end_for_switch(generation)
    if active is not None:
        _move(active, to=GenerationState.STANDBY, from_states=[GenerationState.ACTIVE])
    return _move(
        generation,
        to=GenerationState.ACTIVE,
        from_states=SWITCHABLE_STATES,
        activated_at=timezone.now(),
    )


def roll_back(*, reason: str = "") -> Generation:
    """Let the generation answer again that answered before, with all that was enrolled meanwhile.

    Args:
        reason: why it is returned to although it lacks pictures, for the audit log.
    Returns:
        The one that answers now.
    Raises:
        Problem: 409, none stands by; or it lacks pictures, and no reason is given.
    """
    with transaction.atomic(), because(reason):
        active = _lock_active()
        previous = get_previous_generation()
        if previous is None:
            raise Problem(
                HTTPStatus.CONFLICT,
                "generation-state",
                "there is no generation to return to: none stands by since the last switch",
            )
        if active is not None and not reason and (n_lacking := list_lacking(previous, active).count()):
            n_behind = count_behind(previous, active)
            raise Problem(
                HTTPStatus.CONFLICT,
                "generation-behind" if n_behind else "pictures-lacking",
                f"{previous} lacks {counted(n_lacking, 'picture')} that {active} has embedded: {n_behind:,} still to"
                f" embed and {n_lacking - n_behind:,} failed, its page says why; wait for the bulk worker,"
                " mend what failed, or force the return with a reason",
            )
        return _answer_with(previous, active)


def get_previous_generation() -> Generation | None:
    """The one that answered last before the active one, if it still stands by."""
    standing_by = Generation.objects.select_related("embedder").filter(state=GenerationState.STANDBY)
    return standing_by.order_by("-activated_at").first()


def count_behind(generation: Generation, active: Generation) -> int:
    """Pictures that the active generation has embedded and the other has yet to embed."""
    embedded = active.embeddings.filter(state=EmbeddingState.EMBEDDED)
    waiting = generation.embeddings.filter(state=EmbeddingState.PENDING)
    return waiting.filter(reference_image_id__in=embedded.values("reference_image_id")).count()


# --- retiring ---------------------------------------------------------------------------------------------
def retire(generation: Generation) -> Generation:
    """Give a generation up for good; its collections and its ledger go, now or with the next sweep.

    Raises:
        Problem: 409, it is active, or being built.
    """
    return _move(
        generation,
        to=GenerationState.RETIRED,
        from_states=RETIRABLE,
    )


def free_dead_generations() -> int:
    """Drop what retired and cancelled generations hold, in Milvus and in the ledger.

    A recognition that began before the switch may still search one, so the patience of its caller is waited for; as is
    the worker that fills one, until it has noticed.

    Returns:
        How many generations were freed.
    Raises:
        GalleryUnavailable: Milvus does not answer; the next sweep tries again.
    """
    quiet_since = timezone.now() - timedelta(seconds=settings.RECOGNITION_PATIENCE_SECONDS)
    dead = Generation.objects.select_related("embedder").filter(
        state__in=[GenerationState.RETIRED, GenerationState.CANCELLED],
        freed_at=None,
        updated_at__lte=quiet_since,
    )
    for generation in dead:
        get_gallery(generation).drop()
        rows = Embedding.objects.filter(generation=generation)
        while rows.filter(pk__in=rows.values("pk")[:ROWS_FREED_AT_ONCE]).delete()[0]:
            pass
        Generation.objects.filter(pk=generation.pk).update(freed_at=timezone.now())
        log.info("generation freed", generation=generation.pk, collection=generation.collection)
    return len(dead)
