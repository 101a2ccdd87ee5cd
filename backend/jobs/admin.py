"""Long work with its live progress, and the buttons that steer it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from backend.common.admin import ReadOnlyAdmin, check_permission, label
from backend.common.problems import Problem
from backend.jobs import services
from backend.jobs.models import FINISHED, UNFINISHED, Job, JobState

STATE_LABELS = {
    JobState.DONE: "success",
    JobState.FAILED: "danger",
    JobState.RUNNING: "info",
    JobState.QUEUED: "info",
    JobState.PAUSED: "warning",
}
# What may be done to a job, and in which states it is offered.
ACTS: dict[str, tuple[Callable[[Job], Job], tuple[JobState, ...]]] = {
    "pause": (services.pause_job, (JobState.QUEUED, JobState.RUNNING)),
    "resume": (services.resume_job, (JobState.PAUSED,)),
    "cancel": (services.cancel_job, UNFINISHED),
    "retry": (services.retry_job, FINISHED),
}


def _list_acts(job: Job) -> list[str]:
    """What is worth doing to it."""
    acts = [act for act, (_, states) in ACTS.items() if job.state in states]
    return [act for act in acts if act != "retry" or services.can_retry(job)]


def _may_steer(request: HttpRequest, job: Job) -> bool:
    """Operators steer every job, others those that they asked for themselves."""
    own = job.device_id is None and job.asked_by == request.user.get_username()
    return own or request.user.has_perm("jobs.change_job")


def _count(job: Job) -> str:
    """How far it is. Until its file is read, nobody knows how much there is to do."""
    if job.total is not None:
        return f"{job.cursor:,} of {job.total:,}"
    if job.state == JobState.RUNNING:
        return "reading the file" if job.file else "counting"
    return "not begun" if job.state in UNFINISHED else "nothing was done"


def _pace(job: Job) -> str:
    """Rate and time left, where they are known."""
    if job.seconds_left is None:
        return "-"
    left = timedelta(seconds=round(job.seconds_left))
    return f"{job.rate:,.1f} a second, {left} left"


def _progress(job: Job) -> dict[str, Any]:
    """What the page's script shows of a job that goes on."""
    return {
        "state": job.state,
        "cursor": job.cursor,
        "total": job.total,
        "failed": job.failed,
        "count": _count(job),
        "pace": _pace(job),
        "stage": job.result.get("stage", ""),
    }


def show_progress(job: Job) -> SafeString:
    """A bar and a count, which jobs/progress.js keeps up to date."""
    return format_html(
        '<span class="ck-progress" data-job="{}" data-state="{}">'
        '<progress max="{}" value="{}" aria-label="Progress"></progress> <span data-count>{}</span></span>',
        reverse("admin:jobs_job_progress", args=[job.pk]),
        job.state,
        job.total or 1,
        job.cursor,
        _count(job),
    )


def _show_failure(failure: dict[str, Any]) -> dict[str, Any]:
    """Where it failed, for people: a row of a file, or a picture of a product."""
    if "picture" not in failure:
        return {"where": f"{failure.get('file', '-')}, row {failure.get('row', '-')}", **failure}
    picture = failure["picture"]
    return {
        "where": f"picture {picture} of {failure.get('product', '-')}",
        "link": reverse("admin:catalogue_referenceimage_change", args=[picture]),
        "thumbnail": reverse("admin:catalogue_referenceimage_thumbnail", args=[picture]),
        **failure,
    }


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    empty_note = "Imports and re-embeddings stand here while they run and after. Imports start on the list of products."
    list_display = ["shown_job", "shown_state", "shown_progress", "shown_failed", "asked_by", "created_at"]
    list_filter = [("state", ChoicesDropdownFilter)]
    list_filter_submit = True

    class Media:
        js = [Script("jobs/progress.js", type="module")]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<uuid:pk>/progress/", view(self.progress_view), name="jobs_job_progress"),
            path("<uuid:pk>/steer/", view(self.steer_view), name="jobs_job_steer"),
            *super().get_urls(),
        ]

    @display(description="Job", ordering="subject")
    def shown_job(self, job: Job) -> str:
        return capfirst(str(job))

    @display(description="Failed", ordering="failed")
    def shown_failed(self, job: Job) -> int:
        return job.failed

    @display(description="State", ordering="state")
    def shown_state(self, job: Job) -> SafeString:
        # Marked for jobs/progress.js: elsewhere a row shows a job's progress beside a state of its own.
        shown = label(job.state, STATE_LABELS.get(JobState(job.state), ""))
        return format_html("<span data-job-state>{}</span>", shown)

    @display(description="Progress")
    def shown_progress(self, job: Job) -> SafeString:
        return show_progress(job)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        check_permission(request, "jobs.view_job")
        job = self.get_object(request, object_id)
        if not isinstance(job, Job):
            return redirect("admin:jobs_job_changelist")
        failures = [_show_failure(failure) for failure in job.failures if failure.keys() != {"reason"}]
        context = {
            **self.admin_site.each_context(request),
            "title": self.shown_job(job),
            "opts": self.opts,
            "original": job,
            "media": self.media,
            "job": job,
            "state": self.shown_state(job),
            "progress": self.shown_progress(job),
            "unfinished": job.state in UNFINISHED,
            "pace": _pace(job),
            "stage": job.result.get("stage", ""),
            "results": [
                (name.replace("_", " ").capitalize(), n) for name, n in job.result.items() if name != "stage"
            ],
            "acts": _list_acts(job) if _may_steer(request, job) else [],
            # What stopped it as a whole is of no row.
            "stopped_by": [failure["reason"] for failure in job.failures if failure.keys() == {"reason"}],
            "failures": failures,
            "more_failures": max(0, job.failed - len(failures)),
        }
        return TemplateResponse(request, "jobs/job.html", context)

    def progress_view(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        check_permission(request, "jobs.view_job")
        return JsonResponse(_progress(get_object_or_404(Job, pk=pk)))

    def steer_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """POST `act`: one of ACTS."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, "jobs.view_job")
        job = get_object_or_404(Job, pk=pk)
        if not _may_steer(request, job):
            raise PermissionDenied("only operators steer jobs that others asked for")
        act, _ = ACTS.get(request.POST.get("act", ""), (None, ()))
        if act is None:
            self.message_user(request, f"What can be done to a job is {', '.join(ACTS)}.", messages.ERROR)
            return redirect("admin:jobs_job_change", pk)
        try:
            act(job)
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
        return redirect("admin:jobs_job_change", pk)
