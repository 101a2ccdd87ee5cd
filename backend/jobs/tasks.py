"""Celery tasks of the jobs: ids in, services called."""

from celery import shared_task

from backend.jobs.services import RUN_TASK, call_workers_for_stalled_jobs, delete_old_jobs, run_job


@shared_task(name=RUN_TASK, acks_late=True)
def run_job_task(job_id: str, turn: int | None = None) -> None:
    run_job(job_id, turn)


@shared_task(name="jobs.sweep")
def sweep_jobs_task() -> None:
    call_workers_for_stalled_jobs()


@shared_task(name="jobs.delete_old", expires=3600)
def delete_old_jobs_task() -> None:
    delete_old_jobs()
