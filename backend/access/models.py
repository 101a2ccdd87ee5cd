"""Device: a till, a scale, a phone, or an integrator's program that holds a key."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from backend.common.models import TimestampedModel


class Scope(models.TextChoices):
    RECOGNISE = "recognise", "recognise: send photos, read and correct its own recognitions"
    CATALOGUE = "catalogue", "catalogue: read and change products, pictures, product sets"
    OPERATE = "operate", "operate: jobs, echo"


class Device(TimestampedModel):
    """A key's holder. The key itself is never stored: only its prefix, to find it, and its SHA-256, to prove it."""

    name = models.CharField(max_length=100, unique=True)
    key_prefix = models.CharField(max_length=12, unique=True, editable=False)
    key_sha256 = models.CharField(max_length=64, editable=False)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope.choices), default=list)
    product_set = models.ForeignKey(
        "catalogue.ProductSet",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="devices",
        help_text="All that this device can see and recognise; empty means the whole catalogue.",
    )
    is_active = models.BooleanField("active", default=True)
    last_seen_at = models.DateTimeField("last seen", null=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
