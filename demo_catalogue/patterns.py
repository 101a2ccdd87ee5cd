"""The grounds of labels: the pattern behind brand and motif."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from demo_catalogue.products import Design, Ground

Rgb = tuple[int, int, int]

_FINE = 2  # drawn this many times larger, for ImageDraw does not smooth its edges
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class _Canvas:
    """A sheet to print on, and the design's colours."""

    sheet: Image.Image
    base: Rgb
    accent: Rgb
    band: Rgb

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.sheet)

    @property
    def light(self) -> Rgb:
        """A lighter shade of the base."""
        return _mixed(self.base, _WHITE, 0.22)

    def stripe(self, top: float, bottom: float, colour: Rgb) -> None:
        """Fill the whole width between two heights, 0 at the top to 1."""
        w, h = self.sheet.size
        self.pen.rectangle((0, round(h * top), w, round(h * bottom)), fill=colour)

    def below(self, level: float, swing: float, colour: Rgb, *, shift: float = 0.0, waves: int = 1) -> None:
        """Fill what lies below a wave."""
        w, h = self.sheet.size
        xs = np.linspace(0, w, 97)
        ys = h * (level + swing * np.sin(2 * np.pi * (waves * xs / w + shift)))
        self.pen.polygon([(0, h), *zip(xs.tolist(), ys.tolist(), strict=True), (w, h)], fill=colour)

    def fade(self, top: Rgb, bottom: Rgb, power: float = 1.0) -> None:
        """Fill everything with a gradient from top to bottom."""
        w, h = self.sheet.size
        share = np.linspace(0, 1, h)[:, None] ** power
        rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        self.sheet.paste(Image.fromarray(np.repeat(rows[:, None].astype(np.uint8), w, axis=1)))


def draw_pattern(design: Design, width: int, height: int) -> Image.Image:
    """Draw a design's ground.

    Args:
        design: Its ground and colours.
        width: Pixels.
        height: Pixels.
    Returns:
        An RGB image.
    """
    base, accent, band = (_rgb(colour) for colour in (design.base, design.accent, design.band))
    canvas = _Canvas(Image.new("RGB", (width * _FINE, height * _FINE), base), base, accent, band)
    _PATTERNS[design.ground](canvas)
    return canvas.sheet.reduce(_FINE)


def _plain(canvas: _Canvas) -> None:
    canvas.stripe(0.79, 0.91, canvas.band)
    canvas.stripe(0.775, 0.783, canvas.accent)


def _gradient(canvas: _Canvas) -> None:
    canvas.fade(canvas.light, _mixed(canvas.base, canvas.band, 0.75), power=1.5)


def _wave(canvas: _Canvas) -> None:
    canvas.below(0.585, 0.035, canvas.accent, shift=0.02)
    canvas.below(0.605, 0.045, canvas.band)
    canvas.below(0.93, 0.02, _mixed(canvas.band, _BLACK, 0.25), shift=0.4)
    canvas.stripe(0, 0.025, canvas.band)


def _stripes(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    pale = _mixed(canvas.base, _WHITE, 0.1)
    for stripe in range(0, 16, 2):
        canvas.pen.rectangle((w * stripe / 16, 0, w * (stripe + 1) / 16, h), fill=pale)
    canvas.stripe(0.8, 0.965, canvas.band)
    for level in (0.02, 0.775, 0.975):
        canvas.stripe(level, level + 0.015, canvas.accent)


def _diagonal(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    rise = 0.6 * w
    bars = ((0.05, 0.34, canvas.accent), (0.45, 0.1, canvas.band), (0.62, 0.04, canvas.light))
    for copy in (-1, 0, 1):  # what leaves at one edge comes in at the other
        for start, thick, colour in bars:
            left, right = (copy + start) * w, (copy + start + thick) * w
            canvas.pen.polygon([(left, h), (right, h), (right + rise, 0), (left + rise, 0)], fill=colour)


def _burst(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    x, y, reach = 0.5 * w, 0.6 * h, w + h
    for ray in range(18):
        ends = [2 * math.pi * (ray + side) / 18 for side in (0.0, 0.5)]
        far = [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in ends]
        canvas.pen.polygon([(x, y), *far], fill=canvas.light)
    canvas.below(0.9, 0.015, canvas.band, waves=2)


def _hills(canvas: _Canvas) -> None:
    canvas.fade(_mixed(canvas.base, canvas.band, 0.35), canvas.base)
    canvas.below(0.74, 0.05, _mixed(canvas.accent, _WHITE, 0.3), shift=0.3)
    canvas.below(0.82, 0.04, _mixed(canvas.accent, canvas.band, 0.3), shift=0.8)
    canvas.stripe(0, 0.06, canvas.band)
    canvas.stripe(0.92, 1, canvas.band)


def _check(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    pitch = w / 6
    for thick, other, share in ((0.5, canvas.band, 0.16), (0.12, canvas.accent, 0.35)):
        colour = _mixed(canvas.base, other, share)
        for step in range(6):
            at = (step + 0.5 - thick / 2) * pitch
            canvas.pen.rectangle((at, 0, at + thick * pitch, h), fill=colour)
        for step in range(math.ceil(h / pitch)):
            at = (step + 0.5 - thick / 2) * pitch
            canvas.pen.rectangle((0, at, w, at + thick * pitch), fill=_mixed(colour, canvas.band, 0.15))
    canvas.stripe(0, 0.05, canvas.band)
    canvas.stripe(0.95, 1, canvas.band)


def _dots(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    pitch = w / 8
    radius = 0.2 * pitch
    for row in range(math.ceil(h / pitch) + 1):
        for column in range(-1, 9):
            x, y = (column + 0.5 * (row % 2)) * pitch, row * pitch
            canvas.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=canvas.band)


def _frame(canvas: _Canvas) -> None:
    w, h = canvas.sheet.size
    canvas.stripe(0.79, 0.905, canvas.band)
    for inset, thick, colour in ((0.025, 0.012, canvas.accent), (0.05, 0.004, canvas.light)):
        margin = round(inset * w)
        edges = (margin, margin, w - margin, h - margin)
        canvas.pen.rectangle(edges, outline=colour, width=max(1, round(thick * w)))


def _split(canvas: _Canvas) -> None:
    canvas.below(0.42, 0.03, _mixed(canvas.band, _WHITE, 0.35), shift=0.25)
    canvas.below(0.45, 0.035, canvas.band, shift=0.25)
    canvas.stripe(0, 0.02, _mixed(canvas.base, _BLACK, 0.12))


_PATTERNS: dict[Ground, Callable[[_Canvas], None]] = {
    "plain": _plain,
    "gradient": _gradient,
    "wave": _wave,
    "stripes": _stripes,
    "diagonal": _diagonal,
    "burst": _burst,
    "hills": _hills,
    "check": _check,
    "dots": _dots,
    "frame": _frame,
    "split": _split,
}


def _rgb(colour: str) -> Rgb:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue


def _mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
