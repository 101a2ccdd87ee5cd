"""Starting, running and steering jobs.

A kind of job is a function that takes the job and a `Progress` and walks over its steps. It may be killed at any
step and run again from `job.cursor`; so each step changes nothing more when it is done twice. Work of hours is done in
turns: after some seconds the runner raises `GoOnLater`, and what waited in the queue meanwhile comes first.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from celery import current_app
from django.conf import settings
from django.core.files import File
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from backend.common.audit import acting
from backend.common.problems import Problem, engine_of, problem_of
from backend.jobs.models import FINISHED, SUBJECT_LENGTH, UNFINISHED, Job, JobState
from recognition.errors import GalleryMismatch, ModelRefused

LEASE = timedelta(seconds=60)
SAVE_EVERY_SECONDS = 1.0
# The rate of a job forgets what was so long ago.
RATE_SECONDS = 30.0
MAX_FAILURES_KEPT = 1_000
# Tasks call services, so a service names its task instead of importing it.
RUN_TASK = "jobs.run"

log = structlog.get_logger(__name__)
Step = TypeVar("Step")


class JobStopped(Exception):
    """Somebody paused or cancelled the job, or another worker took it over."""


class GoOnLater(Exception):
    """A runner has more to do and lets others have the worker; it is called again, in a turn of its own.

    Attributes:
        seconds: after which the next turn may begin.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Progress:
    """What a running job tells: steps done, failures. Saved each second, with the lease; heeds pause and cancel."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._saved_at = time.monotonic()
        self._counted = job.cursor

    @property
    def is_due(self) -> bool:
        """Whether a second has gone since the last `save`."""
        return time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS

    def save_if_due(self) -> None:
        """Within a long step, to keep the lease and hear of a cancel.

        Raises:
            JobStopped: as `save`.
        """
        if self.is_due:
            self.save()

    def over(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Walk over the steps that are left, counting each when the caller comes back for the next."""
        self.job.total = len(steps)
        self.save()
        for step in steps[self.job.cursor :]:
            yield step
            self.job.cursor += 1
            if self.is_due:
                self.save()
        self.save()

    def set(self, *, done: int, total: int, failed: int, failures: list[dict[str, Any]]) -> None:
        """Tell counts that are kept elsewhere, as they stand, and save them.

        Args:
            failures: the first of them, each with its reason and where.
        Raises:
            JobStopped: as `save`.
        """
        self.job.cursor, self.job.total, self.job.failed = done, total, failed
        self.job.failures = failures[:MAX_FAILURES_KEPT]
        self.save()

    def fail(self, reason: str, **where: Any) -> None:
        """Note that one step failed, and where; the job goes on."""
        self.job.failed += 1
        if len(self.job.failures) < MAX_FAILURES_KEPT:
            self.job.failures.append({**where, "reason": reason})

    def save(self) -> None:
        """Write counts and lease.

        Raises:
            JobStopped: the row no longer says `running`, or another worker has its turn.
        """
        self._saved_at = time.monotonic()
        self._see_to_rate()
        running = _mine(self.job).update(
            total=self.job.total,
            cursor=self.job.cursor,
            rate=self.job.rate,
            counted_at=self.job.counted_at,
            failed=self.job.failed,
            failures=self.job.failures,
            result=self.job.result,
            lease_until=timezone.now() + LEASE,
        )
        if not running:
            raise JobStopped

    def _see_to_rate(self) -> None:
        """A mean that forgets: by the clock, so that what a job waits for between its turns counts too."""
        now, job = timezone.now(), self.job
        if job.counted_at is not None:
            seconds = (now - job.counted_at).total_seconds()
            if seconds < SAVE_EVERY_SECONDS / 2:
                return
            lately = max(job.cursor - self._counted, 0) / seconds
            weight = 1.0 if job.rate is None else 1.0 - math.exp(-seconds / RATE_SECONDS)
            job.rate = (job.rate or 0.0) + weight * (lately - (job.rate or 0.0))
        job.counted_at, self._counted = now, job.cursor


def _mine(job: Job) -> Any:
    """The job's row, as long as it is this worker's: running, and in the turn that this worker has claimed."""
    return Job.objects.filter(pk=job.pk, state=JobState.RUNNING, turn=job.turn)


