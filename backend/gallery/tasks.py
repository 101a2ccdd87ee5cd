"""Celery tasks of the gallery, on the queue `bulk`."""

from celery import shared_task
from django.conf import settings

from backend.gallery import enrolment, thresholds
from backend.gallery.models import GenerationState
from backend.gallery.selectors import list_live_generations
from backend.gallery.services import ENROL_TASK, plan_missing


@shared_task(name=ENROL_TASK)
def enrol_task(reference_image_ids: list[int]) -> None:
    """See to these pictures in every live generation."""
    for generation in list_live_generations():
        enrolment.enrol(generation, reference_image_ids)


@shared_task(name="gallery.sweep", expires=60)
def sweep_gallery_task() -> None:
    """Each minute: take up what a lost message or a dead worker left, and fit thresholds that are due."""
    for generation in list_live_generations():
        plan_missing(generation)
        enrolment.enrol(generation)
        if generation.state == GenerationState.ACTIVE and thresholds.needs_fit(
            generation, settings.SEARCH_STRATEGY
        ):
            thresholds.fit_thresholds(generation, settings.SEARCH_STRATEGY, automatic=True)
