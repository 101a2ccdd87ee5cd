"""Evaluations that were run, to be read."""

from django.contrib import admin

from backend.common.admin import ReadOnlyAdmin
from backend.evaluation.models import EvaluationRun


@admin.register(EvaluationRun)
class EvaluationRunAdmin(ReadOnlyAdmin):
    empty_note = "Evaluations are run by manage.py evaluate_recall."
    list_display = ["subject", "generation", "asked_by", "created_at"]
    list_select_related = ["generation__embedder"]
    fields = ["subject", "generation", "asked_by", "created_at", "report"]
    readonly_fields = ["created_at"]
