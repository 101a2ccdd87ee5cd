"""Forms of the catalogue's admin pages. They check and gather; services save."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.sites import site
from django.contrib.admin.widgets import AutocompleteSelectMultiple
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.forms.widgets import Script
from django.urls import reverse
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelect2MultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from backend.catalogue.models import Product, ProductSet, ReferenceImage
from backend.catalogue.services import find_products
from backend.common.problems import Problem

SIDES = ("x1", "y1", "x2", "y2")
SKU_SEPARATORS = re.compile(r"[\s,;]+")


class PicturesInput(forms.FileInput):
    """A place to drop several pictures on, which is also a file input."""

    allow_multiple_selected = True
    template_name = "catalogue/pictures_input.html"

    class Media:
        js = [Script("catalogue/pictures.js", type="module")]


class PicturesField(forms.FileField):
    """Any number of files; the services judge each."""

    widget = PicturesInput

    def clean(self, data: list[UploadedFile] | None, initial: Any = None) -> list[UploadedFile]:
        return list(data or [])


class ProductForm(forms.ModelForm):
    product_sets = forms.ModelMultipleChoiceField(
        ProductSet.objects.all(),
        required=False,
        widget=UnfoldAdminSelect2MultipleWidget,
        help_text="Where it can be found when a search is narrowed to a product set.",
    )
    pictures = PicturesField(required=False)

    class Meta:
        model = Product
        fields = [
            "sku", "gtin", "name", "brand", "category", "description", "price", "currency", "sold_by", "attributes",
            "state",
        ]  # fmt: skip
        widgets = {
            "description": UnfoldAdminTextareaWidget({"rows": 3}),
            "attributes": UnfoldAdminTextareaWidget({"rows": 2}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "product_sets" in self.fields:
            self.initial["product_sets"] = list(self.instance.product_sets.all())

    def full_clean(self) -> None:
        """After all rules, the model's too: no page can fill in files again when something is wrong."""
        super().full_clean()
        n_chosen = len(self.cleaned_data.get("pictures") or []) if self.is_bound else 0
        if self.errors and n_chosen:
            one = n_chosen == 1
            self.add_error(
                "pictures",
                f"The {'picture' if one else f'{n_chosen} pictures'} you chose could not be kept while"
                f" something else is wrong: choose {'it' if one else 'them'} again.",
            )

    def clean_attributes(self) -> dict[str, Any]:
        attributes = self.cleaned_data["attributes"] or {}
        if not isinstance(attributes, dict):
            raise ValidationError('An object is wanted, e.g. {"size": "330 ml"}.')
        return attributes


@dataclass(frozen=True)
class PictureToBox:
    """The picture on which a main body is boxed.

    Attributes:
        url: of the upright picture, width x height pixels.
        alt: what it is, for who cannot see it.
        known: boxes of other main bodies, drawn for orientation.
        proposable: whether a box may be asked for in place of drawing one.
    """

    url: str
    width: int
    height: int
    alt: str
    known: Sequence[Sequence[float]] = ()
    proposable: bool = False


class MainBodyWidget(forms.MultiWidget):
    """The picture with the box of its main body on it, to be dragged, and its four numbers, to be typed."""

    template_name = "catalogue/main_body.html"

    class Media:
        js = [Script("catalogue/main_body.js", type="module")]

    def __init__(self) -> None:
        super().__init__({side: UnfoldAdminDecimalFieldWidget({"step": "any"}) for side in SIDES})
        self.picture: PictureToBox | None = None

    def decompress(self, value: list[float] | None) -> list[float | None]:
        return [None] * len(SIDES) if value is None else [round(side, 1) for side in value]

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        return super().get_context(name, value, attrs) | {"picture": self.picture}


class MainBodyField(forms.MultiValueField):
    widget = MainBodyWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__([forms.FloatField(label=side) for side in SIDES], **kwargs)

    def compress(self, values: list[float | None]) -> list[float | None] | None:
        if None in values and any(value is not None for value in values):
            raise ValidationError("Give all four numbers, or none.")
        return None if None in values else values or None


class ReferenceImageForm(forms.ModelForm):
    """Its one field is the box."""

    box = MainBodyField(required=False, label="Main body")

    class Meta:
        model = ReferenceImage
        fields = ["box"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "box" in self.fields:
            image = self.instance
            self.fields["box"].widget.picture = PictureToBox(
                url=reverse("admin:catalogue_referenceimage_picture", args=[image.pk]),
                width=image.width,
                height=image.height,
                alt=f"Picture {image.pk} of {image.product}",
                proposable=True,
            )


class ProductSetForm(forms.ModelForm):
    """A set's members are thousands: they are added here, and listed, searched and removed in the list of products."""

    add_products = forms.ModelMultipleChoiceField(
        Product.objects.all(),
        required=False,
        widget=AutocompleteSelectMultiple(ProductSet._meta.get_field("products"), site),
        help_text="Type a name, SKU, GTIN or brand.",
    )
    add_skus = forms.CharField(
        label="Add by SKU",
        required=False,
        widget=UnfoldAdminTextareaWidget({"rows": 4, "placeholder": "SKUs, pasted from a sheet"}),
        help_text="Between them: new lines, spaces, commas or semicolons.",
    )
    remove_skus = forms.CharField(
        label="Remove by SKU", required=False, widget=UnfoldAdminTextareaWidget({"rows": 2})
    )

    class Meta:
        model = ProductSet
        fields = ["name", "slug"]

    def clean_add_skus(self) -> list[str]:
        return _known_skus(self.cleaned_data["add_skus"])

    def clean_remove_skus(self) -> list[str]:
        return _known_skus(self.cleaned_data["remove_skus"])


class ChosenSetForm(forms.Form):
    """Which product set an action on the list of products is for."""

    product_set = forms.ModelChoiceField(
        ProductSet.objects.all(), empty_label="Choose one", widget=UnfoldAdminSelectWidget
    )


class CategoryForm(forms.Form):
    """The category that an action sets; empty: none."""

    category = forms.CharField(
        max_length=Product._meta.get_field("category").max_length,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="With '/' between levels: Fruit/Apple. Empty: no category.",
    )


def _known_skus(text: str) -> list[str]:
    skus = list(dict.fromkeys(filter(None, SKU_SEPARATORS.split(text))))
    try:
        find_products(skus)
    except Problem as problem:
        raise ValidationError(problem.detail) from problem
    return skus


class ImportForm(forms.Form):
    file = forms.FileField(label="Zip file", widget=forms.FileInput({"accept": ".zip,application/zip"}))

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        if file.size is None or file.size > settings.IMPORT_MAX_BYTES:
            raise ValidationError(
                f"The zip has {file.size:,} bytes, at most {settings.IMPORT_MAX_BYTES:,} are taken; split it."
            )
        return file
