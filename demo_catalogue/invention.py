"""Any number of further products, by seed: for training recipes and for galleries of any size.

Their brands are syllables put together by chance, so that one may sound like a word or a name of somewhere.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

from demo_catalogue.products import (
    CURRENCY,
    DemoProduct,
    Design,
    Ground,
    Layout,
    Lettering,
    Shape,
    gtin13,
)
from demo_catalogue.randomness import generator

# fmt: off
_SYLLABLES = (
    "ba", "bri", "co", "dal", "del", "dro", "fa", "fel", "gri", "ha", "jo", "ka", "kor", "la", "lin",
    "lu", "ma", "mer", "mi", "na", "nor", "o", "pa", "per", "qui", "ra", "ri", "sa", "sol", "ta", "ti",
    "tor", "u", "va", "ver", "vo", "wen", "xa", "yo", "za", "zel", "zi",
)
# fmt: on
_ENDINGS = ("lo", "ra", "no", "vik", "mar", "ella", "ino", "ux", "by", "sen", "ta", "go")
_GROUNDS: tuple[Ground, ...] = get_args(Ground)
_LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_LETTERINGS: tuple[Lettering, ...] = get_args(Lettering)


@dataclass(frozen=True)
class _Kind:
    """A kind of product: how it is packed, what it is called, and what may be drawn on it."""

    shape: Shape
    size_mm: tuple[float, float, float]
    kind: str
    category: str
    contents: str
    prices: tuple[float, float]
    motifs: str


_KINDS = (
    _Kind(
        "can",
        (66, 115, 66),
        "soft drink",
        "Soft drinks",
        "330 ml",
        (0.6, 1.5),
        "lemon orange lime cherry grape",
    ),
    _Kind(
        "slim_can",
        (53, 135, 53),
        "energy drink",
        "Soft drinks",
        "250 ml",
        (0.9, 2.0),
        "bolt lemon cherry lime",
    ),
    _Kind(
        "bottle", (66, 230, 66), "drink", "Soft drinks", "0.5 L", (0.6, 2.0), "drop lemon orange apple mint"
    ),
    _Kind("tin", (74, 110, 74), "vegetables", "Tinned food", "400 g", (0.6, 2.2), "tomato corn beans onion"),
    _Kind("flat_tin", (84, 42, 84), "fish", "Tinned food", "160 g", (1.0, 3.0), "fish tomato lemon onion"),
    _Kind(
        "jar",
        (78, 142, 78),
        "preserve",
        "Spreads",
        "350 g",
        (1.5, 5.0),
        "strawberry cherry honey orange basil",
    ),
    _Kind(
        "tub",
        (76, 84, 76),
        "yoghurt",
        "Dairy",
        "180 g",
        (0.4, 1.2),
        "strawberry blueberry flower apple cherry",
    ),
    _Kind("gable_carton", (72, 235, 72), "milk", "Dairy", "1 L", (0.8, 2.0), "cow drop oat cocoa"),
    _Kind("brick_carton", (90, 196, 62), "juice", "Juice", "1 L", (1.0, 3.0), "apple orange grape lemon oat"),
    _Kind(
        "box",
        (150, 220, 55),
        "biscuits",
        "Biscuits",
        "250 g",
        (1.0, 4.0),
        "cocoa honey oat strawberry flower",
    ),
    _Kind("box", (126, 78, 68), "tea", "Coffee and tea", "40 g", (1.5, 4.0), "leaf mint teacup flower lemon"),
    _Kind("pillow_bag", (180, 260, 55), "snacks", "Snacks", "150 g", (0.9, 3.0), "potato chilli onion corn"),
    _Kind("block_bag", (90, 235, 60), "coffee", "Coffee and tea", "500 g", (3.0, 9.0), "bean cocoa leaf oat"),
    _Kind(
        "squeeze_bottle",
        (74, 225, 46),
        "cleaner",
        "Household",
        "500 ml",
        (0.9, 3.5),
        "lemon leaf drop flower",
    ),
)

_FAMILY = 4  # consecutive numbers that may be siblings


def more_products(n: int, seed: int) -> tuple[DemoProduct, ...]:
    """Invent any number of further products, none of them in the demo catalogue.

    Products come in families of one to four siblings that share brand, shape and design and differ in band colour
    and motif, as in the demo catalogue. Product i depends on the seed and on i only.

    Args:
        n: How many, 0 to 99,999.
        seed: Another seed, other products; 0 to 99,999.
    Returns:
        n products with unique SKUs and GTINs, other ones for each seed.
    Raises:
        ValueError: n or seed out of range.
    """
    for title, value in (("n", n), ("seed", seed)):
        if not 0 <= value <= 99_999:
            raise ValueError(f"{title} is {value}; want 0 to 99999, for the GTIN has five digits for it")
    return tuple(_invent(number, seed) for number in range(n))


def _invent(number: int, seed: int) -> DemoProduct:
    place = number % _FAMILY
    random = generator("family", seed, number // _FAMILY)
    siblings = int(random.integers(1, _FAMILY + 1))
    if place >= siblings:  # past the last sibling: a family of its own
        random = generator("family", seed, number // _FAMILY, place)
    what = _KINDS[int(random.integers(len(_KINDS)))]
    syllables = [str(random.choice(_SYLLABLES)) for _ in range(int(random.integers(2, 4)))]
    brand = ("".join(syllables) + str(random.choice(_ENDINGS))).capitalize()
    hue, pale = float(random.random()), bool(random.random() < 0.4)
    base = _colour(
        hue, 0.12 if pale else random.uniform(0.5, 0.95), 0.96 if pale else random.uniform(0.3, 0.85)
    )
    accent = _colour(hue + random.uniform(0.3, 0.7), random.uniform(0.4, 0.9), random.uniform(0.3, 0.95))
    ink = _colour(hue + random.uniform(0.4, 0.6), 0.8, 0.3) if pale else _colour(hue + 0.5, 0.06, 0.98)
    ground = _GROUNDS[int(random.integers(len(_GROUNDS)))]
    layout = _LAYOUTS[int(random.integers(len(_LAYOUTS)))]
    lettering = _LETTERINGS[int(random.integers(len(_LETTERINGS)))]
    scale = float(random.uniform(0.9, 1.1))
    motifs = what.motifs.split()
    first = int(random.integers(len(motifs)))
    own = generator("sibling", seed, number)
    motif = motifs[(first + place) % len(motifs)]
    band = _colour(own.random(), own.uniform(0.55, 0.95), own.uniform(0.45, 0.95))
    title = f"{what.kind.capitalize()} {motif.capitalize()} {what.contents}"
    width, height, depth = (round(side * scale) for side in what.size_mm)
    return DemoProduct(
        sku=f"MORE-{seed:05d}-{number:05d}",
        gtin=gtin13(f"21{seed:05d}{number:05d}"),
        name=f"{brand} {title}",
        brand=brand,
        category=what.category,
        price=Decimal(round(float(own.uniform(*what.prices)) * 10) * 10 - 1) / 100,
        currency=CURRENCY,
        description=f"{title}. Invented by seed.",
        shape=what.shape,
        size_mm=(width, height, depth),
        design=Design(
            ground=ground,
            layout=layout,
            lettering=lettering,
            base=base,
            accent=accent,
            band=band,
            ink=ink,
            motif=motif,
            kind=what.kind,
            flavour=motif.capitalize(),
            contents=what.contents,
            body=band,
        ),
    )


def _colour(hue: float, saturation: float, value: float) -> str:
    """Turn hue (any number of turns), saturation and value (0 to 1) into "#rrggbb"."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
