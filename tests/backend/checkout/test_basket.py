"""Baskets: only recognised items are summed, by SKU, in Decimal, and what is missing is said."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from backend.catalogue.models import Product, SoldBy
from backend.checkout.basket import BasketItem, make_basket
from recognition.ranking import Result

COLA = Product(sku="COLA", name="Cola", price=Decimal("0.10"), currency="EUR")
MILK = Product(sku="MILK", name="Milk", price=Decimal("1.20"), currency="EUR")
BANANA = Product(sku="BANANA", name="Banana", price=Decimal("1.99"), currency="EUR", sold_by=SoldBy.WEIGHT)
BAG = Product(sku="BAG", name="Bag")
IMPORTED = Product(sku="IMPORTED", name="Imported", price=Decimal("5.00"), currency="CHF")


def recognised(product: Product) -> BasketItem:
    return BasketItem(Result.RECOGNISED, product)


def test_items_of_one_sku_are_one_line_and_money_does_not_drift():
    basket, reasons = make_basket([recognised(COLA), recognised(MILK), recognised(COLA), recognised(COLA)])
    assert basket == {
        "lines": [
            {"sku": "COLA", "name": "Cola", "quantity": 3, "unit_price": "0.10", "line_total": "0.30"},
            {"sku": "MILK", "name": "Milk", "quantity": 1, "unit_price": "1.20", "line_total": "1.20"},
        ],
        "total": "1.50",
        "currency": "EUR",
        "complete": True,
    }
    assert reasons == [None] * 4


def test_each_reason_that_keeps_a_basket_incomplete_stands_on_its_item():
    items = [
        recognised(COLA),
        BasketItem(Result.UNKNOWN, None),
        BasketItem(Result.NEEDS_CONFIRMATION, MILK),
        recognised(BANANA),
        recognised(BAG),
        recognised(IMPORTED),
    ]
    basket, reasons = make_basket(items)
    assert reasons == [None, "unknown", "needs-confirmation", "sold-by-weight", "no-price", "other-currency"]
    assert (basket["total"], basket["currency"], basket["complete"]) == ("0.10", "EUR", False)
    assert [line["sku"] for line in basket["lines"]] == ["COLA", "BANANA", "BAG", "IMPORTED"]
    assert [line["line_total"] for line in basket["lines"]] == ["0.10", None, None, None]


def test_nothing_priced_has_no_total_and_nothing_at_all_is_not_complete():
    assert make_basket([recognised(BAG)])[0]["total"] is None
    assert make_basket([])[0] == {"lines": [], "total": None, "currency": None, "complete": False}


@given(st.lists(st.tuples(st.sampled_from([COLA, MILK]), st.sampled_from(list(Result)))))
def test_the_total_is_the_sum_of_what_was_recognised(drawn):
    items = [BasketItem(result, product) for product, result in drawn]
    basket, reasons = make_basket(items)
    wanted = sum((product.price for product, result in drawn if result is Result.RECOGNISED), Decimal(0))
    assert Decimal(basket["total"] or 0) == wanted
    assert basket["complete"] == (bool(drawn) and all(result is Result.RECOGNISED for _, result in drawn))
    assert [reason is None for reason in reasons] == [result is Result.RECOGNISED for _, result in drawn]
