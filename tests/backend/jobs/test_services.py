"""Jobs: counted, steered, resumed where they stopped, run by one worker at a time."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from backend.common.problems import Problem
from backend.jobs import services
from backend.jobs.models import Job, JobState
from backend.jobs.services import (
    JobKind,
    cancel_job,
    pause_job,
    register_job,
    resume_job,
    retry_job,
    run_job,
    start_job,
)

pytestmark = pytest.mark.django_db
STEPS = list("abcdef")


@pytest.fixture
def walked(monkeypatch):
    """A kind of job that walks over STEPS; each step may run what the test put under its letter."""
    monkeypatch.setattr(services, "SAVE_EVERY_SECONDS", 0.0)
    seen, at = [], {}

    def run(job, progress):
        for step in progress.over(STEPS):
            seen.append(step)
            at.get(step, lambda *_: None)(job, progress)

    register_job("walk", JobKind(run))
    return seen, at


def test_a_job_runs_to_its_end_and_counts(walked):
    seen, at = walked
    at["c"] = lambda job, progress: progress.fail("no good", row=3)
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert seen == STEPS
    assert (job.state, job.total, job.cursor, job.failed) == (JobState.DONE, 6, 6, 1)
    assert job.failures == [{"row": 3, "reason": "no good"}]
    assert job.started_at <= job.finished_at


@pytest.mark.parametrize(("steer", "state"), [(pause_job, JobState.PAUSED), (cancel_job, JobState.CANCELLED)])
def test_a_running_job_heeds_pause_and_cancel(walked, steer, state):
    seen, at = walked
    at["b"] = lambda job, progress: steer(job)
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == state
    assert seen == ["a", "b"]


def test_a_resumed_job_does_only_what_is_left(walked):
    seen, at = walked
    at["c"] = lambda job, progress: pause_job(job)
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    at.clear()
    seen.clear()
    resume_job(Job.objects.get(pk=job.pk))
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.DONE
    # 'c' was under way when the pause came and is not known to be over.
    assert seen in (["c", "d", "e", "f"], ["d", "e", "f"])


def test_a_second_worker_cannot_run_a_job_that_is_running(walked):
    seen, at = walked
    at["a"] = lambda job, progress: run_job(str(job.pk))
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    assert seen == STEPS


def test_a_job_whose_worker_died_is_taken_up_again(walked):
    seen, _ = walked
    job = start_job(kind="walk", asked_by="a test")
    Job.objects.filter(pk=job.pk).update(
        state=JobState.RUNNING, cursor=4, lease_until=timezone.now() - timedelta(seconds=1)
    )
    assert services.call_workers_for_stalled_jobs() == 1
    run_job(str(job.pk))
    assert seen == ["e", "f"]


def test_an_engine_that_is_away_leaves_the_job_to_the_sweep(walked):
    _, at = walked

    def lose_database(job, progress):
        raise OperationalError("gone")

    at["b"] = lose_database
    job = start_job(kind="walk", asked_by="a test")
    with pytest.raises(OperationalError):
        run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.RUNNING


def test_a_mistake_of_ours_fails_the_job_and_says_why(walked):
    _, at = walked

    def stumble(job, progress):
        raise ZeroDivisionError("oh")

    at["b"] = stumble
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert job.failures[-1]["reason"] == "ZeroDivisionError: oh"


def test_retry_starts_from_the_beginning(walked):
    seen, _ = walked
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    seen.clear()
    job.refresh_from_db()
    retry_job(job)
    run_job(str(job.pk))
    assert seen == STEPS


def test_steering_from_a_wrong_state_is_refused_by_name(walked):
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    with pytest.raises(
        Problem, match="the job is done; this is possible only when it is queued or running"
    ) as refused:
        pause_job(job)
    assert refused.value.status == 409
