"""Evaluations that were run, to be read: the report's lines as a table, and its JSON file to take along."""

from typing import Any

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from unfold.decorators import display

from backend.common.admin import ReadOnlyAdmin, check_permission
from backend.evaluation.models import EvaluationRun
from backend.evaluation.table import FIGURE_COLUMNS, describe_segments, make_figure, make_row

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
