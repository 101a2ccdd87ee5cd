"""Label art: the bar code is a real one, and siblings can be told apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageChops

from demo_catalogue import list_products
from demo_catalogue.barcode import draw_barcode
from demo_catalogue.labels import draw_front, draw_wrap
from demo_catalogue.lettering import draw_word
from demo_catalogue.motifs import MOTIFS, draw_motif

# Widths of space, bar, space, bar of a digit in set A; set B is the same backwards, set C in other colours.
WIDTHS = ("3211", "2221", "2122", "1411", "1132", "1231", "1114", "1312", "1213", "3112")
FIRST_DIGIT = (
    "AAAAAA",
    "AABABB",
    "AABBAB",
    "AABBBA",
    "ABAABB",
    "ABBAAB",
    "ABBBAA",
    "ABABAB",
    "ABABBA",
    "ABBABA",
)


def read_barcode(row: np.ndarray) -> str:
    """Read an EAN-13 symbol from one row of pixels, one pixel a module, by the widths of its bars."""
    dark = row < 128
    start, end = np.flatnonzero(dark)[[0, -1]]
    edges = np.flatnonzero(np.diff(dark[start : end + 1].astype(int))) + 1
    widths = "".join(str(width) for width in np.diff([0, *edges, end + 1 - start]))
    assert widths[:3] == widths[-3:] == "111"
    assert widths[27:32] == "11111"
    left = [widths[3 + 4 * digit : 7 + 4 * digit] for digit in range(6)]
    right = [widths[32 + 4 * digit : 36 + 4 * digit] for digit in range(6)]
    sets = "".join("A" if group in WIDTHS else "B" for group in left)
    digits = [WIDTHS.index(group if group in WIDTHS else group[::-1]) for group in left]
    digits += [WIDTHS.index(group) for group in right]
    return str(FIRST_DIGIT.index(sets)) + "".join(map(str, digits))


@pytest.mark.parametrize(
    "gtin", [product.gtin for product in list_products()[::9]] + ["4006381333931", "0012345678905"]
)
def test_barcode_reads_as_the_gtin(gtin: str) -> None:
    image = draw_barcode(gtin, 113, 60)
    assert image.size == (113, 60)
    assert read_barcode(np.asarray(image)[30]) == gtin


def test_every_motif_is_drawn_within_its_square() -> None:
    for name in MOTIFS:
        motif = draw_motif(name, 64)
        assert motif.size == (64, 64)
        cover = np.asarray(motif.getchannel("A")) / 255
        assert 0.1 < cover.mean() < 0.9, name


def test_a_word_fills_its_room_and_no_more() -> None:
    for width, height in ((200, 40), (30, 200), (7, 3)):
        word = draw_word("Zitruvo", width, height, "#102030", style="italic")
        assert word.width <= width
        assert word.height <= height
        assert word.width == width or word.height == height


def test_siblings_differ_visibly_but_little() -> None:
    """One brand's products share most of their label: that is what makes them hard to tell."""
    products = list_products()
    siblings = [
        (a, b)
        for a, b in combinations(products, 2)
        if (a.brand, a.shape) == (b.brand, b.shape) and a.design.contents == b.design.contents
    ]
    assert len(siblings) >= 30
    for a, b in siblings:
        difference = ImageChops.difference(draw_front(a, 120, 180), draw_front(b, 120, 180))
        changed = np.asarray(difference).max(axis=2) > 40
        assert changed.mean() > 0.01, (a.sku, b.sku)
        assert changed.mean() < 0.97, (a.sku, b.sku)


def test_a_wrapped_label_meets_itself() -> None:
    for product in list_products():
        if product.shape in ("can", "bottle", "jar", "tin", "tub"):
            wrap = np.asarray(draw_wrap(product, 400, 200), np.float32)
            seam = np.abs(wrap[:, 0] - wrap[:, -1]).mean()
            elsewhere = np.abs(np.diff(wrap, axis=1)).mean(axis=(0, 2))
            assert seam <= elsewhere.max(), product.sku


def test_front_is_drawn_at_any_size() -> None:
    for size in ((40, 40), (30, 300), (300, 50)):
        for product in list_products()[::6]:
            assert isinstance(draw_front(product, *size), Image.Image)
