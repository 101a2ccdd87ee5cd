"""Evaluations that were run, to be read: the report's lines as a table, and its JSON file to take along. And on a
generation's page its comparison with the active one, and the buttons that switch and return."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from unfold.decorators import display

from backend.common.admin import ReadOnlyAdmin, check_permission
from backend.common.problems import Problem
from backend.evaluation.comparison import Comparison, get_comparison, refuse_drop
from backend.evaluation.figures import draw_answers
from backend.evaluation.models import EvaluationRun
from backend.evaluation.switching import roll_back, start_comparison, switch_generation
from backend.evaluation.table import (
    ANSWER_COLUMNS,
    BASKET_WORDS,
    FIGURE_COLUMNS,
    describe_segments,
    make_answers_row,
    make_basket_rows,
    make_figure,
    make_row,
)
from backend.gallery.admin import OPERATE, GenerationAdmin, may_operate
from backend.gallery.generations import get_previous_generation
from backend.gallery.models import Generation, GenerationState
from backend.gallery.selectors import get_active_generation, get_generation

# Of a side of a comparison, and the unit that each is shown in.
SIDE_FIGURES = (
    ("recall_at_1", 0.01), ("recall_at_5", 0.01), ("map_at_100", 0.01), ("p50_ms", 1), ("p95_ms", 1),
)  # fmt: skip
# A folder may have thousands of bad rows; the JSON file names each.
REFUSALS_SHOWN = 50


@admin.register(EvaluationRun)
class EvaluationRunAdmin(ReadOnlyAdmin):
    empty_note = "Evaluations are run by manage.py evaluate_recall."
    list_display = ["subject", "shown_recall", "generation", "asked_by", "created_at"]
    list_select_related = ["generation__embedder"]

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "<int:pk>/report/",
                self.admin_site.admin_view(self.report_view),
                name="evaluation_evaluationrun_report",
            ),
            *super().get_urls(),
        ]

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
        report = run.report
        exact = report["lines"][0]
        context = {
            **self.admin_site.each_context(request),
            "title": "Evaluation",
            "opts": self.opts,
            "original": run,
            "run": run,
            "report": report,
            "whole_map": make_figure(exact["scores"].get("map"), per=0.01),
            "figure_columns": FIGURE_COLUMNS,
            "rows": [_show(line) for line in report["lines"]],
            "answer_columns": ANSWER_COLUMNS,
            "answer_rows": [row for line in report["lines"] if (row := make_answers_row(line)) is not None],
            "exact_answers": exact.get("answers"),
            "charts": draw_answers(report["lines"]),
            "basket_columns": [words for words, _ in BASKET_WORDS.values()],
            "basket_rows": make_basket_rows(report["scenes"]) if report.get("scenes") else [],
            "refused": report["refused"][:REFUSALS_SHOWN],
            "n_more_refused": max(0, len(report["refused"]) - REFUSALS_SHOWN),
        }
        return TemplateResponse(request, "evaluation/run.html", context)

    def report_view(self, request: HttpRequest, pk: int) -> JsonResponse:
        """The report as `evaluate_recall --json` writes it."""
        check_permission(request, "evaluation.view_evaluationrun")
        run = get_object_or_404(EvaluationRun, pk=pk)
        response = JsonResponse(run.report, json_dumps_params={"indent": 2})
        response["Content-Disposition"] = f'attachment; filename="evaluation-{run.pk}.json"'
        return response


def _show(line: dict[str, Any]) -> dict[str, Any]:
    index, strategy, used, *figures = make_row(line)
    # One segment alone is searched as the line is; several may differ.
    segments = describe_segments(line) if len(line["segments"]) > 1 else ""
    return {"index": index, "strategy": strategy, "used": used, "segments": segments, "figures": figures}


admin.site.unregister(Generation)


class SwitchForm(forms.Form):
    """In spite of a drop, with the reason."""

    force = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=500)


@admin.register(Generation)
class SwitchableGenerationAdmin(GenerationAdmin):
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
        switchable = generation.state in (GenerationState.READY, GenerationState.STANDBY)
        previous = get_previous_generation() if generation == active else None
        operator = may_operate(request)
        return super().describe_life(request, generation) | {
            "active": active,
            "may_switch": operator and switchable and active is not None,
            "previous": previous if operator else None,
            "comparison": comparison,
            "drop": _refusal(comparison),
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
        form = SwitchForm(request.POST)
        form.is_valid()
        self._answer_with(
            request,
            lambda: switch_generation(
                get_generation(pk),
                force=form.cleaned_data.get("force", False),
                reason=form.cleaned_data.get("reason", ""),
            ),
        )
        return redirect("admin:gallery_generation_change", pk)

    def roll_back_view(self, request: HttpRequest) -> HttpResponse:
        if refused := self._refuse_get(request):
            return refused
        self._answer_with(request, roll_back)
        return redirect("admin:gallery_generation_changelist")

    def _refuse_get(self, request: HttpRequest) -> HttpResponse | None:
        check_permission(request, OPERATE)
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])

    def _answer_with(self, request: HttpRequest, act: Callable[[], Generation]) -> None:
        try:
            self.message_user(request, f"Answers from now on: {act()}.", messages.SUCCESS)
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)


def _refusal(comparison: Comparison | None) -> str:
    """Why the gate would refuse; empty where it lets through."""
    if comparison is None:
        return ""
    try:
        refuse_drop(comparison)
    except Problem as problem:
        return problem.detail
    return ""
