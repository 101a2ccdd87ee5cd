"""The invented products: what they are called, what they cost, and what their packaging is to look like.

Brands, names and prices are made up. The GTINs carry GS1's prefixes 20 to 29, which are kept for numbers inside
one company and so belong to nobody. Drawing is elsewhere: here are only facts and the parameters of a design.
"""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from demo_catalogue.randomness import generator

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
Ground = Literal["plain", "gradient", "wave", "stripes", "diagonal", "burst", "hills", "check", "dots", "frame", "split"]
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
        raise ValueError(f"a GTIN-13 is made of 12 digits and a check digit; found {first_twelve!r}, want 12 digits")
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(first_twelve))
    return first_twelve + str(-weighted % 10)


@functools.cache
def list_products() -> tuple[DemoProduct, ...]:
    """List the demo catalogue.

    Returns:
        The same products in the same order every time; SKUs and GTINs are unique.
    """
    products: list[DemoProduct] = []

    def add(
        sku: str,
        brand: str,
        category: str,
        price: str,
        shape: Shape,
        size_mm: tuple[float, float, float],
        design: Design,
    ) -> None:
        title = f"{brand} {design.kind.capitalize()} {design.flavour} {design.contents}"
        products.append(
            DemoProduct(
                sku=sku,
                gtin=gtin13(f"20{len(products) + 1:010d}"),
                name=title,
                brand=brand,
                category=category,
                price=Decimal(price),
                currency=CURRENCY,
                description=f"{design.kind.capitalize()}, {design.flavour.lower()}, {design.contents}. Invented for the demo.",
                shape=shape,
                size_mm=size_mm,
                design=design,
            )
        )

    # Soda: one white can in four flavours; only the band and the fruit differ. Two of them also in bottles.
    sodas = [("Lemon", "#f2c500", "lemon"), ("Orange", "#f07a00", "orange"), ("Cherry", "#c01030", "cherry"), ("Lime", "#5fae1e", "lime")]
    for flavour, band, motif in sodas:
        add(f"SODA-{flavour.upper()}-CAN", "Zitruvo", "Soft drinks", "0.89", "can", (66, 115, 66),
            Design("wave", "stacked", "italic", "#f4f1ea", "#12306b", band, "#12306b", motif, "sparkling soda", flavour, "330 ml", "#c9ccd0"))
    for flavour, band, motif in sodas[:2]:
        add(f"SODA-{flavour.upper()}-PET", "Zitruvo", "Soft drinks", "1.49", "bottle", (66, 230, 66),
            Design("wave", "ribbon", "italic", "#f4f1ea", "#12306b", band, "#12306b", motif, "sparkling soda", flavour, "0.5 L", band))
    for flavour, base, band, ink in [("Original", "#15171c", "#e5ff00", "#e5ff00"), ("Zero Sugar", "#dfe3e6", "#15171c", "#15171c")]:
        add(f"ENERGY-{flavour.split()[0].upper()}", "Brakzuma", "Soft drinks", "1.29", "slim_can", (53, 135, 53),
            Design("diagonal", "tower", "condensed", base, "#d61f2c", band, ink, "bolt", "energy drink", flavour, "250 ml", "#b9bdc2"))
    for flavour, base, band in [("Still", "#dff0fa", "#1c6fb8"), ("Sparkling", "#dff5ea", "#12885a")]:
        add(f"WATER-{flavour.upper()}", "Ondaverra", "Water", "0.69", "bottle", (64, 220, 64),
            Design("hills", "ribbon", "wide", base, "#ffffff", band, band, "drop", "mineral water", flavour, "0.5 L", "#cfe6f2"))
    # Milk: two sizes of one design, and a sibling that differs by its blue.
    for sku, flavour, contents, price, size, band in [
        ("MILK-WHOLE-1L", "Whole 3.5%", "1 L", "1.39", (72.0, 235.0, 72.0), "#1f4fa3"),
        ("MILK-WHOLE-500", "Whole 3.5%", "0.5 L", "0.85", (72.0, 150.0, 72.0), "#1f4fa3"),
        ("MILK-LIGHT-1L", "Light 1.5%", "1 L", "1.29", (72.0, 235.0, 72.0), "#48a7dc"),
    ]:
        add(sku, "Almwenka", "Dairy", price, "gable_carton", size,
            Design("hills", "badge", "arched", "#fbfbf6", "#3c8f3f", band, "#ffffff", "cow", "fresh milk", flavour, contents, "#fbfbf6"))
    for flavour, band, motif, price in [("Natural", "#d7b98a", "oat", "1.89"), ("Cocoa", "#6b3d1e", "cocoa", "2.09")]:
        add(f"OAT-{flavour.upper()}", "Havrelin", "Dairy alternatives", price, "brick_carton", (72, 200, 68),
            Design("split", "hero", "light", "#f3ead8", "#2d2a26", band, "#2d2a26", motif, "oat drink", flavour, "1 L", "#f4f1ea"))
    for flavour, band, motif in [("Apple", "#7fb21c", "apple"), ("Orange", "#f48a0c", "orange"), ("Red Grape", "#6a1b4d", "grape")]:
        add(f"JUICE-{flavour.split()[-1].upper()}", "Pomolkin", "Juice", "1.99", "brick_carton", (90, 196, 62),
            Design("burst", "hero", "outlined", "#fff6dc", "#a3160f", band, "#ffe08a", motif, "fruit juice", flavour, "1 L", "#ffffff"))
    for flavour, band, motif, base in [("Sea Salt", "#2f7fc1", "potato", "#2f7fc1"), ("Paprika", "#c62020", "chilli", "#c62020"),
                                       ("Cream & Onion", "#3f9142", "onion", "#3f9142")]:
        add(f"CRISPS-{flavour.split()[-1].upper()}", "Krispado", "Snacks", "1.79", "pillow_bag", (190, 270, 60),
            Design("burst", "badge", "bold", base, "#ffd21f", band, "#fff7d8", motif, "potato crisps", flavour, "150 g", base))
    for flavour, band, base in [("Dark Roast", "#c9963b", "#241611"), ("Mild Roast", "#c9963b", "#7a4a25"), ("Decaf", "#5da284", "#241611")]:
        add(f"COFFEE-{flavour.split()[0].upper()}", "Morvanto", "Coffee and tea", "6.49", "block_bag", (90, 235, 60),
            Design("frame", "stacked", "wide", base, band, band, "#f3e3c3", "bean", "ground coffee", flavour, "500 g", base))
    for flavour, band, motif in [("Black", "#8a1c1c", "teacup"), ("Green", "#4d8b31", "leaf"), ("Mint", "#159a86", "mint")]:
        add(f"TEA-{flavour.upper()}", "Quillenor", "Coffee and tea", "2.29", "box", (126, 78, 68),
            Design("check", "badge", "light", "#f7f0df", "#b08a3c", band, "#fdf8ea", motif, "tea, 20 bags", flavour, "35 g", "#f7f0df"))
    for flavour, band, motif, base in [("Honey", "#e9a400", "honey", "#ffcf33"), ("Chocolate", "#5a2d14", "cocoa", "#ffcf33")]:
        add(f"CEREAL-{flavour.upper()}", "Crunchaby", "Breakfast", "3.19", "box", (190, 280, 62),
            Design("burst", "hero", "outlined", base, "#d3222a", band, "#ffffff", motif, "crunchy hoops", flavour, "375 g", base))
    for flavour, motif in [("Penne", "penne"), ("Fusilli", "fusilli")]:
        add(f"PASTA-{flavour.upper()}", "Tavoretti", "Pasta and sauces", "1.15", "box", (112, 190, 52),
            Design("split", "hero", "italic", "#123a7a", "#d8a227", "#f1ede2", "#ffffff", motif, "durum pasta", flavour, "500 g", "#123a7a"))
    for flavour, band, motif in [("Basilico", "#3c8d2f", "basil"), ("Arrabbiata", "#d11a1a", "chilli")]:
        add(f"SAUCE-{flavour.upper()}", "Tavoretti", "Pasta and sauces", "2.49", "jar", (78, 142, 78),
            Design("frame", "stacked", "italic", "#f6efdf", "#d8a227", band, "#123a7a", motif, "tomato sauce", flavour, "400 g", "#a32015"))
    for flavour, base, motif in [("Tomatoes", "#b81f16", "tomato"), ("Sweetcorn", "#0f7a4c", "corn"), ("Red Beans", "#6d1024", "beans")]:
        add(f"TIN-{flavour.split()[-1].upper()}", "Grandosolo", "Tinned food", "0.95", "tin", (74, 110, 74),
            Design("stripes", "badge", "arched", base, "#f2d27a", "#fdf6e3", "#b81f16", motif, "garden choice", flavour, "400 g", "#b9bdc2"))
    for flavour, band in [("in Oil", "#e0a81c"), ("in Brine", "#2aa5c4")]:
        add(f"TUNA-{flavour.split()[-1].upper()}", "Sunnavik", "Tinned food", "1.69", "flat_tin", (84, 42, 84),
            Design("wave", "ribbon", "bold", "#0d3b66", "#ffffff", band, "#ffffff", "fish", "tuna pieces", flavour, "160 g", "#c9ccd0"))
    for flavour, band, motif in [("Strawberry", "#e0405e", "strawberry"), ("Blueberry", "#4a55a8", "blueberry"), ("Vanilla", "#e7c65a", "flower")]:
        add(f"YOGHURT-{flavour.upper()}", "Yolminka", "Dairy", "0.59", "tub", (76, 84, 76),
            Design("split", "hero", "bold", "#ffffff", "#1d6fa5", band, "#1d6fa5", motif, "creamy yoghurt", flavour, "180 g", band))
    for flavour, band, motif in [("Lemon", "#f4e04d", "lemon"), ("Aloe", "#7fd1a4", "leaf")]:
        add(f"DISH-{flavour.upper()}", "Glimbrosa", "Household", "1.59", "squeeze_bottle", (74, 225, 46),
            Design("burst", "stacked", "outlined", "#eaf4fb", "#ffffff", band, "#1457a8", motif, "washing-up liquid", flavour, "500 ml", band))
    for flavour, base, band in [("Milk", "#5b2a86", "#f2b8c6"), ("Dark 70%", "#2b1a14", "#c99a45")]:
        add(f"CHOC-{flavour.split()[0].upper()}", "Kakalunda", "Sweets", "1.19", "box", (82, 164, 11),
            Design("frame", "stacked", "wide", base, band, band, "#f6e7c8", "cocoa", "chocolate", flavour, "100 g", base))
    return tuple(products)


