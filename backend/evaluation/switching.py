"""Switching to another generation through the gate: it is compared with the active one first, and a drop is refused."""

from http import HTTPStatus
from typing import Any

from backend.checkout.worker import load_ahead
from backend.common.problems import Problem
from backend.evaluation.comparison import DROP_LIMIT, compare_and_keep, get_comparison, refuse_drop
from backend.gallery import generations
from backend.gallery.models import SWITCHABLE_STATES, Generation
from backend.gallery.selectors import get_active_generation, get_generation
from backend.jobs.models import Job
from backend.jobs.services import JobKind, Progress, start_job

COMPARE_KIND = "compare-generations"


def switch_generation(
    candidate: Generation, *, limit: float = DROP_LIMIT, force: bool = False, reason: str = ""
) -> Generation:
    """Switch to a generation that was compared with the active one and does not fall by more than `limit`.

    Args:
        limit: points (of 100) by which recall@1 or mAP may fall.
        force: in spite of a drop or of pictures that it lacks, or without a comparison.
        reason: for the audit log; wanted with `force`.
    Raises:
        Problem: 400, forced without a reason; 409, it falls by more, was not compared, lacks pictures, or cannot be
            switched to.
    """
    _want_reason(force, reason)
    active = get_active_generation()
    generations.refuse_switch(candidate, active)  # before the workers load it for nothing
    try:
        if active is not None:
            generations.refuse_lacking(candidate, active)
        comparison = get_comparison(candidate, active)
        if comparison is None:
            raise Problem(
                HTTPStatus.CONFLICT,
                "not-compared",
                f"{candidate} was not compared with the generation that is active now; evaluate it first, or force"
                " the switch with a reason",
            )
        refuse_drop(comparison, limit)
    except Problem as problem:
        if not force:
            raise
        load_ahead(candidate)
        return generations.switch(
            candidate, active, reason=f"forced, because {reason.strip()} ({problem.detail})"
        )
    load_ahead(candidate)
    return generations.switch(candidate, active)


def roll_back(*, force: bool = False, reason: str = "") -> Generation:
    """Return to the generation that answered before; nothing is compared, for something is wrong with the one that
    answers.

    Args:
        force: although it has pictures still to embed.
        reason: for the audit log; wanted with `force`.
    Raises:
        Problem: 400, forced without a reason; 409, none stands by, or it has pictures still to embed.
    """
    _want_reason(force, reason)
    previous = generations.get_previous_generation()
    if previous is not None:
        load_ahead(previous)
    return generations.roll_back(reason=f"forced, because {reason.strip()}" if force else "")


def _want_reason(force: bool, reason: str) -> None:
    if force and not reason.strip():
        raise Problem(
            HTTPStatus.BAD_REQUEST, "invalid", "what is forced needs a reason, which the audit log keeps"
        )


def start_comparison(candidate: Generation, *, asked_by: str, device_id: int | None = None) -> Job:
    """Have the bulk worker compare a generation with the active one on the live catalogue; the generation keeps it.

    Raises:
        Problem: 409, there is nothing to compare it with, or a job is at it.
    """
    _get_active(candidate)
    return start_job(
        kind=COMPARE_KIND,
        subject=str(candidate),
        parameters={"generation": candidate.pk},
        lock=f"comparison {candidate.pk}",
        asked_by=asked_by,
        device_id=device_id,
    )


def _get_active(candidate: Generation) -> Generation:
    """What it can be compared with.

    Raises:
        Problem: 409.
    """
    active = get_active_generation()
    if active is None or active.pk == candidate.pk or candidate.state not in SWITCHABLE_STATES:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-state",
            f"{candidate} is {candidate.state}; one that is ready or stands by is compared with the active one",
        )
    return active


def compare_with_active(candidate: Generation, over: Any, **how: Any) -> Any:
    """As `compare_and_keep`, with what is active now.

    Raises:
        Problem: 409, it is neither ready nor standing by.
    """
    return compare_and_keep(candidate, _get_active(candidate), over, **how)


def _run(job: Job, progress: Progress) -> None:
    candidate = get_generation(job.parameters["generation"])

    def over(stage: str, steps: Any) -> Any:
        job.result["stage"] = stage
        job.cursor, job.total = 0, len(steps)
        progress.save()
        for step in steps:
            yield step
            job.cursor += 1
            if progress.is_due:
                progress.save()

    comparison = compare_with_active(candidate, over)
    job.result = {
        name: f"{getattr(comparison.active, name):.2%} -> {getattr(comparison.candidate, name):.2%}"
        for name in ("recall_at_1", "recall_at_5", "map_at_100")
    } | {"queries": comparison.n_queries}


comparing = JobKind(run=_run)
