"""The demo catalogue's facts and the invented products beyond it."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

import pytest

from demo_catalogue import DemoProduct, list_products, more_products
from demo_catalogue.motifs import MOTIFS
from demo_catalogue.products import gtin13


def check_digit_holds(gtin: str) -> bool:
    """GS1's own wording: digits weigh 1, 3, 1, 3, ... from the left of a GTIN-13; the sum ends in 0."""
    return sum(int(digit) * weight for digit, weight in zip(gtin, (1, 3) * 6 + (1,), strict=True)) % 10 == 0


@pytest.mark.parametrize("gtin", ["4006381333931", "5901234123457", "9780306406157"])
def test_published_gtins_get_their_check_digit(gtin: str) -> None:
    assert gtin13(gtin[:12]) == gtin


@pytest.mark.parametrize("digits", ["", "12345", "1234567890123", "12345678901x", "１２３４５６７８９０１２"])
def test_other_than_twelve_digits_is_refused(digits: str) -> None:
    with pytest.raises(ValueError, match="want 12 digits"):
        gtin13(digits)


def test_catalogue_is_complete_and_unique() -> None:
    products = list_products()
    assert len(products) >= 40
    for attribute in ("sku", "gtin", "name"):
        assert len({getattr(product, attribute) for product in products}) == len(products)
    assert {product.shape for product in products} >= {
        "can",
        "gable_carton",
        "bottle",
        "pillow_bag",
        "box",
        "tub",
    }


@pytest.mark.parametrize(
    "product", list_products() + more_products(40, seed=3), ids=lambda product: product.sku
)
def test_product_is_plausible(product: DemoProduct) -> None:
    assert check_digit_holds(product.gtin)
    assert "20" <= product.gtin[:2] <= "29"  # numbers inside one company: nobody's
    assert product.currency == "EUR"
    assert Decimal("0.10") < product.price < 20
    assert product.price == product.price.quantize(Decimal("0.01"))
    assert product.design.motif in MOTIFS
    for colour in (product.design.base, product.design.accent, product.design.band, product.design.ink):
        assert re.fullmatch("#[0-9a-f]{6}", colour)
    assert product.name.isascii()  # the lettering's font has little beyond


def test_more_products_are_unique_and_none_is_in_the_catalogue() -> None:
    products = more_products(3000, seed=0) + more_products(300, seed=1) + list_products()
    for attribute in ("sku", "gtin"):
        assert len({getattr(product, attribute) for product in products}) == len(products)


def test_a_further_product_does_not_depend_on_how_many_are_asked_for() -> None:
    assert more_products(50, seed=9)[:11] == more_products(11, seed=9)
    assert more_products(5, seed=9) != more_products(5, seed=10)


def test_some_further_products_are_siblings() -> None:
    products = more_products(200, seed=2)
    pairs = [(a, b) for a, b in pairwise(products) if a.brand == b.brand]
    assert len(pairs) > 40
    assert all(a.shape == b.shape and a.design.band != b.design.band for a, b in pairs)


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (100_000, 0), (1, -1), (1, 100_000)])
def test_numbers_that_do_not_fit_a_gtin_are_refused(n: int, seed: int) -> None:
    with pytest.raises(ValueError, match="want 0 to 99999"):
        more_products(n, seed)