_SYLLABLES = ("ba", "bri", "co", "dal", "del", "dro", "fa", "fel", "gri", "ha", "jo", "ka", "kor", "la", "lin", "lu",
              "ma", "mer", "mi", "na", "nor", "o", "pa", "per", "qui", "ra", "ri", "sa", "sol", "ta", "ti", "tor",
              "u", "va", "ver", "vo", "wen", "xa", "yo", "za", "zel", "zi")  # fmt: skip
_ENDINGS = ("lo", "ra", "no", "vik", "mar", "ella", "ino", "ux", "by", "sen", "ta", "go")
_GROUNDS: tuple[Ground, ...] = ("plain", "gradient", "wave", "stripes", "diagonal", "burst", "hills", "check", "dots", "frame", "split")
_LAYOUTS: tuple[Layout, ...] = ("stacked", "badge", "tower", "hero", "ribbon")
_LETTERINGS: tuple[Lettering, ...] = ("bold", "italic", "condensed", "wide", "arched", "outlined", "light")
# Shape, its usual size in mm, what is sold in it, contents, price range, what may be drawn on it.
_KINDS: tuple[tuple[Shape, tuple[float, float, float], str, str, str, tuple[float, float], tuple[str, ...]], ...] = (
    ("can", (66, 115, 66), "soft drink", "Soft drinks", "330 ml", (0.6, 1.5), ("lemon", "orange", "lime", "cherry", "apple", "grape")),
    ("slim_can", (53, 135, 53), "energy drink", "Soft drinks", "250 ml", (0.9, 2.0), ("bolt", "lemon", "cherry", "blueberry")),
    ("bottle", (66, 230, 66), "drink", "Soft drinks", "0.5 L", (0.6, 2.0), ("drop", "lemon", "orange", "apple", "mint")),
    ("tin", (74, 110, 74), "tinned vegetables", "Tinned food", "400 g", (0.6, 2.2), ("tomato", "corn", "beans", "onion")),
    ("flat_tin", (84, 42, 84), "fish", "Tinned food", "160 g", (1.0, 3.0), ("fish", "tomato", "lemon")),
    ("jar", (78, 142, 78), "preserve", "Spreads", "350 g", (1.5, 5.0), ("strawberry", "cherry", "honey", "orange", "tomato", "basil")),
    ("tub", (76, 84, 76), "yoghurt", "Dairy", "180 g", (0.4, 1.2), ("strawberry", "blueberry", "flower", "apple", "cherry")),
    ("gable_carton", (72, 235, 72), "milk", "Dairy", "1 L", (0.8, 2.0), ("cow", "drop", "oat")),
    ("brick_carton", (90, 196, 62), "juice", "Juice", "1 L", (1.0, 3.0), ("apple", "orange", "grape", "lemon", "oat")),
    ("box", (150, 220, 55), "biscuits", "Biscuits", "250 g", (1.0, 4.0), ("cocoa", "honey", "oat", "strawberry", "flower")),
    ("box", (126, 78, 68), "tea", "Coffee and tea", "40 g", (1.5, 4.0), ("leaf", "mint", "teacup", "flower", "lemon")),
    ("pillow_bag", (180, 260, 55), "snacks", "Snacks", "150 g", (0.9, 3.0), ("potato", "chilli", "onion", "corn")),
    ("block_bag", (90, 235, 60), "coffee", "Coffee and tea", "500 g", (3.0, 9.0), ("bean", "cocoa", "leaf", "oat")),
    ("squeeze_bottle", (74, 225, 46), "cleaner", "Household", "500 ml", (0.9, 3.5), ("lemon", "leaf", "drop", "flower")),
)  # fmt: skip


