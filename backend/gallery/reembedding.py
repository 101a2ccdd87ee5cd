"""Filling a generation with the whole catalogue: a job in turns of some seconds, on the queue `bulk`.

The ledger is what it walks and what it counts, so it may die anywhere: the next turn goes on with the rows that are
pending. A new generation is then verified and made ready; one that lives already (Milvus was lost) is filled again.
"""

import time
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus

import structlog
from django.conf import settings
from django.db import transaction

from backend.common.problems import Problem
from backend.gallery import agreement, enrolment, generations, thresholds
from backend.gallery.loading import forget_all_but, get_gallery
from backend.gallery.models import (
    LIVE_STATES,
    UNFINISHED_STATES,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
)
from backend.gallery.selectors import count_ledger, list_failures, list_live_generations
from backend.gallery.services import plan_again, plan_missing
from backend.jobs.models import UNFINISHED, Job
from backend.jobs.services import (
    MAX_FAILURES_KEPT,
    SAVE_EVERY_SECONDS,
    GoOnLater,
    JobKind,
    Progress,
    start_job,
)
from recognition.errors import GalleryUnavailable
from recognition.gallery import Gallery, IndexSettings, Strategy
from recognition.index import MIN_INDEXED_ROWS

REEMBED_KIND = "reembed"
TURN_SECONDS = 10.0
# Until rows that somebody else holds may be free, an index is built, or Milvus is back.
WAIT_SECONDS = 3.0
# Rows that come in later may keep Milvus from an index: it is told to seal them too, no more often than this.
SEAL_AGAIN_SECONDS = 60.0
# What was mended is compared again; more often something is wrong that mending does not cure.
MENDED_AT_MOST = 3
STRATEGIES: tuple[Strategy, ...] = ("float", "hash", "hash_rerank")

log = structlog.get_logger(__name__)


def start_reembedding(
    embedder: InstalledModel,
    index: IndexSettings,
    *,
    redetect: bool = False,
    asked_by: str,
    device_id: int | None = None,
) -> Job:
    """Open a generation beside the active one, and have it filled, verified and made ready.

    Args:
        redetect: the active detector proposes the boxes anew, but for those that people drew or sent. A picture has one
            box, which all generations share; where it changes, the others embed the picture again too.
    Raises:
        Problem: 409, no generation is active, another is being built, or no detector is active.
        GalleryUnavailable: Milvus does not answer; nothing was begun.
    """
    with transaction.atomic():
        generation = generations.open_generation(embedder, index, redetect=redetect)
        plan_missing(generation)
        return _start(generation, asked_by, device_id)


def rebuild(generation: Generation, *, drop: bool, asked_by: str) -> Job:
    """Have a live generation filled again from PostgreSQL and the pictures, whatever Milvus holds or has lost.

    Until that is done searches find a part of it. One that is being built goes on with the job that it has.

    Args:
        drop: its collections are made anew, so that nothing of what they hold stays.
    Raises:
        Problem: 409, the generation is not live.
        GalleryUnavailable: Milvus does not answer; run it again.
    """
    if generation.state not in LIVE_STATES:
        raise _not_to_be_filled(generation)
    gallery = get_gallery(generation)
    # Before Milvus, so that whoever is stopped between the two leaves a ledger that says what is missing; and after it,
    # so that what a worker writes meanwhile is written again.
    plan_again(generation)
    if drop:
        gallery.drop()
    gallery.create()
    gallery.load()
    plan_again(generation)
    plan_missing(generation)
    try:
        return _start(generation, asked_by, None)
    except Problem:
        job = get_job(generation)
        if job is None or job.state not in UNFINISHED:
            raise
        return job


def _start(generation: Generation, asked_by: str, device_id: int | None) -> Job:
    return start_job(
        kind=REEMBED_KIND,
        subject=f"{generation}, {generation.index['type']}",
        parameters={"generation": generation.pk},
        lock=f"generation {generation.pk}",
        asked_by=asked_by,
        device_id=device_id,
    )


def get_job(generation: Generation) -> Job | None:
    """The newest job that fills or filled it."""
    return Job.objects.filter(kind=REEMBED_KIND, parameters__generation=generation.pk).first()


# --- the job ----------------------------------------------------------------------------------------------
def _generation_of(job: Job) -> Generation:
    return Generation.objects.select_related("embedder", "copied_from__embedder").get(
        pk=job.parameters["generation"]
    )


def _run(job: Job, progress: Progress) -> None:
    generation = _generation_of(job)
    if generation.state not in LIVE_STATES:
        raise _not_to_be_filled(generation)
    forget_all_but(list_live_generations())
    try:
        _fill(generation, progress)
        if generation.state == GenerationState.BUILDING:
            generation = generations.begin_verifying(generation)
        _verify(generation, progress)
    except GalleryUnavailable as error:
        log.warning("re-embedding waits for Milvus", generation=generation.pk, reason=str(error))
        job.result["stage"] = f"waiting: {error}"
        raise GoOnLater(WAIT_SECONDS) from error
    for passing in ("stage", "sealed_at"):
        job.result.pop(passing, None)


def _not_to_be_filled(generation: Generation) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "generation-state",
        f"{generation} is {generation.state} and is not filled any more; open another with `manage.py reembed`",
    )


