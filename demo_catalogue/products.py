"""The invented products: what they are called, what they cost, and what their packaging is to look like.

Brands, names and prices are made up. The GTINs carry GS1's prefixes 20 to 29, which are kept for numbers inside
one company and so belong to nobody. Drawing is elsewhere: here are only facts and the parameters of a design.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Shape = Literal[
    "can",
    "slim_can",
    "tin",
    "flat_tin",
    "bottle",
    "squeeze_bottle",
    "jar",
    "tub",
    "gable_carton",
    "brick_carton",
    "box",
    "pillow_bag",
    "block_bag",
]
Ground = Literal[
    "plain", "gradient", "wave", "stripes", "diagonal", "burst", "hills", "check", "dots", "frame", "split"
]
Layout = Literal["stacked", "badge", "tower", "hero", "ribbon"]
Lettering = Literal["bold", "italic", "condensed", "wide", "arched", "outlined", "light"]

CURRENCY = "EUR"


@dataclass(frozen=True)
class Design:
    """What the artist is told. Colours are "#rrggbb"."""

    ground: Ground
    layout: Layout
    lettering: Lettering
    base: str  # the colour of the packaging
    accent: str  # the brand's second colour: badge, frame, outlines
    band: str  # the flavour's colour
    ink: str  # the word-mark's colour
    motif: str  # a key of demo_catalogue.motifs.MOTIFS
    kind: str  # what it is, in small letters: "sparkling soda"
    flavour: str  # what tells it from its siblings
    contents: str  # "330 ml"
    body: str  # cap, lid or liquid


@dataclass(frozen=True)
class DemoProduct:
    """One product of the demo catalogue, with all that is needed to draw it."""

    sku: str
    gtin: str  # GTIN-13 as text
    name: str
    brand: str
    category: str
    price: Decimal
    currency: str
    description: str
    shape: Shape
    size_mm: tuple[float, float, float]  # width, height, depth of the standing package
    design: Design


def gtin13(first_twelve: str) -> str:
    """Append the check digit to the first twelve digits of a GTIN-13.

    GS1 General Specifications, section 7.9: from the right, digits weigh 3, 1, 3, 1, ...

    Args:
        first_twelve: Twelve decimal digits.
    Returns:
        Thirteen digits.
    Raises:
        ValueError: Not twelve decimal digits.
    """
    if len(first_twelve) != 12 or not (first_twelve.isascii() and first_twelve.isdigit()):
        raise ValueError(
            f"a GTIN-13 is made of 12 digits and a check digit; found {first_twelve!r}, want 12 digits"
        )
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(first_twelve))
    return first_twelve + str(-weighted % 10)
