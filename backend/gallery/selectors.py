"""Reading the gallery's state."""

from http import HTTPStatus
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count

from backend.catalogue.models import ReferenceImage
from backend.common.problems import Problem
from backend.gallery.models import (
    LIVE_STATES,
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
    ModelTask,
    Shadow,
    ThresholdSet,
)


def get_active_generation() -> Generation | None:
    """The generation that answers, with its models."""
    return (
        Generation.objects.select_related("embedder", "detector").filter(state=GenerationState.ACTIVE).first()
    )


class ActiveIds(NamedTuple):
    """Primary keys of what answers now; none of their rows ever changes what it means.

    `live`: of all generations that may be switched to or back to, so that one is noticed when it goes. `shadow`: what
    runs beside the active one, on the share `shadow_share` of the recognitions.
    """

    generation: int
    threshold_set: int | None
    detector: int | None
    live: tuple[int, ...]
    shadow: int | None = None
    shadow_share: float | None = None


# By hand, as each recognition asks it: Django would need longer to write it than PostgreSQL to answer it.
_ACTIVE_IDS = f"""
    SELECT g.id,
           (SELECT t.id FROM {ThresholdSet._meta.db_table} t
            WHERE t.generation_id = g.id AND t.strategy = %s ORDER BY t.version DESC LIMIT 1),
           (SELECT m.id FROM {InstalledModel._meta.db_table} m WHERE m.task = 'detector' AND m.is_active),
           (SELECT array_agg(l.id ORDER BY l.id) FROM {Generation._meta.db_table} l WHERE l.state = ANY(%s)),
           s.id, s.share
    FROM {Generation._meta.db_table} g
    LEFT JOIN {Shadow._meta.db_table} s ON s.ended_at IS NULL AND s.active_id = g.id
    WHERE g.state = 'active'
"""  # noqa: S608  table names of our own models


def get_active_ids(strategy: str) -> ActiveIds | None:
    """Those of the active generation, or None while there is none."""
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVE_IDS, [strategy, list(LIVE_STATES)])
        row = cursor.fetchone()
    if row is None:
        return None
    generation, threshold_set, detector, live, shadow, shadow_share = row
    return ActiveIds(generation, threshold_set, detector, tuple(live), shadow, shadow_share)


def list_live_generations() -> list[Generation]:
    """The active one first: who uploads a picture waits to find it there."""
    live = Generation.objects.select_related("embedder", "copied_from__embedder").filter(
        state__in=LIVE_STATES
    )
    return sorted(live, key=lambda generation: generation.state != GenerationState.ACTIVE)


def get_active_detector() -> InstalledModel | None:
    return InstalledModel.objects.filter(task=ModelTask.DETECTOR, is_active=True).first()


def find_model(name: str, **wanted: str) -> InstalledModel | None:
    """The newest installed model of that name, or of name and version as `name:version`.

    Args:
        wanted: further fields, such as task.
    """
    name, _, version = name.partition(":")
    models = InstalledModel.objects.filter(name=name, **wanted)
    if version:
        models = models.filter(version=version)
    return models.order_by("-created_at").first()


def get_installed_model(name: str, task: ModelTask) -> InstalledModel:
    """As `find_model`.

    Raises:
        Problem: 404, naming those that are installed.
    """
    model = find_model(name, task=task)
    if model is None:
        known = ", ".join(f"{one.name}:{one.version}" for one in InstalledModel.objects.filter(task=task))
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "not-found",
            f"there is no installed {task} {name!r}; there is {known or 'none'}",
        )
    return model


def get_generation(pk: int) -> Generation:
    """A generation with its embedder.

    Raises:
        Problem: 404, naming those that there are.
    """
    generation = Generation.objects.select_related("embedder", "copied_from__embedder").filter(pk=pk).first()
    if generation is None:
        known = ", ".join(
            f"{one.pk} ({one.state})" for one in Generation.objects.exclude(state=GenerationState.RETIRED)
        )
        raise Problem(
            HTTPStatus.NOT_FOUND, "not-found", f"there is no generation {pk}; there is {known or 'none'}"
        )
    return generation


def get_shadow(generation: Generation) -> Shadow | None:
    """The newest of the generation, under way or over; None where it never ran in the shadow."""
    return generation.shadows.select_related("generation__embedder", "active__embedder").first()


def get_open_shadow(pk: int) -> Shadow | None:
    """The one of this id, unless it is over."""
    return Shadow.objects.select_related("generation__embedder").filter(pk=pk, ended_at=None).first()


def choose_live_generations(pk: int | None) -> list[Generation]:
    """The one of this id, else all that live.

    Raises:
        Problem: 404, there is no such generation.
    """
    return list_live_generations() if pk is None else [get_generation(pk)]


def get_threshold_set(generation: Generation, strategy: str) -> ThresholdSet | None:
    """The newest of the generation and strategy; None while none is fitted."""
    return generation.threshold_sets.filter(strategy=strategy).order_by("-version").first()


def list_failures(generation: Generation, limit: int) -> list[dict[str, Any]]:
    """Pictures that could not be embedded, each with its product's SKU and the reason."""
    failed = generation.embeddings.filter(state=EmbeddingState.FAILED).order_by("reference_image_id")[:limit]
    reasons = dict(failed.values_list("reference_image_id", "error"))
    skus = dict(ReferenceImage.objects.filter(pk__in=reasons).values_list("pk", "product__sku"))
    return [{"picture": pk, "product": skus.get(pk, ""), "reason": reason} for pk, reason in reasons.items()]


class EmbeddingStatus(NamedTuple):
    """What the generation that answers holds of a reference image."""

    generation: int | None
    state: EmbeddingState
    error: str | None


def get_embedding_status(image: ReferenceImage) -> EmbeddingStatus:
    """Embedded means: this very revision can be found. Without a row, or a generation, it is pending."""
    row = Embedding.objects.filter(
        generation__state=GenerationState.ACTIVE, reference_image_id=image.pk
    ).first()
    if row is None:
        active = get_active_generation()
        return EmbeddingStatus(active.pk if active else None, EmbeddingState.PENDING, None)
    state = EmbeddingState(row.state)
    if state == EmbeddingState.EMBEDDED and row.revision != image.revision:
        state = EmbeddingState.PENDING
    return EmbeddingStatus(row.generation_id, state, row.error or None)


def count_embedded(generation: Generation) -> int:
    """Pictures that it has an entry of."""
    return generation.embeddings.filter(state=EmbeddingState.EMBEDDED).count()


def count_ledger(generation: Generation) -> dict[str, int]:
    """Rows of the ledger by state; every state is there."""
    found = dict(
        Embedding.objects.filter(generation=generation)
        .values_list("state")
        .annotate(n=Count("id"))
        .order_by()
    )
    return {state: found.get(state, 0) for state in EmbeddingState.values}
