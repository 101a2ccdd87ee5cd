"""Flat label art: what the printer gets, before anything is wrapped round a can or lit.

A label is a ground (the pattern behind), a panel (brand, motif, flavour and so on in their places) and small print
with a real EAN-13 bar code of the product's GTIN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from demo_catalogue.barcode import draw_barcode
from demo_catalogue.lettering import draw_word
from demo_catalogue.motifs import draw_motif
from demo_catalogue.patterns import draw_pattern
from demo_catalogue.products import DemoProduct, Design, Layout

Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2 as shares of the panel

_FINE = 2  # badges are drawn this many times larger, for ImageDraw does not smooth its edges


@dataclass(frozen=True)
class _Slots:
    brand: Rectangle
    kind: Rectangle
    motif: Rectangle
    flavour: Rectangle
    contents: Rectangle
    badge: bool = False
    upright: bool = False  # the brand runs from bottom to top


_TALL: dict[Layout, _Slots] = {
    "stacked": _Slots((0.02, 0.06, 0.98, 0.25), (0.12, 0.265, 0.88, 0.315), (0.03, 0.335, 0.97, 0.785),
        (0.04, 0.80, 0.96, 0.895), (0.3, 0.925, 0.7, 0.97)),
    "badge": _Slots((0.1, 0.12, 0.9, 0.25), (0.24, 0.262, 0.76, 0.3), (0.04, 0.37, 0.96, 0.81),
        (0.06, 0.82, 0.94, 0.905), (0.33, 0.935, 0.67, 0.972), badge=True),
    "tower": _Slots((0.02, 0.05, 0.46, 0.95), (0.5, 0.1, 0.98, 0.145), (0.47, 0.32, 1.0, 0.84),
        (0.48, 0.17, 1.0, 0.28), (0.55, 0.89, 0.95, 0.94), upright=True),
    "hero": _Slots((0.04, 0.05, 0.96, 0.2), (0.14, 0.215, 0.86, 0.265), (0.03, 0.39, 0.97, 0.93),
        (0.06, 0.285, 0.94, 0.38), (0.66, 0.935, 0.97, 0.975)),
    "ribbon": _Slots((0.02, 0.06, 0.98, 0.3), (0.1, 0.84, 0.9, 0.9), (0.1, 0.46, 0.9, 0.82),
        (0.0, 0.33, 1.0, 0.44), (0.34, 0.92, 0.66, 0.97)),
}  # fmt: skip
_WIDE: dict[Layout, _Slots] = {
    "stacked": _Slots((0.03, 0.08, 0.62, 0.42), (0.06, 0.46, 0.6, 0.56), (0.62, 0.08, 0.98, 0.92),
        (0.04, 0.62, 0.6, 0.82), (0.2, 0.87, 0.44, 0.95)),
    "badge": _Slots((0.1, 0.18, 0.56, 0.42), (0.14, 0.58, 0.52, 0.65), (0.63, 0.1, 0.97, 0.9),
        (0.06, 0.72, 0.6, 0.9), (0.8, 0.88, 0.97, 0.95), badge=True),
    "tower": _Slots((0.03, 0.1, 0.7, 0.44), (0.06, 0.84, 0.6, 0.93), (0.66, 0.06, 0.99, 0.92),
        (0.04, 0.54, 0.62, 0.76), (0.78, 0.86, 0.97, 0.94)),
    "hero": _Slots((0.44, 0.08, 0.98, 0.4), (0.46, 0.44, 0.96, 0.53), (0.02, 0.05, 0.42, 0.95),
        (0.46, 0.6, 0.97, 0.8), (0.6, 0.86, 0.82, 0.94)),
    "ribbon": _Slots((0.03, 0.08, 0.66, 0.48), (0.06, 0.85, 0.5, 0.94), (0.68, 0.06, 0.99, 0.94),
        (0.0, 0.55, 0.68, 0.78), (0.52, 0.85, 0.66, 0.94)),
}  # fmt: skip


def draw_front(
    product: DemoProduct, width: int, height: int, *, panel: tuple[float, float] = (0.92, 1.0)
) -> Image.Image:
    """Draw the side that faces the buyer.

    Args:
        product: Whose label.
        width: Pixels.
        height: Pixels.
        panel: The middle share of the width and of the height that brand, motif and words keep to.
    Returns:
        An RGB image whose left and right edges meet without a seam.
    """
    face = draw_pattern(product.design, width, height)
    inner_width, inner_height = round(width * panel[0]), round(height * panel[1])
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    _print_panel(_Panel(face, left, top, inner_width, inner_height), product)
    return face


def draw_wrap(product: DemoProduct, width: int, height: int) -> Image.Image:
    """Draw a label that goes round: the front twice, small print and bar code between.

    Returns:
        An RGB image; the middle column is the front's middle.
    """
    tile = draw_front(product, width // 2, height, panel=(0.66, 1.0))
    wrap = Image.new("RGB", (width, height))
    for place in (-1, 1, 3):
        wrap.paste(tile, (place * width // 4, 0))
    strip = max(8, round(width * 0.13))
    for centre in (0.25, 0.75):
        small = _small_print(product, strip, round(height * 0.8), barcode=centre < 0.5)
        wrap.paste(small, (round(width * centre) - strip // 2, round(height * 0.1)), small)
    return wrap


def draw_side(product: DemoProduct, width: int, height: int, *, barcode: bool) -> Image.Image:
    """Draw a narrow side or a back: the ground's colours, a small brand and the small print."""
    design = product.design
    side = Image.new("RGB", (width, height), design.base)
    pen = ImageDraw.Draw(side)
    pen.rectangle((0, round(height * 0.86), width, height), fill=design.band)
    word = _brand(product, round(width * 0.84), round(height * 0.13), design.ink)
    _Panel(side, 0, 0, width, height).put(word, (0.08, 0.05, 0.92, 0.18))
    small = _small_print(product, round(width * 0.84), round(height * 0.6), barcode=barcode)
    side.paste(small, (round(width * 0.08), round(height * 0.22)), small)
    return side


