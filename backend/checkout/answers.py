"""The answer to a recognition, as the API gives it and the row keeps it."""

import time
from typing import Any

from backend.catalogue.selectors import ActiveProduct
from backend.checkout.basket import BasketItem, make_basket
from backend.checkout.models import Recognition, RecognitionState
from backend.checkout.recogniser import Found, Serving
from recognition.ranking import Candidate, Result


def make_answer(
    recognition: Recognition, serving: Serving, found: Found, started: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Put products, prices and the basket to what was recognised.

    Args:
        started: time.perf_counter() when the worker began.
    Returns:
        The answer, and the items' rows by column, both ready for JSON.
    """
    basket_items, rows, items = [], [], []
    for number, item in enumerate(found.image.items, start=1):
        best = item.candidates[0] if item.candidates else None
        product = None if best is None or item.result is Result.UNKNOWN else found.products[best.product_id]
        basket_items.append(BasketItem(item.result, product))
        similarity = None if best is None else round(best.similarity, 4)
        score = None if item.detection_score is None else round(item.detection_score, 4)
        box = [round(float(side), 1) for side in item.box]
        rows.append(
            {
                "number": number,
                "box": box,
                "detection_score": score,
                "result": item.result.value,
                "product_id": None if product is None else product.id,
                "sku": "" if product is None else product.sku,
                "name": "" if product is None else product.name,
                "price": None if product is None or product.price is None else str(product.price),
                "currency": "" if product is None else product.currency,
                "similarity": similarity,
            }
        )
        items.append(
            {
                "id": number,
                "box": box,
                "detection_score": score,
                "result": item.result.value,
                "product": None if product is None else _product(product),
                "similarity": similarity,
                "confidence": None if item.confidence is None else round(item.confidence, 4),
                "candidates": [_candidate(one, found.products[one.product_id]) for one in item.candidates],
            }
        )
    basket, reasons = make_basket(basket_items)
    for shown, reason in zip(items, reasons, strict=True):
        shown["basket_reason"] = reason
    answer = {
        "id": str(recognition.pk),
        "state": RecognitionState.DONE.value,
        "image": {"width": found.image.width, "height": found.image.height},
        "main_body_found": found.image.main_body_found,
        "product_set": recognition.product_set and recognition.product_set.slug,
        "strategy": serving.strategy,
        "generation": serving.generation.pk,
        "threshold_set": serving.threshold_set and serving.threshold_set.version,
        "models": {
            "detector": serving.detector and str(serving.detector),
            "embedder": str(serving.generation.embedder),
        },
        "items": items,
        "basket": basket,
        "timings_ms": {stage: round(spent, 2) for stage, spent in found.image.timings_ms.items()}
        | {"worker": round(1000 * (time.perf_counter() - started), 2)},
    }
    return answer, rows


def _product(product: ActiveProduct) -> dict[str, Any]:
    return {
        "sku": product.sku,
        "gtin": product.gtin or None,
        "name": product.name,
        "price": None if product.price is None else str(product.price),
        "currency": product.currency or None,
    }


def _candidate(candidate: Candidate, product: ActiveProduct) -> dict[str, Any]:
    return {
        "product": _product(product),
        "similarity": round(candidate.similarity, 4),
        "reference_image": candidate.matches[0].reference_image_id,
    }