Runner = Callable[[Job, Progress], None]


def _nothing_else(job: Job) -> None:
    """Where a kind of job has nothing to see to."""


@dataclass(frozen=True)
class JobKind:
    """What one kind of job does; the last three run in the transaction that changes the job's state.

    Attributes:
        run: walks over its steps.
        can_retry: whether a finished job could be run again.
        cancelled: sees to what the job worked on.
        failed: likewise, after a mistake; the reason is the last of the job's failures.
        retried: likewise; may raise a Problem, and the job stays as it was.
    """

    run: Runner
    can_retry: Callable[[Job], bool] = lambda job: True
    cancelled: Callable[[Job], None] = _nothing_else
    failed: Callable[[Job], None] = _nothing_else
    retried: Callable[[Job], None] = _nothing_else


_KINDS: dict[str, JobKind] = {}


def register_job(name: str, kind: JobKind) -> None:
    """Say what a kind of job does; called once by the app that owns the kind."""
    _KINDS[name] = kind


def can_retry(job: Job) -> bool:
    """Whether there is anything to try again: not where all went well, nor where what it needs was not kept."""
    all_went_well = job.state == JobState.DONE and not job.failed
    return job.state in FINISHED and not all_went_well and _KINDS[job.kind].can_retry(job)


def start_job(
    *,
    kind: str,
    subject: str = "",
    parameters: dict[str, Any] | None = None,
    file: File | None = None,
    lock: str = "",
    asked_by: str,
    device_id: int | None = None,
) -> Job:
    """Write the job's row and, once it is committed, call a worker.

    Args:
        lock: of all unfinished jobs one alone may have it.
    Raises:
        Problem: 409, another unfinished job has the lock.
    """
    job = Job(
        kind=kind,
        subject=subject[:SUBJECT_LENGTH],
        parameters=parameters or {},
        lock=lock,
        asked_by=asked_by,
        device_id=device_id,
    )
    if file is not None:
        job.subject = (file.name or "")[-SUBJECT_LENGTH:]
        job.file.save(f"{job.id}.zip", file, save=False)
    try:
        with _one_with_its_lock(job):
            job.save()
    except Exception:
        if job.file:
            job.file.delete(save=False)  # the row is the truth: without it the file must not stay
        raise
    _call_worker(job)
    return job


@contextmanager
def _one_with_its_lock(job: Job) -> Iterator[None]:
    """A block that makes the job unfinished.

    Raises:
        Problem: 409, another unfinished job has its lock.
    """
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        other = Job.objects.filter(lock=job.lock, state__in=UNFINISHED).exclude(pk=job.pk).first()
        if not job.lock or other is None:
            raise
        raise Problem(
            HTTPStatus.CONFLICT,
            "job-under-way",
            f"job {other.pk} ({other}) is {other.state} and does this already; wait for it, or cancel it",
        ) from error


def _call_worker(job: Job, *, after_seconds: float = 0.0) -> None:
    def send() -> None:
        try:
            current_app.send_task(RUN_TASK, (str(job.pk), job.turn), countdown=after_seconds or None)
        except Exception as error:
            if engine_of(error) is None:
                raise
            log.warning("job not announced; the sweep will find it", job=str(job.pk))

    transaction.on_commit(send)


