"""Recognition, RecognisedItem, ShadowedItem, Correction."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models

from backend.access.models import Device
from backend.catalogue.models import Product, ProductSet, ReferenceImage
from backend.common.models import TimestampedModel
from backend.gallery.models import Generation, InstalledModel, Shadow, ThresholdSet
from recognition.ranking import Result


class RecognitionState(models.TextChoices):
    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


def query_image_path(recognition: "Recognition", _uploaded_name: str) -> str:
    return f"query/{recognition.pk.hex[:2]}/{recognition.pk.hex}.{recognition.image_format.lower()}"


class Recognition(models.Model):
    """One query image and its result. One generation and one threshold set answer all of its items."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField("created", auto_now_add=True, db_index=True)
    device = models.ForeignKey(
        Device, on_delete=models.SET_NULL, null=True, blank=True, related_name="recognitions"
    )
    asked_by = models.CharField(max_length=150, blank=True, help_text="Device or person, as named then.")
    state = models.CharField(max_length=7, choices=RecognitionState.choices, default=RecognitionState.QUEUED)
    failure = models.JSONField(
        null=True, blank=True, help_text="The problem that was answered, when it failed."
    )
    product_set = models.ForeignKey(
        ProductSet, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    n_candidates = models.PositiveSmallIntegerField(default=5)

    image = models.FileField("query image", upload_to=query_image_path, blank=True)
    image_format = models.CharField(max_length=4, blank=True)
    idempotency_key = models.CharField(max_length=255, blank=True)
    body_sha256 = models.CharField(max_length=64, blank=True)

    generation = models.ForeignKey(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    threshold_set = models.ForeignKey(
        ThresholdSet, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    detector = models.ForeignKey(
        InstalledModel, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    # The answer as it was given; a later look shows the same.
    answer = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "idempotency_key"],
                condition=~models.Q(idempotency_key=""),
                name="one_recognition_per_idempotency_key",
            ),
        ]
        permissions = [("recognise_photo", "Can recognise a photo in the admin")]

    def __str__(self) -> str:
        return f"recognition {self.pk}"


class RecognisedItem(models.Model):
    """One box of a recognition, with the product as it was then."""

    recognition = models.ForeignKey(Recognition, on_delete=models.CASCADE, related_name="items")
    number = models.PositiveSmallIntegerField(help_text="The item's id in the answer, from 1.")
    box = ArrayField(models.FloatField(), size=4)
    detection_score = models.FloatField(null=True)
    result = models.CharField(
        max_length=20, choices=[(result.value, result.value.replace("_", " ")) for result in Result]
    )
    product = models.ForeignKey(Product, on_delete=models.SET_NULL, null=True, related_name="+")
    sku = models.CharField("SKU", max_length=64, blank=True)
    name = models.CharField(max_length=200, blank=True)
    price = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    currency = models.CharField(max_length=3, blank=True)
    similarity = models.FloatField(null=True)

    class Meta:
        ordering = ["recognition", "number"]
        constraints = [models.UniqueConstraint(fields=["recognition", "number"], name="item_number_once")]

    def __str__(self) -> str:
        return f"item {self.number}: {self.sku or self.result}"


class Difference(models.TextChoices):
    """Between what was answered to an item and what a generation in the shadow says of it."""

    SAME = "same", "the same"
    # Both name a product, whatever they make of it.
    ANOTHER_PRODUCT = "another_product", "another product"
    # Of one product, or of none on one side.
    RECOGNISED_TO_CONFIRM = "recognised_to_needs_confirmation", "recognised -> needs confirmation"
    RECOGNISED_TO_UNKNOWN = "recognised_to_unknown", "recognised -> unknown"
    CONFIRM_TO_RECOGNISED = "needs_confirmation_to_recognised", "needs confirmation -> recognised"
    CONFIRM_TO_UNKNOWN = "needs_confirmation_to_unknown", "needs confirmation -> unknown"
    UNKNOWN_TO_RECOGNISED = "unknown_to_recognised", "unknown -> recognised"
    UNKNOWN_TO_CONFIRM = "unknown_to_needs_confirmation", "unknown -> needs confirmation"

    @classmethod
    def between(cls, item: RecognisedItem, result: str, sku: str) -> "Difference":
        """What differs.

        Args:
            item: as it was answered.
            result: that the generation in the shadow gives.
            sku: of the product that it names; "" where it names none.
        """
        if item.sku and sku and item.sku != sku:
            return cls.ANOTHER_PRODUCT
        return cls.SAME if item.result == result else cls(f"{item.result}_to_{result}")


class ShadowedItem(models.Model):
    """One recognised item as a generation in the shadow would have answered it, from the same box. All items of a
    recognition are stored by one statement, and go when the recognition goes.
    """

    shadow = models.ForeignKey(Shadow, on_delete=models.CASCADE, related_name="items")
    item = models.ForeignKey(RecognisedItem, on_delete=models.CASCADE, related_name="shadowed")
    created_at = models.DateTimeField("run", auto_now_add=True)
    active_confidence = models.FloatField(null=True, help_text="Of the answer that was given.")
    threshold_set = models.ForeignKey(ThresholdSet, on_delete=models.SET_NULL, null=True, related_name="+")
    result = models.CharField(max_length=20, choices=RecognisedItem._meta.get_field("result").choices)
    product = models.ForeignKey(Product, on_delete=models.SET_NULL, null=True, related_name="+")
    sku = models.CharField("SKU", max_length=64, blank=True)
    name = models.CharField(max_length=200, blank=True)
    similarity = models.FloatField(null=True)
    confidence = models.FloatField(null=True)
    difference = models.CharField(max_length=40, choices=Difference.choices)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["shadow", "item"], name="item_once_per_shadow")]
        indexes = [models.Index(fields=["shadow", "difference", "-id"], name="shadowed_by_difference")]

    def __str__(self) -> str:
        return f"{self.get_difference_display()}: item {self.item_id} in {self.shadow_id}"


