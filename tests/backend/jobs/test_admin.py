"""The pages of jobs: progress, failures by row, and who may steer."""

import pytest
from django.test import Client
from django.urls import reverse

from backend.jobs.models import Job, JobState
from tests.backend.factories import make_device, make_staff

pytestmark = pytest.mark.django_db


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


def make_job(**changes) -> Job:
    values = {
        "kind": "catalogue-import",
        "asked_by": "manager",
        "state": JobState.RUNNING,
        "total": 8,
        "cursor": 3,
    }
    return Job.objects.create(**values | changes)


def steer(client: Client, job: Job, act: str) -> int:
    return client.post(reverse("admin:jobs_job_steer", args=[job.pk]), {"act": act}).status_code


def test_a_job_tells_its_progress_and_each_failure(manager):
    failures = [{"file": "products.csv", "row": 4, "reason": "sku: 'NOPE' is not in the catalogue"}]
    job = make_job(failed=3, failures=failures, result={"products": 2}, rate=2.0)
    page = manager.get(reverse("admin:jobs_job_change", args=[job.pk])).content.decode()
    for text in (
        "3 of 8",
        "products.csv, row 4",
        "NOPE",
        "and 2 more",
        'value="pause"',
        'value="cancel"',
    ):
        assert text in page, text
    assert manager.get(reverse("admin:jobs_job_progress", args=[job.pk])).json() == {
        "state": "running", "cursor": 3, "total": 8, "failed": 3,
        "count": "3 of 8", "pace": "2.0 a second, 0:00:02 left", "stage": "",
    }  # fmt: skip
    assert manager.get(reverse("admin:jobs_job_changelist")).status_code == 200


def test_a_job_is_paused_resumed_cancelled_and_retried(manager):
    job = make_job()
    for act, state in (
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
        ("retry", "queued"),
    ):
        assert steer(manager, job, act) == 302
        job.refresh_from_db()
        assert job.state == state, act
    assert job.cursor == 0


def test_a_job_is_named_for_its_file_and_a_failed_one_says_at_its_head_why(manager):
    reason = "products.csv lacks the column sku; its header is name"
    job = make_job(
        state=JobState.FAILED, total=None, cursor=0, subject="spring.zip", failures=[{"reason": reason}]
    )
    listed = manager.get(reverse("admin:jobs_job_changelist")).content.decode()
    assert "Catalogue import: spring.zip" in listed
    page = manager.get(reverse("admin:jobs_job_change", args=[job.pk])).content.decode()
    assert "Catalogue import: spring.zip" in page
    assert reason in page
    assert "nothing was done" in page
    assert "What failed" not in page
    assert str(job.pk) not in page.split("<h2>")[1].split("</h2>")[0]


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({"state": JobState.DONE}, False),
        ({"state": JobState.DONE, "failed": 1}, True),
        ({"state": JobState.FAILED}, True),
        ({"state": JobState.CANCELLED}, True),
        ({"state": JobState.FAILED, "file": ""}, False),
        ({"state": JobState.RUNNING, "failed": 1}, False),
    ],
)
def test_retry_is_offered_where_it_can_change_something(manager, changes, offered):
    job = make_job(**{"file": "jobs/kept.zip"} | changes)
    page = manager.get(reverse("admin:jobs_job_change", args=[job.pk])).content.decode()
    assert ('value="retry"' in page) == offered


def test_what_cannot_be_done_is_said(manager):
    job = make_job(state=JobState.DONE)
    url = reverse("admin:jobs_job_steer", args=[job.pk])
    assert "the job is done" in manager.post(url, {"act": "pause"}, follow=True).content.decode()
    assert (
        "What can be done to a job is" in manager.post(url, {"act": "explode"}, follow=True).content.decode()
    )
    assert manager.get(url).status_code == 405


def test_a_manager_steers_his_own_jobs_an_operator_all(manager):
    device, _ = make_device("manager")
    others = [make_job(asked_by="somebody"), make_job(device=device)]
    operator = make_staff("operator", "operator")
    for job in others:
        page = reverse("admin:jobs_job_change", args=[job.pk])
        assert 'name="act"' not in manager.get(page).content.decode()
        assert steer(manager, job, "cancel") == 403
        assert steer(operator, job, "cancel") == 302
        job.refresh_from_db()
        assert job.state == JobState.CANCELLED
    assert steer(make_staff("nobody"), make_job(), "cancel") == 403
