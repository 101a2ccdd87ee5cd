"""The answer to a recognition, as the API gives it and the row keeps it."""

import time
from typing import Any

from backend.catalogue.models import Product
from backend.checkout.basket import BasketItem, make_basket
from backend.checkout.models import RecognisedItem, Recognition, RecognitionState
from backend.checkout.recogniser import Serving
from recognition.pipeline import ImageRecognition
from recognition.ranking import Candidate, Result


def make_answer(
    recognition: Recognition, serving: Serving, found: ImageRecognition, started: float
) -> tuple[dict[str, Any], list[RecognisedItem]]:
    """Put products, prices and the basket to what was recognised.

    Args:
        started: time.perf_counter() when the worker began.
    Returns:
        The answer, ready for JSON, and the items' rows, not yet saved.
    """
    products = Product.objects.in_bulk(
        {candidate.product_id for item in found.items for candidate in item.candidates}
    )
    basket_items, rows, items = [], [], []
    for number, item in enumerate(found.items, start=1):
        # A product deleted since the search is left out, as if it had not been found.
        candidates = [one for one in item.candidates if one.product_id in products]
        result = item.result if candidates else Result.UNKNOWN
        best = candidates[0] if candidates else None
        product = products[best.product_id] if best is not None and result is not Result.UNKNOWN else None
        basket_items.append(BasketItem(result, product))
        similarity = None if best is None else round(best.similarity, 4)
        score = None if item.detection_score is None else round(item.detection_score, 4)
        box = [round(float(side), 1) for side in item.box]
        rows.append(
            RecognisedItem(
                recognition=recognition,
                number=number,
                box=box,
                detection_score=score,
                result=result.value,
                product=product,
                sku="" if product is None else product.sku,
                name="" if product is None else product.name,
                price=None if product is None else product.price,
                currency="" if product is None else product.currency,
                similarity=similarity,
            )
        )
        items.append(
            {
                "id": number,
                "box": box,
                "detection_score": score,
                "result": result.value,
                "product": None if product is None else _product(product),
                "similarity": similarity,
                "confidence": None,
                "candidates": [_candidate(one, products[one.product_id]) for one in candidates],
            }
        )
    basket, reasons = make_basket(basket_items)
    for shown, reason in zip(items, reasons, strict=True):
        shown["basket_reason"] = reason
    answer = {
        "id": str(recognition.pk),
        "state": RecognitionState.DONE.value,
        "image": {"width": found.width, "height": found.height},
        "main_body_found": found.main_body_found,
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
        "timings_ms": {stage: round(spent, 2) for stage, spent in found.timings_ms.items()}
        | {"worker": round(1000 * (time.perf_counter() - started), 2)},
    }
    return answer, rows


def _product(product: Product) -> dict[str, Any]:
    return {
        "sku": product.sku,
        "gtin": product.gtin or None,
        "name": product.name,
        "price": None if product.price is None else str(product.price),
        "currency": product.currency or None,
    }


def _candidate(candidate: Candidate, product: Product) -> dict[str, Any]:
    return {
        "product": _product(product),
        "similarity": round(candidate.similarity, 4),
        "reference_image": candidate.matches[0].reference_image_id,
    }