def more_products(n: int, seed: int) -> tuple[DemoProduct, ...]:
    """Invent any number of further products, none of them in the demo catalogue.

    Products come in families of one to four siblings that share brand, shape and design and differ in band colour
    and motif, as in the demo catalogue. Product i depends on the seed and on i only.

    Args:
        n: How many, 0 to 99,999.
        seed: Another seed, other products; 0 to 99,999.
    Returns:
        n products with unique SKUs and GTINs.
    Raises:
        ValueError: n or seed out of range.
    """
    for title, value in (("n", n), ("seed", seed)):
        if not 0 <= value <= 99_999:
            raise ValueError(f"{title} is {value}; want 0 to 99999, for the GTIN has five digits for it")
    return tuple(_invent(index, seed) for index in range(n))


_FAMILY = 4  # consecutive indices that may be siblings


def _invent(index: int, seed: int) -> DemoProduct:
    family = generator("family", seed, index // _FAMILY)
    siblings = int(family.integers(1, _FAMILY + 1))
    place = index % _FAMILY
    if place >= siblings:  # an only child: a family of its own
        family = generator("family", seed, index // _FAMILY, place)
    shape, size, kind, category, contents, (low, high), motifs = _KINDS[int(family.integers(len(_KINDS)))]
    syllables = [str(family.choice(_SYLLABLES)) for _ in range(int(family.integers(2, 4)))]
    brand = ("".join(syllables) + str(family.choice(_ENDINGS))).capitalize()
    base_hue = float(family.random())
    pale = bool(family.random() < 0.4)
    base = _colour(base_hue, 0.12 if pale else float(family.uniform(0.5, 0.95)), 0.96 if pale else float(family.uniform(0.3, 0.85)))
    accent = _colour(base_hue + float(family.uniform(0.3, 0.7)), float(family.uniform(0.4, 0.9)), float(family.uniform(0.3, 0.95)))
    ink = _colour(base_hue + float(family.uniform(0.4, 0.6)), 0.8, 0.3) if pale else _colour(base_hue + 0.5, 0.06, 0.98)
    ground = _GROUNDS[int(family.integers(len(_GROUNDS)))]
    layout = _LAYOUTS[int(family.integers(len(_LAYOUTS)))]
    lettering = _LETTERINGS[int(family.integers(len(_LETTERINGS)))]
    scale = float(family.uniform(0.9, 1.1))
    own = generator("sibling", seed, index)
    motif = motifs[place % len(motifs)] if place < siblings else str(own.choice(motifs))
    band = _colour(float(own.random()), float(own.uniform(0.55, 0.95)), float(own.uniform(0.45, 0.95)))
    price = Decimal(round(float(own.uniform(low, high)) * 10) * 10 - 1) / 100
    return DemoProduct(
        sku=f"MORE-{seed:05d}-{index:05d}",
        gtin=gtin13(f"21{seed:05d}{index:05d}"),
        name=f"{brand} {kind.capitalize()} {motif.capitalize()} {contents}",
        brand=brand,
        category=category,
        price=price,
        currency=CURRENCY,
        description=f"{kind.capitalize()}, {motif}, {contents}. Invented by seed.",
        shape=shape,
        size_mm=(size[0] * scale, size[1] * scale, size[2] * scale),
        design=Design(ground, layout, lettering, base, accent, band, ink, motif, kind, motif.capitalize(), contents, band),
    )


def _colour(hue: float, saturation: float, value: float) -> str:
    """Turn hue (any number of turns), saturation and value (0 to 1) into "#rrggbb"."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
