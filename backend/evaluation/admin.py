"""Evaluations that were run, to be read: the report's lines as a table, and its JSON file to take along. And on a
generation's page its comparison with the active one, and the buttons that switch and return."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from unfold.decorators import display

from backend.checkout.shadow_admin import ShadowedGenerationAdmin
from backend.common.admin import ReadOnlyAdmin, check_permission
from backend.common.problems import Problem
from backend.evaluation.comparison import Comparison, get_comparison, refuse_drop
from backend.evaluation.models import EvaluationRun
from backend.evaluation.page import make_comparison, make_page, render_page
from backend.evaluation.switching import roll_back, start_comparison, switch_generation
from backend.evaluation.table import make_figure
from backend.gallery.admin import may_operate
from backend.gallery.generations import (
    count_behind,
    get_previous_generation,
    list_lacking,
    refuse_lacking,
)
from backend.gallery.models import SWITCHABLE_STATES, Generation
from backend.gallery.selectors import get_active_generation, get_generation

# Of a side of a comparison, and the unit that each is shown in.
SIDE_FIGURES = (
    ("recall_at_1", 0.01), ("recall_at_5", 0.01), ("map_at_100", 0.01), ("p50_ms", 1), ("p95_ms", 1),
)  # fmt: skip


@admin.register(EvaluationRun)
class EvaluationRunAdmin(ReadOnlyAdmin):
    empty_note = "Evaluations are run by manage.py evaluate_recall."
    list_display = ["subject", "shown_recall", "generation", "asked_by", "created_at"]
    list_select_related = ["generation__embedder"]
    actions = ["compare"]

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "<int:pk>/report/",
                self.admin_site.admin_view(self.report_view),
                name="evaluation_evaluationrun_report",
            ),
            path(
                "<int:pk>/html/",
                self.admin_site.admin_view(self.html_view),
                name="evaluation_evaluationrun_html",
            ),
            path(
                "compare/<int:first>/<int:second>/",
                self.admin_site.admin_view(self.compare_view),
                name="evaluation_evaluationrun_compare",
            ),
            *super().get_urls(),
        ]

    @admin.action(description="Compare two side by side", permissions=["view"])
    def compare(self, request: HttpRequest, runs: QuerySet[EvaluationRun]) -> HttpResponse | None:
        chosen = sorted(runs.values_list("pk", flat=True))
        if len(chosen) != 2:
            self.message_user(request, f"Choose two evaluations, not {len(chosen)}.", messages.ERROR)
            return None
        return redirect("admin:evaluation_evaluationrun_compare", *chosen)

    def compare_view(self, request: HttpRequest, first: int, second: int) -> HttpResponse:
        """Two evaluations line by line, the older first."""
        check_permission(request, "evaluation.view_evaluationrun")
        runs = [get_object_or_404(EvaluationRun, pk=pk) for pk in (first, second)]
        asked = [
            [one.report.get(key) for key in ("subject", "query_file", "n_query", "n_gallery", "unknown")]
            for one in runs
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": "Two evaluations",
            "opts": self.opts,
            "runs": runs,
            "compared": make_comparison(*runs),
            "differ": asked[0] != asked[1],
        }
        return TemplateResponse(request, "evaluation/compare.html", context)

    @display(description="Recall@1 of exact search")
    def shown_recall(self, run: EvaluationRun) -> str:
        recall = make_figure(run.report["lines"][0]["scores"]["recall_at_1"], per=0.01)
        return f"{recall} % of {run.report['n_query']:,} queries"

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        check_permission(request, "evaluation.view_evaluationrun")
        run = self.get_object(request, object_id)
        if not isinstance(run, EvaluationRun):
            raise Http404(f"there is no evaluation {object_id}")
        context = {
            **self.admin_site.each_context(request),
            "title": "Evaluation",
            "opts": self.opts,
            "original": run,
            "links": True,
            **make_page(run),
        }
        return TemplateResponse(request, "evaluation/run.html", context)

    def report_view(self, request: HttpRequest, pk: int) -> JsonResponse:
        """The report as `evaluate_recall --json` writes it."""
        check_permission(request, "evaluation.view_evaluationrun")
        run = get_object_or_404(EvaluationRun, pk=pk)
        response = JsonResponse(run.report, json_dumps_params={"indent": 2})
        response["Content-Disposition"] = f'attachment; filename="evaluation-{run.pk}.json"'
        return response

    def html_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The page as one file, as `evaluate_recall --html` writes it."""
        check_permission(request, "evaluation.view_evaluationrun")
        run = get_object_or_404(EvaluationRun.objects.select_related("generation__embedder"), pk=pk)
        response = HttpResponse(render_page(run))
        response["Content-Disposition"] = f'attachment; filename="evaluation-{run.pk}.html"'
        return response


