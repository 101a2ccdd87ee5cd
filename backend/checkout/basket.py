"""Recognised items summed into lines and a total. Money is Decimal."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from backend.catalogue.models import SoldBy
from backend.catalogue.selectors import ActiveProduct
from recognition.ranking import Result


@dataclass(frozen=True)
class BasketItem:
    """One item as the basket sees it: what was decided, and the product if it was recognised."""

    result: Result
    product: ActiveProduct | None


def make_basket(items: Sequence[BasketItem]) -> tuple[dict[str, Any], list[str | None]]:
    """Sum recognised items by SKU, in the order of their first item.

    The basket's currency is that of its first priced item. A line or total that cannot be priced is null.

    Returns:
        The basket {lines, total, currency, complete}, and for each item why it keeps the basket from being
        complete: "unknown" | "needs-confirmation" | "sold-by-weight" | "no-price" | "other-currency" | None.
    """
    currency = next(
        (item.product.currency for item in items if item.product is not None and _is_priced(item)), None
    )
    reasons = [_reason(item, currency) for item in items]
    lines: dict[str, dict[str, Any]] = {}
    total = None
    for item, reason in zip(items, reasons, strict=True):
        product = item.product
        if item.result is not Result.RECOGNISED or product is None:
            continue
        line = lines.setdefault(
            product.sku,
            {
                "sku": product.sku,
                "name": product.name,
                "quantity": 0,
                "unit_price": None if reason else product.price,
                "line_total": None if reason else Decimal(0),
            },
        )
        line["quantity"] += 1
        if reason is None:
            assert product.price is not None
            line["line_total"] += product.price
            total = (total or Decimal(0)) + product.price
    basket = {
        "lines": [
            line
            | {
                money: None if line[money] is None else str(line[money])
                for money in ("unit_price", "line_total")
            }
            for line in lines.values()
        ],
        "total": None if total is None else str(total),
        "currency": currency,
        "complete": bool(items) and not any(reasons),
    }
    return basket, reasons


def _is_priced(item: BasketItem) -> bool:
    return (
        item.result is Result.RECOGNISED
        and item.product is not None
        and item.product.price is not None
        and item.product.sold_by == SoldBy.UNIT
    )


def _reason(item: BasketItem, currency: str | None) -> str | None:
    if item.result is Result.UNKNOWN:
        return "unknown"
    if item.result is Result.NEEDS_CONFIRMATION or item.product is None:
        return "needs-confirmation"
    if item.product.sold_by == SoldBy.WEIGHT:
        return "sold-by-weight"
    if item.product.price is None:
        return "no-price"
    return None if item.product.currency == currency else "other-currency"
