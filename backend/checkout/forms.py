"""The form of a missed item. It gathers; the service judges."""

from typing import Any

from django import forms
from django.forms.widgets import Script
from django.urls import reverse_lazy

from backend.catalogue.forms import MainBodyField, PictureToBox


class ProductInput(forms.TextInput):
    """The SKU of a product, which may be looked for by name; the page has the list `found-products`."""

    class Media:
        js = [Script("catalogue/find_product.js", type="module")]

    def __init__(self) -> None:
        super().__init__(
            {
                "class": "ck-input",
                "placeholder": "SKU or name",
                "autocomplete": "off",
                "list": "found-products",
                "data-find": reverse_lazy("admin:catalogue_product_find"),
            }
        )


class MissedItemForm(forms.Form):
    """The box and the product of what no box came for."""

    box = MainBodyField(error_messages={"required": "Draw a box around the item, or type its four numbers."})
    sku = forms.CharField(
        label="Product", widget=ProductInput, error_messages={"required": "Say which product it is."}
    )

    def __init__(self, data: Any, picture: PictureToBox) -> None:
        super().__init__(data)
        self.fields["box"].widget.picture = picture