admin.site.unregister(Generation)


class SwitchForm(forms.Form):
    """In spite of what speaks against it, with the reason."""

    force = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=500)


@admin.register(Generation)
class SwitchableGenerationAdmin(ShadowedGenerationAdmin):
    """Generations, compared with the active one before anybody is answered by them."""

    change_form_outer_before_template = "evaluation/generation_life.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/compare/", view(self.compare_view), name="gallery_generation_compare"),
            path("<int:pk>/switch/", view(self.switch_view), name="gallery_generation_switch"),
            path("rollback/", view(self.roll_back_view), name="gallery_generation_rollback"),
            *super().get_urls(),
        ]

    def describe_life(self, request: HttpRequest, generation: Generation) -> dict[str, Any]:
        active = get_active_generation()
        comparison = get_comparison(generation, active)
        switchable = generation.state in SWITCHABLE_STATES
        previous = get_previous_generation() if generation == active else None
        operator = may_operate(request)
        return super().describe_life(request, generation) | {
            "active": active,
            "may_switch": operator and switchable and active is not None,
            "previous": previous if operator else None,
            "n_lacking": 0 if previous is None else list_lacking(previous, generation).count(),
            "n_behind": 0 if previous is None else count_behind(previous, generation),
            "comparison": comparison,
            "refusals": _refusals(comparison, generation, active),
            "sides": [
                (role, side, [make_figure(getattr(side, name), per=per) for name, per in SIDE_FIGURES])
                for role, side in (("active", comparison.active), ("candidate", comparison.candidate))
            ]
            if comparison
            else [],
            "changes": [("Worse", comparison.worse), ("Better", comparison.better)] if comparison else [],
            "compared_at": datetime.fromisoformat(comparison.compared_at) if comparison else None,
        }

    def compare_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if refused := self._refuse_get(request):
            return refused
        try:
            job = start_comparison(get_generation(pk), asked_by=request.user.get_username())
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
            return redirect("admin:gallery_generation_change", pk)
        return redirect("admin:jobs_job_change", job.pk)

    def switch_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if refused := self._refuse_get(request):
            return refused
        self._answer_with(request, lambda: switch_generation(get_generation(pk), **_forced(request)))
        return redirect("admin:gallery_generation_change", pk)

    def roll_back_view(self, request: HttpRequest) -> HttpResponse:
        if refused := self._refuse_get(request):
            return refused
        self._answer_with(request, lambda: roll_back(**_forced(request)))
        return redirect("admin:gallery_generation_changelist")

    def _answer_with(self, request: HttpRequest, act: Callable[[], Generation]) -> None:
        try:
            self.message_user(request, f"Answers from now on: {act()}.", messages.SUCCESS)
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)


def _forced(request: HttpRequest) -> dict[str, Any]:
    form = SwitchForm(request.POST)
    form.is_valid()
    return {
        "force": form.cleaned_data.get("force", False),
        "reason": form.cleaned_data.get("reason", ""),
    }


def _refusals(comparison: Comparison | None, generation: Generation, active: Generation | None) -> list[str]:
    """Why the gate would refuse unless it is forced; none where it lets through."""
    if comparison is None or active is None:
        return []
    refusals = []
    for refuse in (lambda: refuse_drop(comparison), lambda: refuse_lacking(generation, active)):
        try:
            refuse()
        except Problem as problem:
            refusals.append(problem.detail)
    return refusals
