"""EvaluationRun: what was measured, on what, with what outcome."""

from django.db import models

from backend.common.models import TimestampedModel
from backend.gallery.models import Generation


class EvaluationRun(TimestampedModel):
    """One run of `evaluate_recall`; `report` is what `--json` writes (docs/evaluation.md has its schema)."""

    generation = models.ForeignKey(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="evaluation_runs"
    )
    subject = models.CharField(max_length=200, help_text="The folder, or 'live catalogue'.")
    asked_by = models.CharField(max_length=150, blank=True)
    report = models.JSONField()
    pictures = models.JSONField(
        default=dict, blank=True, help_text="Thumbnails that the report names, as data URIs."
    )

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"evaluation {self.pk} of {self.subject}"
