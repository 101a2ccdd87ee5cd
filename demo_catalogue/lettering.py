"""Words as pictures: word-marks and small print, all from the one font that Pillow carries inside itself.

Which fonts a machine has is unknown, so variety comes from weight, slant, width and bend instead of from faces.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo_catalogue.products import Lettering

_EM = 120  # pixels of the font size that words are drawn at before they are scaled down


@dataclass(frozen=True)
class _Style:
    weight: float  # stroke added around the letters, in em
    slant: float  # pixels to the right per pixel upwards
    width: float  # horizontal stretch
    spacing: float  # added between letters, in em
    bend: float  # rise of the middle, as a share of the word's height
    outline: bool
    capitals: bool


_STYLES: dict[Lettering, _Style] = {
    "bold": _Style(0.045, 0.0, 1.0, 0.02, 0.0, False, False),
    "italic": _Style(0.035, 0.28, 0.95, 0.0, 0.0, False, False),
    "condensed": _Style(0.055, 0.12, 0.72, 0.02, 0.0, False, True),
    "wide": _Style(0.012, 0.0, 1.15, 0.16, 0.0, False, True),
    "arched": _Style(0.05, 0.0, 1.0, 0.04, 0.3, False, False),
    "outlined": _Style(0.055, 0.1, 0.95, 0.06, 0.12, True, False),
    "light": _Style(0.0, 0.0, 1.0, 0.05, 0.0, False, False),
}


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install Pillow's own wheel, which has it")
    return font


def draw_word(
    text: str, width: int, height: int, colour: str, *, style: Lettering = "bold", outline: str = "#ffffff"
) -> Image.Image:
    """Draw one line of text as large as fits.

    Args:
        text: ASCII.
        width: Pixels it may be wide.
        height: Pixels it may be high.
        colour: Of the letters.
        style: How it is lettered.
        outline: Colour around the letters, where the style has an outline.
    Returns:
        An RGBA image, no larger than width x height, cut to the ink.
    """
    word = _word(text, style, colour, outline)
    scale = min(width / word.width, height / word.height)
    size = (max(1, round(word.width * scale)), max(1, round(word.height * scale)))
    return word.resize(
        size, Image.Resampling.BOX if scale < 0.4 else Image.Resampling.BILINEAR, reducing_gap=2.0
    )


@functools.lru_cache(maxsize=512)
def _word(text: str, style: Lettering, colour: str, outline: str) -> Image.Image:
    how = _STYLES[style]
    shown = text.upper() if how.capitals else text
    font = _font(_EM)
    stroke = round(how.weight * _EM)
    rim = round(0.07 * _EM) if how.outline else 0
    pad = stroke + rim + 4
    advances = [font.getlength(letter) + how.spacing * _EM for letter in shown]
    sheet = Image.new("RGBA", (round(sum(advances)) + 2 * pad + _EM // 2, round(1.3 * _EM) + 2 * pad))
    pen = ImageDraw.Draw(sheet)
    if rim:
        _write(pen, shown, advances, pad, font, stroke + rim, outline)
    _write(pen, shown, advances, pad, font, stroke, colour)
    if how.slant or how.width != 1.0:
        lean = how.slant * sheet.height
        size = (round((sheet.width + lean) * how.width), sheet.height)
        sheet = sheet.transform(
            size,
            Image.Transform.AFFINE,
            (1 / how.width, how.slant, -lean, 0, 1, 0),
            Image.Resampling.BILINEAR,
        )
    if how.bend:
        sheet = _bent(sheet, how.bend)
    box = sheet.getchannel("A").getbbox()
    return sheet.crop(box) if box else sheet.crop((0, 0, 1, 1))


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    advances: list[float],
    pad: int,
    font: ImageFont.FreeTypeFont,
    stroke: int,
    colour: str,
) -> None:
    x = float(pad)
    for letter, advance in zip(text, advances, strict=True):
        pen.text((x, pad), letter, font=font, fill=colour, stroke_width=stroke, stroke_fill=colour)
        x += advance


def _bent(sheet: Image.Image, bend: float) -> Image.Image:
    """Shift each column down, the more the further it is from the middle."""
    pixels = np.asarray(sheet)
    rise = round(bend * sheet.height)
    bent = np.zeros((sheet.height + rise, sheet.width, 4), np.uint8)
    places = np.linspace(-1, 1, sheet.width)
    rows = np.arange(sheet.height)[:, None] + np.round(rise * places**2).astype(np.intp)[None, :]
    bent[rows, np.arange(sheet.width)[None, :]] = pixels
    return Image.fromarray(bent)