class ReviewState(models.TextChoices):
    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"  # a later correction of the item says otherwise


def crop_path(_correction: "Correction", _uploaded_name: str) -> str:
    name = uuid.uuid4().hex
    return f"corrections/{name[:2]}/{name}.jpg"


class Correction(TimestampedModel):
    """What a person says an item really was: a product, or no product; or an item that was missed.

    Somebody reviews it; one that is accepted becomes a reference image of its product (review.py).
    """

    recognition = models.ForeignKey(Recognition, on_delete=models.CASCADE, related_name="corrections")
    item = models.ForeignKey(
        RecognisedItem, on_delete=models.CASCADE, null=True, blank=True, related_name="corrections"
    )
    box = ArrayField(models.FloatField(), size=4, help_text="Of the item, or of what was missed.")
    product = models.ForeignKey(Product, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    sku = models.CharField("SKU", max_length=64, blank=True, help_text="Empty: not a product.")
    made_by = models.CharField(max_length=150, blank=True)

    # Kept when the correction is made, for the query image is deleted after some days (crops.py).
    crop = models.FileField(upload_to=crop_path, blank=True, editable=False)
    crop_box = ArrayField(
        models.FloatField(), size=4, null=True, blank=True, help_text="The box in pixels of the crop."
    )
    state = models.CharField(max_length=10, choices=ReviewState.choices, default=ReviewState.OPEN)
    reviewed_by = models.CharField(max_length=150, blank=True)
    reviewed_at = models.DateTimeField("reviewed", null=True, blank=True)
    note = models.CharField(max_length=500, blank=True, help_text="Of who reviewed it: why.")
    reference_image = models.ForeignKey(
        ReferenceImage,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="That it became.",
    )
    # What the gallery said of the crop last (gallery.checks.PictureCheck), or why it cannot be asked.
    last_check = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["created_at"]
        indexes = [
            models.Index(fields=["id"], name="correction_open", condition=models.Q(state="open")),
        ]
        permissions = [("review_correction", "Can accept, reject and undo corrections")]

    def __str__(self) -> str:
        return f"{self.sku or 'not a product'} in {self.recognition_id}"
