"""Celery tasks of the gallery, on the queue `bulk`."""

from celery import shared_task
from django.conf import settings

from backend.gallery import enrolment, generations, thresholds
from backend.gallery.loading import forget_all_but
from backend.gallery.models import GenerationState
from backend.gallery.selectors import list_live_generations
from backend.gallery.services import ENROL_TASK, plan_missing

# Of a sweep, for each generation: what is left then waits for the next, and others have the worker.
SWEEP_SECONDS = 30.0


@shared_task(name=ENROL_TASK)
def enrol_task(reference_image_ids: list[int]) -> None:
    """See to these pictures in every live generation."""
    live = list_live_generations()
    forget_all_but(live)
    enrolment.enrol_in_each(live, reference_image_ids)


@shared_task(name="gallery.sweep", expires=60)
def sweep_gallery_task() -> None:
    """Each minute: take up what was lost or left, fit thresholds that are due, drop what is dead."""
    live = list_live_generations()
    forget_all_but(live)
    for generation in live:
        plan_missing(generation)
        if generation.state == GenerationState.BUILDING:
            continue
        enrolment.enrol(generation, seconds=SWEEP_SECONDS)
        if generation.state != GenerationState.VERIFYING and thresholds.needs_fit(
            generation, settings.SEARCH_STRATEGY
        ):
            thresholds.fit_thresholds(generation, settings.SEARCH_STRATEGY, automatic=True)
    generations.free_dead_generations()
