"""Celery tasks of the gallery, on the queue `bulk`."""

import structlog
from celery import shared_task
from django.conf import settings

from backend.gallery import agreement, enrolment, generations, thresholds
from backend.gallery.loading import forget_all_but
from backend.gallery.models import UNFINISHED_STATES, Generation, GenerationState
from backend.gallery.selectors import list_live_generations
from backend.gallery.services import ENROL_TASK, plan_missing

# Of a sweep, for each generation: what is left then waits for the next, and others have the worker.
SWEEP_SECONDS = 30.0

log = structlog.get_logger(__name__)


@shared_task(name=ENROL_TASK)
def enrol_task(reference_image_ids: list[int]) -> None:
    """See to these pictures in every live generation, and to a batch or two of what waits besides.

    An import sends a message a picture: most then find theirs done, and Milvus gets a batch at a time instead of a
    picture, which takes it as long.
    """
    live = list_live_generations()
    forget_all_but(live)
    enrolment.enrol_in_each(live, reference_image_ids)
    enrolment.enrol_in_each(live, None, seconds=0.0)


@shared_task(name="gallery.sweep", expires=60)
def sweep_gallery_task() -> None:
    """Each minute: take up what was lost or left, fit thresholds that are due, drop what is dead."""
    live = list_live_generations()
    forget_all_but(live)
    try:
        for generation in live:
            with enrolment.others_go_on(generation, "generation not swept"):
                _sweep(generation)
    finally:
        generations.free_dead_generations()


def _sweep(generation: Generation) -> None:
    plan_missing(generation)
    if generation.state == GenerationState.BUILDING:
        return
    enrolment.enrol(generation, seconds=SWEEP_SECONDS)
    if generation.state != GenerationState.VERIFYING and thresholds.needs_fit(
        generation, settings.SEARCH_STRATEGY
    ):
        thresholds.fit_thresholds(generation, settings.SEARCH_STRATEGY, automatic=True)


@shared_task(name="gallery.reconcile", expires=3600)
def reconcile_gallery_task() -> None:
    """Each night: compare ledger and Milvus of every generation that is not being filled, and mend what differs, as
    `manage.py reconcile_gallery --fix` does."""
    for generation in list_live_generations():
        if generation.state in UNFINISHED_STATES:
            continue
        with enrolment.others_go_on(generation, "generation not reconciled"):
            found = agreement.find_drift(generation, mend=True)
            if found.n_drift:
                log.warning("gallery mended", generation=generation.pk, drift=found.describe())
