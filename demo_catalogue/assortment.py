"""The demo catalogue's products. Some differ only by a detail, as products on a shelf do.

Brands, names and prices are made up; as far as a search could tell, no brand of these names exists.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from decimal import Decimal

from demo_catalogue.products import CURRENCY, DemoProduct, Design, Ground, Layout, Lettering, Shape, gtin13


@dataclass(frozen=True)
class _Variety:
    """One product of a line; what is left empty is as in the line."""

    sku: str
    flavour: str
    motif: str
    band: str
    base: str = ""
    ink: str = ""
    contents: str = ""
    price: str = ""
    height_mm: float = 0


@dataclass(frozen=True)
class _Line:
    """What the varieties of one product share. Without a colour for its body, that takes the band's."""

    brand: str
    kind: str
    category: str
    price: str
    contents: str
    shape: Shape
    size_mm: tuple[float, float, float]
    style: tuple[Ground, Layout, Lettering]
    base: str
    accent: str
    ink: str
    body: str
    varieties: tuple[_Variety, ...]


@functools.cache
def list_products() -> tuple[DemoProduct, ...]:
    """List the demo catalogue.

    Returns:
        The same products in the same order every time; SKUs and GTINs are unique.
    """
    pairs = [(line, variety) for line in _LINES for variety in line.varieties]
    return tuple(_product(line, variety, number) for number, (line, variety) in enumerate(pairs, start=1))


def _product(line: _Line, variety: _Variety, number: int) -> DemoProduct:
    width, height, depth = line.size_mm
    contents = variety.contents or line.contents
    title = f"{line.kind.capitalize()} {variety.flavour} {contents}"
    ground, layout, lettering = line.style
    return DemoProduct(
        sku=variety.sku,
        gtin=gtin13(f"20{number:010d}"),
        name=f"{line.brand} {title}",
        brand=line.brand,
        category=line.category,
        price=Decimal(variety.price or line.price),
        currency=CURRENCY,
        description=f"{title}. Invented for the demo.",
        shape=line.shape,
        size_mm=(width, variety.height_mm or height, depth),
        design=Design(
            ground=ground,
            layout=layout,
            lettering=lettering,
            base=variety.base or line.base,
            accent=line.accent,
            band=variety.band,
            ink=variety.ink or line.ink,
            motif=variety.motif,
            kind=line.kind,
            flavour=variety.flavour,
            contents=contents,
            body=line.body or variety.band,
        ),
    )


