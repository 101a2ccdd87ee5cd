"""The one abstract model; no table of its own."""

from django.db import models


class TimestampedModel(models.Model):
    """A row that knows when it was made and last saved."""

    created_at = models.DateTimeField("created", auto_now_add=True, editable=False)
    updated_at = models.DateTimeField("last changed", auto_now=True, editable=False)

    class Meta:
        abstract = True