@dataclass(frozen=True)
class _Panel:
    """The part of a face that brand, motif and words keep to. Slots are shares of it."""

    face: Image.Image
    left: int
    top: int
    width: int
    height: int

    def box(self, slot: Rectangle) -> Rectangle:
        """The slot's edges in pixels of the face."""
        x1, y1, x2, y2 = slot
        return (
            self.left + x1 * self.width,
            self.top + y1 * self.height,
            self.left + x2 * self.width,
            self.top + y2 * self.height,
        )

    def size(self, slot: Rectangle) -> tuple[int, int]:
        """Width and height of a slot in pixels."""
        x1, y1, x2, y2 = slot
        return round((x2 - x1) * self.width), round((y2 - y1) * self.height)

    def put(self, drawn: Image.Image, slot: Rectangle) -> None:
        """Paste a drawing into the middle of its slot."""
        x = self.left + (slot[0] + slot[2]) / 2 * self.width - drawn.width / 2
        y = self.top + (slot[1] + slot[3]) / 2 * self.height - drawn.height / 2
        self.face.paste(drawn, (round(x), round(y)), drawn)

    def colour_behind(self, slot: Rectangle) -> str:
        """The colour that the face has at the middle of a slot's upper edge, as "#rrggbb"."""
        x = min(self.face.width - 1, round(self.left + (slot[0] + slot[2]) / 2 * self.width))
        y = min(self.face.height - 1, round(self.top + slot[1] * self.height))
        return "#" + self.face.crop((x, y, x + 1, y + 1)).tobytes().hex()


def _print_panel(panel: _Panel, product: DemoProduct) -> None:
    design = product.design
    slots = (_WIDE if panel.width > 1.15 * panel.height else _TALL)[design.layout]
    on_band = _ink_on(design.band)
    if slots.badge:
        _print_badge(panel, slots.brand, design)
    panel.put(draw_motif(design.motif, max(8, min(panel.size(slots.motif)))), slots.motif)

    width, height = panel.size(slots.brand)
    ink = on_band if slots.badge else design.ink
    if slots.upright:
        word = _brand(product, height, width, ink).transpose(Image.Transpose.ROTATE_90)
    else:
        word = _brand(product, width, height, ink)
    panel.put(word, slots.brand)

    x1, y1, x2, y2 = panel.box(slots.flavour)
    rim = max(1, round(panel.height * 0.004))
    pen = ImageDraw.Draw(panel.face)
    pen.rounded_rectangle((x1, y1, x2, y2), 0.3 * (y2 - y1), fill=design.band, outline=on_band, width=rim)
    width, height = panel.size(slots.flavour)
    panel.put(draw_word(design.flavour, round(0.86 * width), round(0.66 * height), on_band), slots.flavour)
    for text, slot in ((design.kind, slots.kind), (design.contents, slots.contents)):
        panel.put(draw_word(text, *panel.size(slot), _ink_on(panel.colour_behind(slot)), style="light"), slot)


def _brand(product: DemoProduct, width: int, height: int, ink: str) -> Image.Image:
    design = product.design
    return draw_word(product.brand, width, height, ink, style=design.lettering, outline=design.accent)


def _print_badge(panel: _Panel, brand: Rectangle, design: Design) -> None:
    """Print an oval, in the band's colour, round the brand and the line below it."""
    x1, y1, x2, y2 = brand
    x1, y1, x2, y2 = panel.box((x1 - 0.07, y1 - 0.075, x2 + 0.07, y2 + 0.1))
    w, h = max(4, round(x2 - x1)) * _FINE, max(4, round(y2 - y1)) * _FINE
    oval = Image.new("RGBA", (w, h))
    pen = ImageDraw.Draw(oval)
    pen.ellipse((0, 0, w - 1, h - 1), fill=design.accent)
    inset, rim = round(0.035 * w), max(1, round(0.012 * w))
    pen.ellipse((inset, inset, w - 1 - inset, h - 1 - inset), fill=design.band, outline="#ffffff", width=rim)
    smooth = oval.reduce(_FINE)
    panel.face.paste(smooth, (round(x1), round(y1)), smooth)


def _small_print(product: DemoProduct, width: int, height: int, *, barcode: bool) -> Image.Image:
    """Lines of text too small to read, a table, and the bar code."""
    sheet = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(sheet)
    ink = _ink_on(product.design.base)
    line = max(3, height // 46)
    words = np.random.Generator(np.random.PCG64(int(product.gtin))).integers(55, 101, size=64) / 100
    for row, share in enumerate(words[: 24 if barcode else 40]):
        y = row * line * 1.05 + (line if row > 8 else 0)
        if y > height * (0.6 if barcode else 0.98):
            break
        x = 0.0
        while x < width * float(share) - line:
            run = min(line * (1.2 + 3 * float(words[(row * 7 + int(x)) % 64])), width * float(share) - x)
            pen.line((x, y, x + run * 0.8, y), fill=ink, width=max(1, line // 3))
            x += run
    if barcode:
        bars = draw_barcode(product.gtin, width, max(8, round(min(height * 0.3, width * 0.7))))
        sheet.paste(bars, ((width - bars.width) // 2, round(height * 0.97) - bars.height))
    return sheet


def _ink_on(colour: str) -> str:
    """Choose dark or light ink, whichever reads better on a colour (luma of ITU-R BT.601)."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "#1d1b1a" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#fffdf6"
