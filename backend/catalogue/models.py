"""Product, ProductSet, ReferenceImage. Rules that hold for a row stand here; acts stand in services."""

import re
import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Upper
from stdnum import ean
from stdnum.exceptions import ValidationError as InvalidNumber

from backend.catalogue.currencies import CURRENCIES
from backend.common.models import TimestampedModel

SKU_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def validate_gtin(gtin: str) -> None:
    """GTIN-8, -12, -13 or -14 with its check digit (GS1 General Specifications, section 7.9)."""
    try:
        if not gtin.isascii() or ean.compact(gtin) != gtin:
            raise InvalidNumber
        ean.validate(gtin)
    except InvalidNumber as error:
        raise ValidationError(
            "%(gtin)r is no GTIN: 8, 12, 13 or 14 digits with a right check digit are wanted",
            code="gtin",
            params={"gtin": gtin},
        ) from error


def validate_currency(currency: str) -> None:
    """A code of ISO 4217."""
    if currency not in CURRENCIES:
        raise ValidationError(
            "%(currency)r is no currency: a code of ISO 4217 such as EUR is wanted",
            code="currency",
            params={"currency": currency},
        )


def _is_storable(value: Any) -> bool:
    """Whether PostgreSQL stores the JSON value: no text in it has a NUL, or half of a character."""
    if isinstance(value, str):
        return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(_is_storable(key) and _is_storable(inner) for key, inner in value.items())
    return not isinstance(value, list) or all(map(_is_storable, value))


class ProductState(models.TextChoices):
    ACTIVE = "active"
    RETIRED = "retired"


class SoldBy(models.TextChoices):
    UNIT = "unit"
    WEIGHT = "weight"


class Product(TimestampedModel):
    """A catalogue entry that can be recognised."""

    sku = models.CharField(
        "SKU",
        max_length=64,
        unique=True,
        validators=[
            RegexValidator(
                rf"^{SKU_PATTERN.pattern}\Z",
                "'%(value)s' is no SKU: letters, digits, '.', '_' and '-' are wanted, the first a letter or digit",
            )
        ],
        help_text="Your own code for the product.",
    )
    gtin = models.CharField(
        "GTIN",
        max_length=14,
        blank=True,
        db_index=True,
        validators=[validate_gtin],
        help_text="The number under the barcode; leading zeros stay.",
    )
    name = models.CharField(max_length=200)
    brand = models.CharField(max_length=100, blank=True)
    category = models.CharField(
        max_length=100, blank=True, db_index=True, help_text="With '/' between levels: Fruit/Apple."
    )
    description = models.TextField(max_length=5_000, blank=True)
    price = models.DecimalField(
        max_digits=12, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    currency = models.CharField(
        max_length=3,
        blank=True,
        validators=[validate_currency],
    )
    sold_by = models.CharField(max_length=6, choices=SoldBy.choices, default=SoldBy.UNIT)
    attributes = models.JSONField(default=dict, blank=True)
    state = models.CharField(
        max_length=7, choices=ProductState.choices, default=ProductState.ACTIVE, db_index=True
    )

    class Meta:
        ordering = ["sku"]
        indexes = [models.Index(Upper("name"), name="product_name_upper")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(price=None) | ~models.Q(currency=""), name="price_has_currency"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sku} {self.name}"

    def clean(self) -> None:
        if self.price is not None and not self.currency:
            raise ValidationError({"currency": "a price needs its currency, e.g. EUR"})
        if not _is_storable(self.attributes):
            raise ValidationError({"attributes": "a text in it has a NUL, or half of a character"})


class ProductSet(TimestampedModel):
    """A named group of products that are searched together: a store's assortment."""

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    products = models.ManyToManyField(Product, related_name="product_sets", blank=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class BoxSource(models.TextChoices):
    NONE = "", "not yet proposed"
    PERSON = "person"
    FILE = "file"
    DETECTOR = "detector"
    WHOLE = "whole", "whole picture"


def _stored_under(folder: str, image: "ReferenceImage") -> str:
    # Uploaded names never reach the disk.
    return f"{folder}/{image.product_id}/{uuid.uuid4().hex}.jpg"


def reference_path(image: "ReferenceImage", _uploaded_name: str) -> str:
    return _stored_under("reference", image)


def thumbnail_path(image: "ReferenceImage", _uploaded_name: str) -> str:
    return _stored_under("thumbnails", image)


class ReferenceImage(TimestampedModel):
    """A picture of a known product, with the box of its main body.

    The stored file is upright RGB JPEG without metadata; the box is in its pixels.
    """

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="reference_images")
    image = models.FileField(upload_to=reference_path)
    thumbnail = models.FileField(upload_to=thumbnail_path, editable=False)
    width = models.PositiveIntegerField(editable=False)
    height = models.PositiveIntegerField(editable=False)
    sha256 = models.CharField("SHA-256", max_length=64, editable=False, help_text="Of the bytes as uploaded.")
    box = ArrayField(
        models.FloatField(),
        size=4,
        null=True,
        blank=True,
        help_text="Main body: x1, y1, x2, y2 in pixels of the picture.",
    )
    box_source = models.CharField(max_length=8, choices=BoxSource.choices, default=BoxSource.NONE, blank=True)
    box_detector = models.CharField(
        max_length=120, blank=True, editable=False, help_text="Name and version of the detector."
    )
    quality_findings = ArrayField(models.CharField(max_length=20), default=list, blank=True, editable=False)
    revision = models.PositiveIntegerField(
        default=1, editable=False, help_text="Changes with the picture or its box."
    )

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["product", "sha256"], name="picture_once_per_product"),
        ]

    def __str__(self) -> str:
        return f"picture {self.pk} of {self.product.sku}"

    def clean(self) -> None:
        if self.box is not None:
            check_box(self.box, self.width, self.height)


def check_box(box: Any, width: int, height: int) -> None:
    """A box lies in its picture and has an area.

    Args:
        box: x1, y1, x2, y2 in pixels.
    Raises:
        ValidationError: naming the box found and the picture's size.
    """
    if len(box) != 4:
        raise ValidationError({"box": f"four numbers x1, y1, x2, y2 are wanted, found {len(box)}"})
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValidationError(
            {
                "box": f"({x1:g}, {y1:g}, {x2:g}, {y2:g}) is no box inside the picture of {width} x {height} pixels"
            }
        )
