"""Starting, running and steering jobs.

A kind of job is a function that takes the job and a `Progress` and walks over its steps. It may be killed at any
step and run again from `job.cursor`; so each step changes nothing more when it is done twice.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from celery import current_app
from django.core.files import File
from django.db import transaction
from django.utils import timezone

from backend.common.audit import acting
from backend.common.problems import Problem, engine_of
from backend.jobs.models import FINISHED, SUBJECT_LENGTH, Job, JobState

LEASE = timedelta(seconds=60)
SAVE_EVERY_SECONDS = 1.0
MAX_FAILURES_KEPT = 1_000
# Tasks call services, so a service names its task instead of importing it.
RUN_TASK = "jobs.run"

log = structlog.get_logger(__name__)
Step = TypeVar("Step")


class JobStopped(Exception):
    """Somebody paused or cancelled the job, or another worker took it over."""


class Progress:
    """What a running job tells: steps done, failures. Saved each second, with the lease; heeds pause and cancel."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._saved_at = time.monotonic()

    def over(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Walk over the steps that are left, counting each when the caller comes back for the next."""
        self.job.total = len(steps)
        self.save()
        for step in steps[self.job.cursor :]:
            yield step
            self.job.cursor += 1
            if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
                self.save()
        self.save()

    def fail(self, reason: str, **where: Any) -> None:
        """Note that one step failed, and where; the job goes on."""
        self.job.failed += 1
        if len(self.job.failures) < MAX_FAILURES_KEPT:
            self.job.failures.append({**where, "reason": reason})

    def save(self) -> None:
        """Write counts and lease.

        Raises:
            JobStopped: the row no longer says `running`.
        """
        self._saved_at = time.monotonic()
        running = Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING).update(
            total=self.job.total,
            cursor=self.job.cursor,
            failed=self.job.failed,
            failures=self.job.failures,
            result=self.job.result,
            lease_until=timezone.now() + LEASE,
        )
        if not running:
            raise JobStopped


Runner = Callable[[Job, Progress], None]
_RUNNERS: dict[str, Runner] = {}


def register_job(kind: str, runner: Runner) -> None:
    """Say what runs a kind of job; called once by the app that owns the kind."""
    _RUNNERS[kind] = runner


def start_job(
    *,
    kind: str,
    parameters: dict[str, Any] | None = None,
    file: File | None = None,
    asked_by: str,
    device_id: int | None = None,
) -> Job:
    """Write the job's row and, once it is committed, call a worker."""
    job = Job(kind=kind, parameters=parameters or {}, asked_by=asked_by, device_id=device_id)
    if file is not None:
        job.subject = (file.name or "")[-SUBJECT_LENGTH:]
        job.file.save(f"{job.id}.zip", file, save=False)
    job.save()
    _call_worker(job)
    return job


def _call_worker(job: Job) -> None:
    def send() -> None:
        try:
            current_app.send_task(RUN_TASK, (str(job.pk),))
        except Exception as error:
            if engine_of(error) is None:
                raise
            log.warning("job not announced; the sweep will find it", job=str(job.pk))

    transaction.on_commit(send)


def run_job(job_id: str) -> None:
    """Run a job to its end, or until it is paused or cancelled. Of two workers one claims it."""
    now = timezone.now()
    claimable = Job.objects.filter(pk=job_id, state=JobState.QUEUED) | Job.objects.filter(
        pk=job_id, state=JobState.RUNNING, lease_until__lt=now
    )
    if not claimable.update(state=JobState.RUNNING, lease_until=now + LEASE):
        return
    Job.objects.filter(pk=job_id, started_at=None).update(started_at=now)
    job = Job.objects.get(pk=job_id)
    progress = Progress(job)
    try:
        with acting(f"{job.kind} asked by {job.asked_by}, job {job.pk}"):
            _RUNNERS[job.kind](job, progress)
        progress.save()
    except JobStopped:
        return
    except Exception as error:
        if engine_of(error) is not None:
            log.warning("job waits for an engine", job=job_id, reason=str(error))
            raise  # the lease runs out and the sweep takes the job up again
        log.exception("job failed", job=job_id)
        reason = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
        job.failures.append({"reason": reason})
        _finish(job, JobState.FAILED)
        return
    _finish(job, JobState.DONE)


def _finish(job: Job, state: JobState) -> None:
    Job.objects.filter(pk=job.pk, state=JobState.RUNNING).update(
        state=state, finished_at=timezone.now(), lease_until=None, failures=job.failures, result=job.result
    )


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
    job = _steer(job, to=JobState.QUEUED, from_states=[JobState.PAUSED])
    _call_worker(job)
    return job


def cancel_job(job: Job) -> Job:
    return _steer(
        job,
        to=JobState.CANCELLED,
        from_states=[JobState.QUEUED, JobState.RUNNING, JobState.PAUSED],
        finished_at=timezone.now(),
    )


def retry_job(job: Job) -> Job:
    """Run a finished job again from its start: what went well changes nothing, what failed gets its chance."""
    job = _steer(
        job,
        to=JobState.QUEUED,
        from_states=FINISHED,
        cursor=0,
        failed=0,
        failures=[],
        result={},
        finished_at=None,
    )
    _call_worker(job)
    return job


def call_workers_for_stalled_jobs() -> int:
    """Call a worker for each job whose message was lost or whose worker died."""
    stalled = Job.objects.filter(
        state=JobState.QUEUED, updated_at__lt=timezone.now() - LEASE
    ) | Job.objects.filter(state=JobState.RUNNING, lease_until__lt=timezone.now())
    for job in stalled:
        _call_worker(job)
    return len(stalled)
