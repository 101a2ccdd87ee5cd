"""Flat label art: what the printer gets, before anything is wrapped round a can or lit.

A label is a ground (the pattern behind), a panel (brand, motif, flavour and so on in their places) and small print
with a real EAN-13 bar code of the product's GTIN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from demo_catalogue.lettering import draw_word
from demo_catalogue.motifs import draw_motif
from demo_catalogue.products import DemoProduct, Design, Layout

Rgb = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2 as shares of the panel

_FINE = 2  # grounds are drawn this many times larger, for ImageDraw does not smooth its edges


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
    face = _ground(product.design, width, height)
    inner_width, inner_height = round(width * panel[0]), round(height * panel[1])
    _print_panel(
        face, product, ((width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height)
    )
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
    word = draw_word(
        product.brand,
        round(width * 0.84),
        round(height * 0.13),
        design.ink,
        style=design.lettering,
        outline=design.accent,
    )
    _place(side, word, (0.08, 0.05, 0.92, 0.18), 0, 0, width, height)
    small = _small_print(product, round(width * 0.84), round(height * 0.6), barcode=barcode)
    side.paste(small, (round(width * 0.08), round(height * 0.22)), small)
    return side


def _ground(design: Design, width: int, height: int) -> Image.Image:
    w, h = width * _FINE, height * _FINE
    base, band, accent = (
        ImageColor.getrgb(colour)[:3] for colour in (design.base, design.band, design.accent)
    )
    light, dark = _mixed(base, (255, 255, 255), 0.22), _mixed(base, (0, 0, 0), 0.12)
    sheet = Image.new("RGB", (w, h), base)
    pen = ImageDraw.Draw(sheet)
    xs = np.linspace(0, w, 97)

    def below(level: float, swing: float, waves: int, colour: Rgb, shift: float = 0.0) -> None:
        ys = h * (level + swing * np.sin(2 * np.pi * (waves * xs / w + shift)))
        pen.polygon([(0, h), *zip(xs.tolist(), ys.tolist(), strict=True), (w, h)], fill=colour)

    match design.ground:
        case "plain":
            pen.rectangle((0, round(h * 0.79), w, round(h * 0.91)), fill=band)
            pen.rectangle((0, round(h * 0.775), w, round(h * 0.783)), fill=accent)
        case "gradient":
            ramp = np.linspace(0, 1, h)[:, None] ** 1.5
            rows = np.asarray(light) * (1 - ramp) + np.asarray(_mixed(base, band, 0.75)) * ramp
            sheet = Image.fromarray(np.repeat(rows[:, None].astype(np.uint8), w, axis=1))
        case "wave":
            below(0.585, 0.035, 1, accent, 0.02)
            below(0.605, 0.045, 1, band)
            below(0.93, 0.02, 1, _mixed(band, (0, 0, 0), 0.25), 0.4)
            pen.rectangle((0, 0, w, round(h * 0.025)), fill=band)
        case "stripes":
            for stripe in range(0, 16, 2):
                pen.rectangle(
                    (w * stripe / 16, 0, w * (stripe + 1) / 16, h), fill=_mixed(base, (255, 255, 255), 0.1)
                )
            pen.rectangle((0, round(h * 0.8), w, round(h * 0.965)), fill=band)
            for level in (0.02, 0.775, 0.975):
                pen.rectangle((0, round(h * level), w, round(h * (level + 0.015))), fill=accent)
        case "diagonal":
            for copy in (-1, 0, 1):
                for start, thick, colour in ((0.05, 0.34, accent), (0.45, 0.1, band), (0.62, 0.04, light)):
                    left = (copy + start) * w
                    pen.polygon(
                        [
                            (left, h),
                            (left + thick * w, h),
                            (left + thick * w + 0.6 * w, 0),
                            (left + 0.6 * w, 0),
                        ],
                        fill=colour,
                    )
        case "burst":
            _rays(pen, w, h, (0.5, 0.6), light)
            below(0.9, 0.015, 2, band)
        case "hills":
            rows = np.linspace(0, 1, h)[:, None]
            tint = np.asarray(_mixed(base, band, 0.35)) * (1 - rows) + np.asarray(base) * rows
            sheet = Image.fromarray(np.repeat(tint[:, None].astype(np.uint8), w, axis=1))
            pen = ImageDraw.Draw(sheet)
            below(0.74, 0.05, 1, _mixed(accent, (255, 255, 255), 0.3), 0.3)
            below(0.82, 0.04, 1, _mixed(accent, band, 0.3), 0.8)
            pen.rectangle((0, 0, w, round(h * 0.06)), fill=band)
            pen.rectangle((0, round(h * 0.92), w, h), fill=band)
        case "check":
            for thick, colour in ((0.5, _mixed(base, band, 0.16)), (0.12, _mixed(base, accent, 0.35))):
                for step in range(6):
                    at = (step + 0.5 - thick / 2) / 6
                    pen.rectangle((w * at, 0, w * (at + thick / 6), h), fill=colour)
                for step in range(math.ceil(6 * h / w)):
                    at = (step + 0.5 - thick / 2) * w / 6
                    pen.rectangle((0, at, w, at + thick * w / 6), fill=_mixed(colour, band, 0.15))
            pen.rectangle((0, 0, w, round(h * 0.05)), fill=band)
            pen.rectangle((0, round(h * 0.95), w, h), fill=band)
        case "dots":
            pitch = w / 8
            for row in range(math.ceil(h / pitch) + 1):
                for column in range(-1, 9):
                    x, y = (column + 0.5 * (row % 2)) * pitch, row * pitch
                    pen.ellipse(
                        (x - pitch * 0.2, y - pitch * 0.2, x + pitch * 0.2, y + pitch * 0.2), fill=band
                    )
        case "frame":
            sheet.paste(
                Image.linear_gradient("L")
                .resize((w, h))
                .point(lambda v: v // 3)
                .convert("RGB")
                .point(lambda v: v),
                (0, 0),
                Image.new("L", (w, h), 0),
            )
            pen.rectangle((0, round(h * 0.79), w, round(h * 0.905)), fill=band)
            for inset, thick, colour in ((0.025, 0.012, accent), (0.05, 0.004, light)):
                m, t = round(inset * w), max(1, round(thick * w))
                pen.rectangle((m, m, w - m, h - m), outline=colour, width=t)
        case "split":
            below(0.42, 0.03, 1, _mixed(band, (255, 255, 255), 0.35), 0.25)
            below(0.45, 0.035, 1, band, 0.25)
            pen.rectangle((0, 0, w, round(h * 0.02)), fill=dark)
    return sheet.reduce(_FINE)


def _rays(pen: ImageDraw.ImageDraw, w: int, h: int, centre: tuple[float, float], colour: Rgb) -> None:
    x, y, reach = centre[0] * w, centre[1] * h, w + h
    for ray in range(18):
        first, second = (2 * math.pi * (ray + side) / 18 for side in (0.0, 0.5))
        pen.polygon(
            [
                (x, y),
                (x + reach * math.cos(first), y + reach * math.sin(first)),
                (x + reach * math.cos(second), y + reach * math.sin(second)),
            ],
            fill=colour,
        )


def _print_panel(face: Image.Image, product: DemoProduct, at: tuple[int, int, int, int]) -> None:
    left, top, width, height = at
    design = product.design
    slots = (_WIDE if width > 1.15 * height else _TALL)[design.layout]
    pen = ImageDraw.Draw(face)

    def pixels(slot: Rectangle) -> tuple[int, int]:
        return round((slot[2] - slot[0]) * width), round((slot[3] - slot[1]) * height)

    brand_ink = design.ink
    if slots.badge:
        x1, y1, x2, y2 = slots.brand
        _badge(
            face,
            (
                left + (x1 - 0.07) * width,
                top + (y1 - 0.075) * height,
                left + (x2 + 0.07) * width,
                top + (y2 + 0.1) * height,
            ),
            design,
        )
        brand_ink = _ink_on(design.band)
    motif_width, motif_height = pixels(slots.motif)
    _place(
        face,
        draw_motif(design.motif, max(8, min(motif_width, motif_height))),
        slots.motif,
        left,
        top,
        width,
        height,
    )

    brand_width, brand_height = pixels(slots.brand)
    if slots.upright:
        word = draw_word(
            product.brand, brand_height, brand_width, brand_ink, style=design.lettering, outline=design.accent
        ).transpose(Image.Transpose.ROTATE_90)
    else:
        word = draw_word(
            product.brand, brand_width, brand_height, brand_ink, style=design.lettering, outline=design.accent
        )
    _place(face, word, slots.brand, left, top, width, height)

    x1, y1, x2, y2 = slots.flavour
    banner = (left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height)
    pen.rounded_rectangle(
        banner,
        radius=0.3 * (banner[3] - banner[1]),
        fill=design.band,
        outline=_ink_on(design.band),
        width=max(1, round(height * 0.004)),
    )
    flavour_width, flavour_height = pixels(slots.flavour)
    _place(
        face,
        draw_word(
            design.flavour, round(flavour_width * 0.86), round(flavour_height * 0.66), _ink_on(design.band)
        ),
        slots.flavour,
        left,
        top,
        width,
        height,
    )
    for text, slot in ((design.kind, slots.kind), (design.contents, slots.contents)):
        text_width, text_height = pixels(slot)
        behind = face.getpixel(
            (
                min(face.width - 1, round(left + (slot[0] + slot[2]) / 2 * width)),
                min(face.height - 1, round(top + slot[1] * height)),
            )
        )
        ink = _ink_on("#{:02x}{:02x}{:02x}".format(*behind)) if isinstance(behind, tuple) else design.ink
        _place(
            face, draw_word(text, text_width, text_height, ink, style="light"), slot, left, top, width, height
        )


def _badge(face: Image.Image, box: tuple[float, float, float, float], design: Design) -> None:
    size = (max(4, round(box[2] - box[0])), max(4, round(box[3] - box[1])))
    fine = Image.new("RGBA", (size[0] * _FINE, size[1] * _FINE))
    pen = ImageDraw.Draw(fine)
    w, h = fine.size
    pen.ellipse((0, 0, w - 1, h - 1), fill=design.accent)
    inset = round(0.035 * w)
    pen.ellipse(
        (inset, inset, w - 1 - inset, h - 1 - inset),
        fill=design.band,
        outline="#ffffff",
        width=max(1, round(0.012 * w)),
    )
    face.paste(fine.reduce(_FINE), (round(box[0]), round(box[1])), fine.reduce(_FINE))


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


_LEFT = (
    "0001101",
    "0011001",
    "0010011",
    "0111101",
    "0100011",
    "0110001",
    "0101111",
    "0111011",
    "0110111",
    "0001011",
)
_PARITY = ("LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL")


def draw_barcode(gtin: str, width: int, height: int) -> Image.Image:
    """Draw the EAN-13 bar code of a GTIN-13 (ISO/IEC 15420, section 4.2), with its quiet zones.

    Args:
        gtin: Thirteen digits.
        width: Pixels; bars are smoothed where it is no multiple of 113 modules.
        height: Pixels.
    Returns:
        A greyscale image of width x height.
    """
    bits = "101"
    for digit, parity in zip(gtin[1:7], _PARITY[int(gtin[0])], strict=True):
        left = _LEFT[int(digit)]
        bits += left if parity == "L" else _inverted(left)[::-1]
    bits += "01010" + "".join(_inverted(_LEFT[int(digit)]) for digit in gtin[7:]) + "101"
    row = np.full(113, 255, np.uint8)
    row[11 : 11 + len(bits)][np.array([bit == "1" for bit in bits])] = 20
    bars = Image.fromarray(np.repeat(row[None, :], 4, axis=0)).resize(
        (width, round(height * 0.86)), Image.Resampling.BOX
    )
    sheet = Image.new("L", (width, height), 255)
    sheet.paste(bars, (0, round(height * 0.05)))
    return sheet


def _inverted(bits: str) -> str:
    return bits.translate(str.maketrans("01", "10"))


def _place(
    face: Image.Image, drawn: Image.Image, slot: Rectangle, left: int, top: int, width: int, height: int
) -> None:
    """Paste a drawing centred in its slot."""
    x = left + (slot[0] + slot[2]) / 2 * width - drawn.width / 2
    y = top + (slot[1] + slot[3]) / 2 * height - drawn.height / 2
    face.paste(drawn, (round(x), round(y)), drawn)


def _mixed(first: Rgb | tuple[int, ...], second: Rgb | tuple[int, ...], share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))
    return red, green, blue


def _ink_on(colour: str) -> str:
    """Choose dark or light ink, whichever reads better on a colour (luma of ITU-R BT.601)."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "#1d1b1a" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#fffdf6"
