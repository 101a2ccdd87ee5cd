"""Jobs: counted, steered, resumed where they stopped, run by one worker at a time."""

import errno
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.db import OperationalError
from django.utils import timezone

from backend.common.problems import Problem
from backend.jobs import services
from backend.jobs.models import Job, JobState
from backend.jobs.services import (
    GoOnLater,
    JobKind,
    cancel_job,
    delete_old_jobs,
    pause_job,
    register_job,
    resume_job,
    retry_job,
    run_job,
    start_job,
)
from recognition.errors import ModelRefused

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


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh"),
        # A caller is told to ask the operator; the operator reads what to mend.
        (
            ModelRefused("found no model.onnx in /models/toy, wanted one"),
            "ModelRefused: found no model.onnx in /models/toy, wanted one",
        ),
    ],
)
def test_what_stops_a_job_fails_it_and_says_why(walked, error, reason):
    _, at = walked

    def stumble(job, progress):
        raise error

    at["b"] = stumble
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert job.failures[-1]["reason"] == reason


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


# --- turns ------------------------------------------------------------------------------------------------
@pytest.fixture
def in_turns(monkeypatch):
    """A kind of job that needs three turns, and what its messages were."""
    sent = []
    monkeypatch.setattr(
        services.current_app, "send_task", lambda name, args, countdown=None: sent.append((args, countdown))
    )
    monkeypatch.setattr(services.transaction, "on_commit", lambda send: send())

    def run(job, progress):
        progress.set(done=job.cursor + 1, total=3, failed=0, failures=[])
        if job.cursor < 3:
            raise GoOnLater(2.0)

    register_job("turns", JobKind(run))
    return sent


def test_a_job_in_turns_sends_itself_again_and_of_several_messages_one_is_heeded(in_turns):
    job = start_job(kind="turns", asked_by="a test")
    assert in_turns == [((str(job.pk), 0), None)]
    run_job(str(job.pk), 0)
    assert in_turns[1:] == [((str(job.pk), 1), 2.0)]
    job.refresh_from_db()
    assert (job.state, job.cursor, job.turn) == (JobState.RUNNING, 1, 1)
    # A worker whose clock is behind may claim it too.
    assert job.lease_until < timezone.now() - timedelta(seconds=30)
    run_job(str(job.pk), 0)  # the same message once more
    assert len(in_turns) == 2
    services.call_workers_for_stalled_jobs()  # the sweep thinks that it was lost
    assert in_turns.pop() == ((str(job.pk), 1), None)
    run_job(str(job.pk), 1)
    Job.objects.update(lease_until=timezone.now())
    run_job(str(job.pk), 1)
    run_job(str(job.pk), 2)
    job.refresh_from_db()
    assert (job.state, job.cursor, job.turn, len(in_turns)) == (JobState.DONE, 3, 3, 3)


def test_a_worker_whose_turn_another_has_stops_at_its_next_save(in_turns):
    def run(job, progress):
        Job.objects.filter(pk=job.pk).update(
            turn=5
        )  # paused, resumed, and claimed by another, all in a second
        progress.save()
        raise AssertionError("went on")

    register_job("turns", JobKind(run))
    job = start_job(kind="turns", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.state, job.turn) == (JobState.RUNNING, 5)


def test_rate_and_time_left_follow_the_clock(in_turns):
    job = Job(kind="turns", state=JobState.RUNNING, total=100, cursor=0)
    progress = services.Progress(job)
    job.counted_at = timezone.now() - timedelta(seconds=2)
    job.cursor = 20
    progress._see_to_rate()
    assert job.rate == pytest.approx(10, rel=0.05)
    assert job.seconds_left == pytest.approx(8, rel=0.05)
    job.cursor = 100  # what was made is checked now
    assert job.seconds_left is None
    job.cursor = 20
    job.counted_at -= timedelta(seconds=300)  # nothing was done for long
    progress._see_to_rate()
    assert job.rate < 0.1
    job.state = JobState.PAUSED
    assert job.seconds_left is None


def test_one_lock_is_one_unfinished_job(in_turns):
    first = start_job(kind="turns", lock="a", asked_by="a test")
    start_job(kind="turns", lock="b", asked_by="a test")
    with pytest.raises(Problem, match="is queued and does this already") as refused:
        start_job(kind="turns", lock="a", asked_by="a test")
    assert refused.value.code == "job-under-way"
    cancel_job(first)
    start_job(kind="turns", lock="a", asked_by="a test")
    with pytest.raises(Problem, match="does this already"):
        retry_job(first)
    first.refresh_from_db()
    assert first.state == JobState.CANCELLED


def test_a_file_of_a_job_that_is_refused_does_not_stay(walked, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path

    def start() -> Job:
        file = ContentFile(b"a zip", name="shop.zip")
        return start_job(kind="walk", file=file, lock="alone", asked_by="a test")

    job = start()
    with pytest.raises(Problem, match="does this already"):
        start()
    assert [path.name for path in tmp_path.rglob("*.zip")] == [f"{job.pk}.zip"]


def test_a_disk_that_is_full_is_the_reason(walked):
    def fill(job, progress):
        raise OSError(errno.ENOSPC, "No space left on device")

    walked[1]["b"] = fill
    job = start_job(kind="walk", asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "there is no room left" in job.failures[-1]["reason"]


def test_old_jobs_go_with_their_files_once_they_are_finished(walked, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path

    def finished(days: int, state: JobState) -> Job:
        job = start_job(kind="walk", file=ContentFile(b"a zip", name="shop.zip"), asked_by="a test")
        Job.objects.filter(pk=job.pk).update(
            state=state, finished_at=timezone.now() - timedelta(days=days) if state != "paused" else None
        )
        return job

    kept = [finished(89, JobState.DONE), finished(400, JobState.PAUSED)]
    for state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED):
        finished(91, state)
    assert delete_old_jobs() == 0  # unless days are set
    settings.HISTORY_DAYS = 90
    assert delete_old_jobs() == 3
    assert set(Job.objects.all()) == set(kept)
    assert {path.name for path in tmp_path.rglob("*.zip")} == {f"{job.pk}.zip" for job in kept}
