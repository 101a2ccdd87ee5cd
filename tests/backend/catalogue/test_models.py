"""GTINs, prices, boxes: what a row may hold."""

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from backend.catalogue.models import check_box, validate_gtin
from tests.backend.factories import make_product


def check_digit(digits: str) -> str:
    """GS1: weights 3, 1, 3, ... from the right."""
    return str(
        -sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits))) % 10
    )


@given(st.sampled_from([7, 11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)))
def test_a_gtin_with_its_check_digit_is_valid_and_with_another_is_not(digits):
    right = check_digit(digits)
    validate_gtin(digits + right)
    with pytest.raises(ValidationError, match="is no GTIN"):
        validate_gtin(digits + str((int(right) + 1) % 10))


@pytest.mark.parametrize(
    "wrong",
    ["4006381333932", "40063813339310", "123", "4006381 333931", "４００６３８１３３３９３１", "abcdefgh"],
)
def test_what_is_no_gtin_is_named(wrong):
    with pytest.raises(ValidationError, match="is no GTIN"):
        validate_gtin(wrong)


@pytest.mark.django_db
class TestProduct:
    def test_leading_zeros_stay(self):
        product = make_product(gtin="0012345678905")
        product.refresh_from_db()
        assert product.gtin == "0012345678905"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"currency": ""}, "currency"),
            ({"currency": "euro"}, "currency"),
            ({"price": "-1"}, "price"),
            ({"price": "1.999"}, "price"),
            ({"name": ""}, "name"),
            ({"gtin": "1"}, "gtin"),
            ({"sold_by": "metre"}, "sold_by"),
        ],
    )
    def test_a_bad_field_is_refused_by_name(self, changes, field):
        with pytest.raises(ValidationError) as refused:
            make_product(**changes)
        assert field in refused.value.message_dict

    @pytest.mark.parametrize("sku", ["", " A", "A/B", "ä", "A\n", "-A", "../x"])
    def test_a_sku_is_plain(self, sku):
        with pytest.raises(ValidationError):
            make_product(sku)

    def test_a_sku_is_taken_once(self):
        make_product("A")
        with pytest.raises(ValidationError, match="already exists"):
            make_product("A")


@pytest.mark.parametrize(
    "box", [(0, 0, 101, 10), (5, 5, 5, 9), (9, 0, 3, 9), (-1, 0, 5, 5), (0, 0, float("nan"), 5), (1, 2, 3)]
)
def test_a_box_outside_its_picture_or_without_area_is_refused(box):
    with pytest.raises(ValidationError, match=r"no box inside|four numbers"):
        check_box(box, 100, 100)