# A table, kept in columns: brand, kind, category, price, contents, shape, size, style, base, accent, ink, body.
# fmt: off
_LINES: tuple[_Line, ...] = (
    # One can in four flavours: only the band and the fruit differ. Two of the flavours also come in bottles.
    _Line("Zitruvo", "sparkling soda", "Soft drinks", "0.89", "330 ml", "can", (66, 115, 66),
          ("wave", "stacked", "italic"), "#f4f1ea", "#12306b", "#12306b", "#c9ccd0", (
        _Variety("SODA-LEMON-CAN", "Lemon", "lemon", "#f2c500"),
        _Variety("SODA-ORANGE-CAN", "Orange", "orange", "#f07a00"),
        _Variety("SODA-CHERRY-CAN", "Cherry", "cherry", "#c01030"),
        _Variety("SODA-LIME-CAN", "Lime", "lime", "#5fae1e"))),
    _Line("Zitruvo", "sparkling soda", "Soft drinks", "1.49", "0.5 L", "bottle", (66, 230, 66),
          ("wave", "ribbon", "italic"), "#f4f1ea", "#12306b", "#12306b", "", (
        _Variety("SODA-LEMON-PET", "Lemon", "lemon", "#f2c500"),
        _Variety("SODA-ORANGE-PET", "Orange", "orange", "#f07a00"))),
    _Line("Brakzuma", "energy drink", "Soft drinks", "1.29", "250 ml", "slim_can", (53, 135, 53),
          ("diagonal", "tower", "condensed"), "#15171c", "#d61f2c", "#e5ff00", "#b9bdc2", (
        _Variety("ENERGY-ORIGINAL", "Original", "bolt", "#e5ff00"),
        _Variety("ENERGY-ZERO", "Zero Sugar", "bolt", "#15171c", base="#dfe3e6", ink="#15171c"))),
    _Line("Ondaverra", "mineral water", "Water", "0.69", "0.5 L", "bottle", (64, 220, 64),
          ("hills", "ribbon", "wide"), "#dff0fa", "#ffffff", "#1c6fb8", "#cfe6f2", (
        _Variety("WATER-STILL", "Still", "drop", "#1c6fb8"),
        _Variety("WATER-SPARKLING", "Sparkling", "drop", "#12885a", base="#dff5ea", ink="#12885a"))),
    # Two sizes of one milk, and a sibling that differs by its blue.
    _Line("Almwenka", "fresh milk", "Dairy", "1.39", "1 L", "gable_carton", (72, 235, 72),
          ("hills", "badge", "arched"), "#fbfbf6", "#3c8f3f", "#ffffff", "#fbfbf6", (
        _Variety("MILK-WHOLE-1L", "Whole 3.5%", "cow", "#1f4fa3"),
        _Variety("MILK-WHOLE-500", "Whole 3.5%", "cow", "#1f4fa3", contents="0.5 L", price="0.85", height_mm=150),
        _Variety("MILK-LIGHT-1L", "Light 1.5%", "cow", "#48a7dc", price="1.29"))),
    _Line("Havrelin", "oat drink", "Dairy alternatives", "1.89", "1 L", "brick_carton", (72, 200, 68),
          ("split", "hero", "light"), "#f3ead8", "#2d2a26", "#2d2a26", "#f4f1ea", (
        _Variety("OAT-NATURAL", "Natural", "oat", "#d7b98a"),
        _Variety("OAT-COCOA", "Cocoa", "cocoa", "#6b3d1e", price="2.09"))),
    _Line("Pomolkin", "fruit juice", "Juice", "1.99", "1 L", "brick_carton", (90, 196, 62),
          ("burst", "hero", "outlined"), "#fff6dc", "#a3160f", "#ffe08a", "#ffffff", (
        _Variety("JUICE-APPLE", "Apple", "apple", "#7fb21c"),
        _Variety("JUICE-ORANGE", "Orange", "orange", "#f48a0c"),
        _Variety("JUICE-GRAPE", "Red Grape", "grape", "#6a1b4d"))),
    _Line("Krispado", "potato crisps", "Snacks", "1.79", "150 g", "pillow_bag", (190, 270, 60),
          ("burst", "badge", "bold"), "#2f7fc1", "#ffd21f", "#fff7d8", "", (
        _Variety("CRISPS-SALT", "Sea Salt", "potato", "#2f7fc1"),
        _Variety("CRISPS-PAPRIKA", "Paprika", "chilli", "#c62020", base="#c62020"),
        _Variety("CRISPS-ONION", "Cream & Onion", "onion", "#3f9142", base="#3f9142"))),
    _Line("Morvanto", "ground coffee", "Coffee and tea", "6.49", "500 g", "block_bag", (90, 235, 60),
          ("frame", "stacked", "wide"), "#241611", "#c9963b", "#f3e3c3", "#241611", (
        _Variety("COFFEE-DARK", "Dark Roast", "bean", "#c9963b"),
        _Variety("COFFEE-MILD", "Mild Roast", "bean", "#c9963b", base="#7a4a25"),
        _Variety("COFFEE-DECAF", "Decaf", "bean", "#5da284"))),
    _Line("Quillenor", "tea, 20 bags", "Coffee and tea", "2.29", "35 g", "box", (126, 78, 68),
          ("check", "badge", "light"), "#f7f0df", "#b08a3c", "#fdf8ea", "#f7f0df", (
        _Variety("TEA-BLACK", "Black", "teacup", "#8a1c1c"),
        _Variety("TEA-GREEN", "Green", "leaf", "#4d8b31"),
        _Variety("TEA-MINT", "Mint", "mint", "#159a86"))),
    _Line("Crunchaby", "crunchy hoops", "Breakfast", "3.19", "375 g", "box", (190, 280, 62),
          ("burst", "hero", "outlined"), "#ffcf33", "#d3222a", "#ffffff", "#ffcf33", (
        _Variety("CEREAL-HONEY", "Honey", "honey", "#e9a400"),
        _Variety("CEREAL-CHOCOLATE", "Chocolate", "cocoa", "#5a2d14"))),
    _Line("Tavoretti", "durum pasta", "Pasta and sauces", "1.15", "500 g", "box", (112, 190, 52),
          ("split", "hero", "italic"), "#123a7a", "#d8a227", "#ffffff", "#123a7a", (
        _Variety("PASTA-PENNE", "Penne", "penne", "#f1ede2"),
        _Variety("PASTA-FUSILLI", "Fusilli", "fusilli", "#f1ede2"))),
    _Line("Tavoretti", "tomato sauce", "Pasta and sauces", "2.49", "400 g", "jar", (78, 142, 78),
          ("frame", "stacked", "italic"), "#f6efdf", "#d8a227", "#123a7a", "#a32015", (
        _Variety("SAUCE-BASILICO", "Basilico", "basil", "#3c8d2f"),
        _Variety("SAUCE-ARRABBIATA", "Arrabbiata", "chilli", "#d11a1a"))),
    _Line("Grandosolo", "garden choice", "Tinned food", "0.95", "400 g", "tin", (74, 110, 74),
          ("stripes", "badge", "arched"), "#b81f16", "#f2d27a", "#b81f16", "#b9bdc2", (
        _Variety("TIN-TOMATOES", "Tomatoes", "tomato", "#fdf6e3"),
        _Variety("TIN-SWEETCORN", "Sweetcorn", "corn", "#fdf6e3", base="#0f7a4c"),
        _Variety("TIN-BEANS", "Red Beans", "beans", "#fdf6e3", base="#6d1024"))),
    _Line("Sunnavik", "tuna pieces", "Tinned food", "1.69", "160 g", "flat_tin", (84, 42, 84),
          ("wave", "ribbon", "bold"), "#0d3b66", "#ffffff", "#ffffff", "#c9ccd0", (
        _Variety("TUNA-OIL", "in Oil", "fish", "#e0a81c"),
        _Variety("TUNA-BRINE", "in Brine", "fish", "#2aa5c4"))),
    _Line("Yolminka", "creamy yoghurt", "Dairy", "0.59", "180 g", "tub", (76, 84, 76),
          ("split", "hero", "bold"), "#ffffff", "#1d6fa5", "#1d6fa5", "", (
        _Variety("YOGHURT-STRAWBERRY", "Strawberry", "strawberry", "#e0405e"),
        _Variety("YOGHURT-BLUEBERRY", "Blueberry", "blueberry", "#4a55a8"),
        _Variety("YOGHURT-VANILLA", "Vanilla", "flower", "#e7c65a"))),
    _Line("Glimbrosa", "washing-up liquid", "Household", "1.59", "500 ml", "squeeze_bottle", (74, 225, 46),
          ("burst", "stacked", "outlined"), "#eaf4fb", "#ffffff", "#1457a8", "", (
        _Variety("DISH-LEMON", "Lemon", "lemon", "#f4e04d"),
        _Variety("DISH-ALOE", "Aloe", "leaf", "#7fd1a4"))),
    _Line("Kakalunda", "chocolate", "Sweets", "1.19", "100 g", "box", (82, 164, 11),
          ("frame", "stacked", "wide"), "#5b2a86", "#f2b8c6", "#f6e7c8", "", (
        _Variety("CHOC-MILK", "Milk", "cocoa", "#f2b8c6"),
        _Variety("CHOC-DARK", "Dark 70%", "cocoa", "#c99a45", base="#2b1a14"))),
)
# fmt: on
