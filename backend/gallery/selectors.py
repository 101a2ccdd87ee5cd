"""Reading the gallery's state."""

from django.db.models import Count

from backend.gallery.models import (
    LIVE_STATES,
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
    ModelTask,
    ThresholdSet,
)


def get_active_generation() -> Generation | None:
    """The generation that answers, with its models."""
    return (
        Generation.objects.select_related("embedder", "detector").filter(state=GenerationState.ACTIVE).first()
    )


def list_live_generations() -> list[Generation]:
    return list(Generation.objects.select_related("embedder").filter(state__in=LIVE_STATES))


def get_active_detector() -> InstalledModel | None:
    return InstalledModel.objects.filter(task=ModelTask.DETECTOR, is_active=True).first()


def get_threshold_set(generation: Generation, strategy: str) -> ThresholdSet | None:
    """The newest of the generation and strategy; None while none is fitted."""
    return generation.threshold_sets.filter(strategy=strategy).order_by("-version").first()


def count_ledger(generation: Generation) -> dict[str, int]:
    """Rows of the ledger by state; every state is there."""
    found = dict(
        Embedding.objects.filter(generation=generation)
        .values_list("state")
        .annotate(n=Count("id"))
        .order_by()
    )
    return {state: found.get(state, 0) for state in EmbeddingState.values}