def _fill(generation: Generation, progress: Progress) -> None:
    """One turn of it; returns when nothing is left to do."""
    copies = generation.state == GenerationState.BUILDING and generation.copied_from is not None
    if generation.state == GenerationState.BUILDING:
        # Its job's alone, so what is held is held by a turn that died. One that hangs and writes late is found out
        # when both stores are compared.
        generation.embeddings.exclude(lease_until=None).update(lease_until=None)
    progress.job.result["stage"] = "copying vectors" if copies else "embedding pictures"
    _tell(generation, progress)

    def each(_: int) -> None:
        if progress.is_due:
            _tell(generation, progress)

    n_over = enrolment.enrol(generation, each=each, seconds=TURN_SECONDS)
    _tell(generation, progress)
    if enrolment.count_waiting(generation):
        # With nothing done, the rest is held by somebody, perhaps by a worker that died.
        raise GoOnLater(0.0 if n_over else WAIT_SECONDS)


def _tell(generation: Generation, progress: Progress) -> None:
    counts = count_ledger(generation)
    failed = counts[EmbeddingState.FAILED]
    progress.set(
        done=counts[EmbeddingState.EMBEDDED] + failed,
        total=sum(counts.values()) - counts[EmbeddingState.REMOVING],
        failed=failed,
        failures=progress.job.failures
        if failed == len(progress.job.failures)
        else list_failures(generation, MAX_FAILURES_KEPT),
    )


def _verify(generation: Generation, progress: Progress) -> None:
    """Believe in a generation only when both stores agree, the index is whole, it answers, and it has thresholds."""
    job, gallery = progress.job, get_gallery(generation)
    report = gallery.index_report()
    # Fewer rows get no index, so that sealing them would change nothing; more may be written while this verifies.
    if (
        report.growing_rows >= MIN_INDEXED_ROWS
        and time.time() - job.result.get("sealed_at", 0.0) >= SEAL_AGAIN_SECONDS
    ):
        job.result["stage"] = "verifying: Milvus seals what was written"
        _seal(gallery, progress)
        job.result["sealed_at"] = time.time()
        report = gallery.index_report()
    if not report.complete:
        job.result["stage"] = f"verifying: Milvus builds the index. {report.describe()}"
        progress.save()
        raise GoOnLater(WAIT_SECONDS)
    job.result["stage"] = "verifying: ledger and Milvus are compared"
    progress.save()
    _see_that_stores_agree(generation, progress)
    for strategy in STRATEGIES:
        gallery.probe(thresholds.search_settings(strategy))
    if generation.state == GenerationState.VERIFYING:
        job.result["stage"] = "verifying: thresholds are fitted"
        progress.save()
        _see_that_any_was_embedded(generation)
        if thresholds.needs_fit(generation, settings.SEARCH_STRATEGY):
            thresholds.fit_thresholds(
                generation, settings.SEARCH_STRATEGY, automatic=True, each=progress.save_if_due
            )
        progress.save()
        generations.make_ready(generation)


def _seal(gallery: Gallery, progress: Progress) -> None:
    """Flush and load, which take the longer the larger the gallery is and tell nothing meanwhile, in a thread: the
    job keeps its lease and hears of a cancel, which leaves the thread to its end."""

    def flush_and_load() -> None:
        gallery.flush()
        gallery.load()

    pool = ThreadPoolExecutor(1)
    try:
        sealed = pool.submit(flush_and_load)
        progress.save()
        while wait([sealed], timeout=SAVE_EVERY_SECONDS).not_done:
            progress.save()
        sealed.result()
    finally:
        pool.shutdown(wait=False)


def _see_that_stores_agree(generation: Generation, progress: Progress) -> None:
    """Compare, and mend what differs in a further turn.

    Raises:
        GoOnLater: something was mended.
        Problem: 409, mending does not help.
    """
    found = agreement.find_drift(generation, mend=True, each=progress.save_if_due)
    progress.job.result["entries"] = found.n_entries["float"]
    if not found.n_drift:
        return
    log.warning("re-embedding mends", generation=generation.pk, drift=found.describe())
    times = progress.job.result["mended"] = progress.job.result.get("mended", 0) + 1
    if times > MENDED_AT_MOST:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"ledger and Milvus still differ after {MENDED_AT_MOST} mendings: {found.describe()};"
            " see Milvus' log, then retry the job",
        )
    raise GoOnLater


def _see_that_any_was_embedded(generation: Generation) -> None:
    counts = count_ledger(generation)
    if counts[EmbeddingState.FAILED] and not counts[EmbeddingState.EMBEDDED]:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"none of {counts[EmbeddingState.FAILED]:,} pictures could be embedded; the job's failures say why",
        )


def _cancelled(job: Job) -> None:
    generation = _generation_of(job)
    if generation.state in UNFINISHED_STATES:
        generations.cancel(generation)


def _failed(job: Job) -> None:
    generation = _generation_of(job)
    if generation.state in UNFINISHED_STATES:
        generations.fail(generation, job.failures[-1]["reason"])


def _retried(job: Job) -> None:
    """What failed gets its chance; what is embedded stays."""
    generation = _generation_of(job)
    if generation.state == GenerationState.FAILED:
        generation = generations.build_on(generation)
    if generation.state not in LIVE_STATES:
        raise _not_to_be_filled(generation)
    plan_missing(generation)
    generation.embeddings.filter(state=EmbeddingState.FAILED).update(
        state=EmbeddingState.PENDING, attempts=0, error=""
    )


def _can_retry(job: Job) -> bool:
    return _generation_of(job).state in (*LIVE_STATES, GenerationState.FAILED)


reembedding = JobKind(run=_run, can_retry=_can_retry, cancelled=_cancelled, failed=_failed, retried=_retried)
