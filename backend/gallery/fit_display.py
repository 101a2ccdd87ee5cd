"""A threshold set's fit as its admin page shows it: how it held on products held out, and what its confidence means."""

from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from backend.common.admin import facts
from backend.common.charts import Curve, draw_curves
from backend.gallery.models import ThresholdSet

RESULT_COLUMNS = {
    "recognised": "Recognised",
    "needs_confirmation": "Needs confirmation",
    "unknown": "Unknown",
    "wrong_accepts": "Wrongly recognised",
}

FIT_WORDS = {
    "n_alone": "only_pictures_of_their_product",
    "n_embedded": "pictures_embedded",
    "n_of_unknown_sku": "strangers_of_an_unknown_SKU",
    "n_products": "products_with_known_queries",
    "n_queries": "known_queries",
    "n_strangers": "strangers",
    "n_without_pictures": "products_without_pictures",
    "rank_1": "known_answered_rightly_first",
    "automatic": "fitted_by_the_sweep",
}


def show_fit(threshold_set: ThresholdSet) -> SafeString | str:
    """What it was fitted to, in numbers."""
    fit = {
        FIT_WORDS.get(name, name): value
        for name, value in threshold_set.fit.items()
        if not isinstance(value, dict | list)
    }
    if threshold_set.false_accepts is not None:
        fit["rate_of_false_accepts"] = threshold_set.false_accepts
    return facts(fit)


def show_held_out(threshold_set: ThresholdSet) -> SafeString | str:
    """Results on products that the fit had not seen, and the reliability curve of the confidence."""
    held_out, calibration = threshold_set.fit.get("held_out"), threshold_set.fit.get("calibration")
    if held_out is None:
        return "too few queries: nothing is recognised and nothing unknown, until more pictures are embedded"
    return render_to_string(
        "gallery/held_out.html",
        {
            "columns": RESULT_COLUMNS.values(),
            "rows": [
                (what, [show_figure(held_out[kind][name]) for name in RESULT_COLUMNS])
                for what, kind in (
                    ("Known products", "known"),
                    ("Strangers: products that the gallery lacks", "strangers"),
                )
            ],
            "error": calibration and show_figure(calibration["error"]),
            "unknown_share": threshold_set.confidence and 100 * threshold_set.confidence["unknown_share"],
            "chart": calibration and draw_reliability(calibration["bins"]),
        },
    )


def show_products(threshold_set: ThresholdSet) -> SafeString | str:
    """The products with thresholds of their own."""
    if not threshold_set.products:
        return "none: no product has enough queries for them"
    return render_to_string(
        "gallery/own_thresholds.html",
        {"products": sorted(threshold_set.products.values(), key=lambda one: one["sku"])},
    )


def draw_reliability(bins: Sequence[Sequence[float]]) -> SafeString:
    """The reliability curve of `describe_calibration`'s bins; a dot's area is the bin's share of the answers."""
    curve = Curve("", [(said, right) for said, right, _ in bins], [share for _, _, share in bins])
    return draw_curves(
        "Share of right answers by the confidence said; on the dashed line they agree; larger dots are more of them",
        [curve],
        x="confidence",
        y="right",
        diagonal=True,
    )


def show_figure(figure: Sequence[float] | None) -> dict[str, Any] | None:
    """A figure and its interval in per cent."""
    if figure is None:
        return None
    value, low, high = (f"{100 * one:.1f}" for one in figure)
    return {"value": value, "low": low, "high": high}
