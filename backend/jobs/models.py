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
UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


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
    # Of all unfinished jobs one alone may have it; "" for a job that may run beside any other.
    lock = models.CharField(max_length=40, blank=True, editable=False)
    # A message to a worker names the turn that it is for, so that of several messages one is heeded.
    turn = models.PositiveIntegerField(default=0, editable=False)
    total = models.PositiveIntegerField(null=True)
    cursor = models.PositiveIntegerField(default=0)
    rate = models.FloatField(null=True, editable=False, help_text="Steps a second, lately.")
    counted_at = models.DateTimeField(null=True, editable=False)
    failed = models.PositiveIntegerField(default=0)
    # [{"reason": ..., where: "file" and "row", or "picture" and "product"}], the first of them; `failed` counts all.
    failures = models.JSONField(default=list, blank=True)
    result = models.JSONField(default=dict, blank=True)
    lease_until = models.DateTimeField(null=True, editable=False)
    started_at = models.DateTimeField("started", null=True, editable=False)
    finished_at = models.DateTimeField("finished", null=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["lock"],
                condition=models.Q(state__in=UNFINISHED) & ~models.Q(lock=""),
                name="one_unfinished_job_per_lock",
            ),
        ]

    def __str__(self) -> str:
        kind = self.kind.replace("-", " ")
        return f"{kind}: {self.subject}" if self.subject else kind

    @property
    def seconds_left(self) -> float | None:
        """Until the last step, at the rate of late; None while nobody can tell, and after that step, when what was made
        is checked.
        """
        if self.state != JobState.RUNNING or not self.rate or self.total is None or self.cursor >= self.total:
            return None
        return (self.total - self.cursor) / self.rate
