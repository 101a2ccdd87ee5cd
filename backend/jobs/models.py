"""Job: its row is the truth; a message to a worker only says 'look'."""

import uuid

from django.db import models

from backend.common.models import TimestampedModel


class JobState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


SUBJECT_LENGTH = 200


class Job(TimestampedModel):
    """A piece of long work. `cursor` counts the steps that are over, so that a resumed job does only what is left."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=40)
    subject = models.CharField(
        max_length=SUBJECT_LENGTH,
        blank=True,
        help_text="What it works on: the name of the file that was sent, or of a folder.",
    )
    parameters = models.JSONField(default=dict, blank=True)
    file = models.FileField(upload_to="jobs/", blank=True)
    asked_by = models.CharField(max_length=150, blank=True)
    device = models.ForeignKey(
        "access.Device", on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.QUEUED, db_index=True)
    total = models.PositiveIntegerField(null=True)
    cursor = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    # [{"file": ..., "row": ..., "reason": ...}], the first of them; `failed` counts all.
    failures = models.JSONField(default=list, blank=True)
    result = models.JSONField(default=dict, blank=True)
    lease_until = models.DateTimeField(null=True, editable=False)
    started_at = models.DateTimeField("started", null=True, editable=False)
    finished_at = models.DateTimeField("finished", null=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        kind = self.kind.replace("-", " ")
        return f"{kind}: {self.subject}" if self.subject else kind
