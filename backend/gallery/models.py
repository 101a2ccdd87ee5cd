"""InstalledModel, Generation, Shadow, Embedding (the ledger), ThresholdSet."""

from pathlib import Path

from django.conf import settings
from django.db import models

from backend.common.models import TimestampedModel


class ModelTask(models.TextChoices):
    DETECTOR = "detector"
    EMBEDDER = "embedder"


class InstalledModel(TimestampedModel):
    """A model folder that was checked and copied under MODELS_ROOT. One detector is active; an embedder is active
    through its generation."""

    name = models.CharField(max_length=80)
    version = models.CharField(max_length=40)
    task = models.CharField(max_length=8, choices=ModelTask.choices)
    sha256 = models.CharField("SHA-256", max_length=64)
    card = models.JSONField()
    is_active = models.BooleanField("active", default=False, editable=False)

    class Meta:
        verbose_name = "model"
        ordering = ["name", "version"]
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="model_once_per_version"),
            models.UniqueConstraint(
                fields=["task"],
                condition=models.Q(is_active=True, task="detector"),
                name="one_active_detector",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def folder(self) -> Path:
        """Where model.onnx and card.json lie."""
        return Path(settings.MODELS_ROOT) / f"{self.name}-{self.version}-{self.sha256[:12]}"


class GenerationState(models.TextChoices):
    BUILDING = "building"
    VERIFYING = "verifying"
    READY = "ready"
    ACTIVE = "active"
    STANDBY = "standby"  # was active, can come back
    RETIRED = "retired"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Each of these receives every new, changed and removed picture, so that a switch or a rollback loses nothing.
LIVE_STATES = (
    GenerationState.BUILDING,
    GenerationState.VERIFYING,
    GenerationState.READY,
    GenerationState.ACTIVE,
    GenerationState.STANDBY,
)

SWITCHABLE_STATES = (GenerationState.READY, GenerationState.STANDBY)
# From opening to verification; one generation at a time.
UNFINISHED_STATES = (GenerationState.BUILDING, GenerationState.VERIFYING)


class Generation(TimestampedModel):
    """One gallery, built by one embedder, in two Milvus collections. Exactly one is active."""

    embedder = models.ForeignKey(InstalledModel, on_delete=models.PROTECT, related_name="generations")
    detector = models.ForeignKey(
        InstalledModel,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="That its boxes came from.",
    )
    crop_margin = models.FloatField(default=0.0)
    index = models.JSONField(help_text="Index settings: type and its parameters.")
    collection = models.CharField(
        max_length=120, unique=True, help_text="Stem of the collections' names in Milvus."
    )
    state = models.CharField(max_length=10, choices=GenerationState.choices, default=GenerationState.BUILDING)
    evaluation = models.JSONField(default=dict, blank=True)
    copied_from = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Of the same embedder: its vectors are copied, and nothing is embedded.",
    )
    redetect = models.BooleanField(
        default=False, help_text="The detector looks at each picture again while this is built."
    )
    failure = models.TextField(blank=True, help_text="Why it failed.")
    activated_at = models.DateTimeField("activated", null=True, editable=False)
    freed_at = models.DateTimeField(
        "freed", null=True, editable=False, help_text="When its collections and its ledger were dropped."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=models.Q(state="active"), name="one_active_generation"
            ),
            models.UniqueConstraint(
                models.Value(1),
                condition=models.Q(state__in=UNFINISHED_STATES),
                name="one_building_generation",
            ),
        ]

    def __str__(self) -> str:
        return f"generation {self.pk} ({self.embedder})"


class Shadow(TimestampedModel):
    """A ready generation run on a share of the live recognitions, beside the one that answers: since somebody turned it
    on, until it ended. Nobody at a till is told what it says.
    """

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="shadows")
    active = models.ForeignKey(
        Generation, on_delete=models.CASCADE, related_name="+", help_text="That answered meanwhile."
    )
    share = models.FloatField(help_text="Of the live recognitions, 0 to 1.")
    started_by = models.CharField(max_length=150, blank=True)
    ended_at = models.DateTimeField("ended", null=True, editable=False)
    ended_because = models.CharField(max_length=250, blank=True)
    n_dropped = models.PositiveBigIntegerField(
        "dropped", default=0, help_text="Recognitions of the share that were not run."
    )
    n_failed = models.PositiveBigIntegerField(
        "failed", default=0, help_text="Recognitions on which this generation failed."
    )
    last_failure = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                models.Value(1), condition=models.Q(ended_at=None), name="one_shadow_at_a_time"
            ),
            models.CheckConstraint(
                condition=models.Q(share__gte=0, share__lte=1), name="shadow_share_from_0_to_1"
            ),
        ]

    def __str__(self) -> str:
        return f"shadow {self.pk}: generation {self.generation_id} beside {self.active_id}"


class EmbeddingState(models.TextChoices):
    PENDING = "pending"
    EMBEDDED = "embedded"
    FAILED = "failed"
    REMOVING = "removing"


class Embedding(models.Model):
    """The ledger: what one generation holds of one reference image.

    `reference_image_id` is no foreign key: the row outlives its picture until Milvus has let go of the entry.
    """

    reference_image_id = models.BigIntegerField()
    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="embeddings")
    state = models.CharField(max_length=8, choices=EmbeddingState.choices, default=EmbeddingState.PENDING)
    revision = models.PositiveIntegerField(default=0, help_text="Of the picture, as embedded; 0 before.")
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.TextField(blank=True)
    # Whoever works on a row holds it until then; nobody else touches its entry in Milvus.
    lease_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["generation", "reference_image_id"], name="entry_once_per_generation"
            ),
        ]
        indexes = [
            models.Index(
                fields=["generation", "state", "reference_image_id"],
                name="embedding_open",
                condition=~models.Q(state="embedded"),
            ),
            models.Index(fields=["reference_image_id"], name="embedding_reference_image"),
        ]

    def __str__(self) -> str:
        return f"{self.reference_image_id} in generation {self.generation_id}: {self.state}"


class ThresholdSet(TimestampedModel):
    """What separates recognised, needs confirmation and unknown, for one generation and one search strategy."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="threshold_sets")
    strategy = models.CharField(max_length=12)
    version = models.PositiveIntegerField()
    recognised = models.FloatField(help_text="Similarity from which an item is recognised.")
    margin = models.FloatField(help_text="Similarity by which the best product must lead the next.")
    unknown = models.FloatField(help_text="Similarity below which an item is unknown.")
    products = models.JSONField(
        default=dict,
        blank=True,
        help_text="Own thresholds of products, by id: sku, recognised, margin, unknown.",
    )
    false_accepts = models.FloatField(
        null=True, blank=True, help_text="Rate of false accepts that it was fitted for, 0 to 1."
    )
    confidence = models.JSONField(
        null=True, blank=True, help_text="The model of the confidence; without one it is not answered."
    )
    fit = models.JSONField(default=dict, help_text="How it was fitted, on what, with what outcome.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["generation", "strategy", "version"], name="threshold_set_version"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy} {self.version} of generation {self.generation_id}"