def run_job(job_id: str, turn: int | None = None) -> None:
    """Run a job to its end, until its turn is over, or until it is paused or cancelled. Of two workers one claims it.

    Args:
        turn: that the message was sent for; None: whichever it is.
    """
    now = timezone.now()
    free = Q(state=JobState.QUEUED) | Q(state=JobState.RUNNING, lease_until__lte=now)
    claimable = Job.objects.filter(free, pk=job_id)
    if turn is not None:
        claimable = claimable.filter(turn=turn)
    with transaction.atomic():
        job = claimable.select_for_update(skip_locked=True, of=("self",)).first()
        if job is None:
            return
        job.state, job.lease_until, job.turn = JobState.RUNNING, now + LEASE, job.turn + 1
        job.started_at = job.started_at or now
        job.save(update_fields=["state", "lease_until", "turn", "started_at"])
    try:
        progress = Progress(job)
        with acting(f"{job.kind} asked by {job.asked_by}, job {job.pk}"):
            _KINDS[job.kind].run(job, progress)
        progress.save()
    except JobStopped:
        return
    except GoOnLater as later:
        # Free at once, also by the clock of a host that is behind: whoever has the next turn's message may claim it.
        if _mine(job).update(lease_until=timezone.now() - LEASE, result=job.result):
            _call_worker(job, after_seconds=later.seconds)
        return
    except Exception as error:
        if engine_of(error) is not None:
            log.warning("job waits for an engine", job=job_id, reason=str(error))
            raise  # the lease runs out and the sweep takes the job up again
        log.exception("job failed", job=job_id)
        # An operator reads this: what a caller is only told to ask the operator for stands here in full.
        told = isinstance(error, GalleryMismatch | ModelRefused)
        problem = None if told else problem_of(error)
        reason = f"{type(error).__name__}: {error}" if problem is None else problem.detail
        job.failures.append({"reason": reason})
        _finish(job, JobState.FAILED)
        return
    _finish(job, JobState.DONE)


def _finish(job: Job, state: JobState) -> None:
    with transaction.atomic():
        finished = _mine(job).update(
            state=state,
            finished_at=timezone.now(),
            lease_until=None,
            failures=job.failures,
            result=job.result,
        )
        if finished and state == JobState.FAILED:
            _KINDS[job.kind].failed(job)


def _steer(job: Job, *, to: JobState, from_states: Iterable[JobState], **changes: Any) -> Job:
    """Change the state if it is one of `from_states`.

    Raises:
        Problem: 409, the job is in another state.
    """
    if not Job.objects.filter(pk=job.pk, state__in=list(from_states)).update(state=to, **changes):
        job.refresh_from_db()
        raise Problem(
            HTTPStatus.CONFLICT,
            "job-state",
            f"the job is {job.state}; this is possible only when it is {' or '.join(from_states)}",
        )
    job.refresh_from_db()
    return job


def pause_job(job: Job) -> Job:
    return _steer(job, to=JobState.PAUSED, from_states=[JobState.QUEUED, JobState.RUNNING])


def resume_job(job: Job) -> Job:
    job = _steer(job, to=JobState.QUEUED, from_states=[JobState.PAUSED], counted_at=None)
    _call_worker(job)
    return job


def cancel_job(job: Job) -> Job:
    with transaction.atomic():
        job = _steer(job, to=JobState.CANCELLED, from_states=UNFINISHED, finished_at=timezone.now())
        _KINDS[job.kind].cancelled(job)
    return job


def retry_job(job: Job) -> Job:
    """Run a finished job again from its start: what went well changes nothing, what failed gets its chance.

    Raises:
        Problem: 409, it is not finished, another job does this already, or what it worked on cannot be taken up.
    """
    with _one_with_its_lock(job):
        job = _steer(
            job,
            to=JobState.QUEUED,
            from_states=FINISHED,
            cursor=0,
            failed=0,
            failures=[],
            result={},
            rate=None,
            counted_at=None,
            finished_at=None,
        )
        _KINDS[job.kind].retried(job)
    _call_worker(job)
    return job


def delete_old_jobs() -> int:
    """Delete finished jobs, and the files that were sent for them, that were kept for HISTORY_DAYS.

    Returns:
        How many were deleted.
    """
    if settings.HISTORY_DAYS is None:
        return 0
    since = timezone.now() - timedelta(days=settings.HISTORY_DAYS)
    old = list(Job.objects.filter(state__in=FINISHED, finished_at__lte=since))
    for job in old:
        if job.file:
            job.file.delete(save=False)  # before the row: a failure leaves a row to try again from
        # Not one that somebody has begun to retry meanwhile.
        Job.objects.filter(pk=job.pk, state__in=FINISHED).delete()
    return len(old)


def call_workers_for_stalled_jobs() -> int:
    """Call a worker for each job whose message was lost or whose worker died."""
    stalled = Job.objects.filter(
        state=JobState.QUEUED, updated_at__lt=timezone.now() - LEASE
    ) | Job.objects.filter(state=JobState.RUNNING, lease_until__lte=timezone.now())
    for job in stalled:
        _call_worker(job)
    return len(stalled)
