"""Small drawings of fruit and the like, as they are printed on packaging."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

Point = tuple[float, float]

_SIDE = 384  # pixels a motif is drawn at; it is only ever scaled down


class Easel:
    """A square RGBA canvas whose coordinates run from 0 to 1, x to the right and y down."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (_SIDE, _SIDE))

    def solid(self, points: Iterable[Point], colour: str, *, depth: float = 0.4, smooth: float = 0.0) -> None:
        """Paint a filled outline as if it were rounded and lit from the upper left.

        Args:
            points: The outline.
            colour: Its colour.
            depth: 0 flat to 1 very round.
            smooth: Radius, as a share of the canvas, by which the corners are rounded.
        """
        mask = Image.new("L", (_SIDE, _SIDE))
        ImageDraw.Draw(mask).polygon([(x * _SIDE, y * _SIDE) for x, y in points], fill=255)
        if smooth:
            mask = mask.filter(ImageFilter.GaussianBlur(smooth * _SIDE)).point(
                lambda value: min(255, max(0, (value - 112) * 8))
            )
        box = mask.getbbox()
        if box is None:
            return
        left, top, right, bottom = box
        across = np.linspace(-1, 1, right - left, dtype=np.float32)[None, :]
        down = np.linspace(-1, 1, bottom - top, dtype=np.float32)[:, None]
        radius = across**2 + down**2
        shade = 1 + depth * (0.12 - 0.3 * across - 0.4 * down - 0.3 * radius)
        shine = depth * np.exp(-((across + 0.4) ** 2 + (down + 0.45) ** 2) * 9)
        rgb = np.asarray(ImageColor.getrgb(colour)[:3], np.float32)
        pixels = rgb * shade[..., None] + 190 * shine[..., None]
        patch = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        self.image.paste(patch, (left, top), mask.crop(box))

    def ball(
        self,
        x: float,
        y: float,
        radius: float,
        colour: str,
        *,
        squash: float = 1.0,
        turn: float = 0.0,
        depth: float = 0.6,
    ) -> None:
        self.solid(ellipse(x, y, radius, radius * squash, turn), colour, depth=depth)

    def leaf(
        self, x: float, y: float, length: float, turn: float, colour: str = "#3f9a34", *, width: float = 0.42
    ) -> None:
        """Paint a leaf that grows from (x, y) in a direction (degrees, 0 to the right, counter-clockwise)."""
        along = np.linspace(0, 1, 24)
        side = width * length * 0.5 * np.sin(np.pi * along**0.8)
        outline = [(a * length, s) for a, s in zip(along, side, strict=True)] + [
            (a * length, -s) for a, s in zip(along[::-1], side[::-1], strict=True)
        ]
        self.solid(_placed(outline, x, y, turn), colour, depth=0.5)
        self.line(_placed([(0, 0), (length * 0.9, 0)], x, y, turn), "#d8ecc0", 0.008)

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        scaled = [(px * _SIDE, py * _SIDE) for px, py in points]
        ImageDraw.Draw(self.image).line(
            scaled, fill=colour, width=max(1, round(width * _SIDE)), joint="curve"
        )


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> list[Point]:
    """Outline of an ellipse, turned counter-clockwise by degrees."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return _placed([(rx * math.cos(a), ry * math.sin(a)) for a in angles], x, y, turn)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[Point]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _placed(points: Iterable[Point], x: float, y: float, turn: float) -> list[Point]:
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + px * cosine + py * sine, y - px * sine + py * cosine) for px, py in points]


def _slice(easel: Easel, x: float, y: float, radius: float, rind: str, flesh: str) -> None:
    easel.ball(x, y, radius, rind, depth=0.25)
    easel.ball(x, y, radius * 0.9, "#fff6dd", depth=0.05)
    for segment in range(9):
        middle = segment * 40.0
        wedge = _placed([(radius * 0.12, 0), (radius * 0.62, radius * 0.25), (radius * 0.8, radius * 0.16),
                         (radius * 0.8, -radius * 0.16), (radius * 0.62, -radius * 0.25)], x, y, middle)  # fmt: skip
        easel.solid(wedge, flesh, depth=0.15, smooth=0.006)


def _citrus(rind: str, flesh: str, squash: float) -> Callable[[Easel], None]:
    def draw(easel: Easel) -> None:
        easel.leaf(0.52, 0.24, 0.34, 25)
        if squash < 1:  # a lemon has a nipple at each end
            easel.ball(0.14, 0.6, 0.08, rind, depth=0.3)
            easel.ball(0.66, 0.36, 0.07, rind, depth=0.3)
        easel.ball(0.4, 0.48, 0.33, rind, squash=squash, turn=25 if squash < 1 else 0)
        _slice(easel, 0.68, 0.68, 0.27, rind, flesh)

    return draw


def _cherry(easel: Easel) -> None:
    easel.line([(0.32, 0.6), (0.4, 0.35), (0.58, 0.12)], "#4d6b1f", 0.025)
    easel.line([(0.7, 0.65), (0.66, 0.4), (0.58, 0.12)], "#4d6b1f", 0.025)
    easel.leaf(0.58, 0.14, 0.36, -15)
    easel.ball(0.3, 0.66, 0.22, "#b80f2c", depth=0.8)
    easel.ball(0.69, 0.72, 0.22, "#c4122f", depth=0.8)


def _bolt(easel: Easel) -> None:
    shape = [(0.6, 0.03), (0.2, 0.56), (0.45, 0.56), (0.34, 0.97), (0.82, 0.38), (0.55, 0.38)]
    easel.solid([(x + 0.03, y + 0.02) for x, y in shape], "#20140a", depth=0)
    easel.solid(shape, "#ffd60a", depth=0.3)


def _drop(easel: Easel) -> None:
    for x, y, size in ((0.5, 0.5, 0.36), (0.82, 0.3, 0.13), (0.2, 0.76, 0.11)):
        angle = np.linspace(0.75, 2 * np.pi - 0.75, 40)
        round_part = _points(x + 0.97 * size * np.sin(angle), y + size * (0.25 - 0.95 * np.cos(angle)))
        easel.solid([(x, y - 1.35 * size), *round_part], "#3fa9e8", depth=0.7)


def _cow(easel: Easel) -> None:
    for side in (-1, 1):
        easel.leaf(0.5 + side * 0.22, 0.36, 0.28, 90 - side * 75, "#e8b9a8", width=0.6)
        easel.leaf(0.5 + side * 0.14, 0.26, 0.2, 90 - side * 35, "#d8cdb4", width=0.4)
    easel.solid(ellipse(0.5, 0.5, 0.26, 0.36), "#fdfdfb", depth=0.25)
    easel.solid(ellipse(0.37, 0.36, 0.13, 0.17, 20), "#3a2c26", depth=0.15)
    easel.solid(ellipse(0.5, 0.74, 0.24, 0.16), "#f0b7ab", depth=0.3)
    for side in (-1, 1):
        easel.ball(0.5 + side * 0.13, 0.42, 0.04, "#16120f", depth=0.9)
        easel.ball(0.5 + side * 0.09, 0.73, 0.03, "#a0574d", depth=0)


def _ear(easel: Easel, x: float, y: float, lean: float) -> None:
    tip = _placed([(0.75, 0)], x, y, lean)[0]
    easel.line([(x, y), tip], "#b5873f", 0.016)
    for step in range(6):
        along = 0.22 + step * 0.1
        base = _placed([(along, 0)], x, y, lean)[0]
        for side in (-1, 1):
            easel.leaf(base[0], base[1], 0.16, lean + side * 32, "#dba94c", width=0.5)
    easel.leaf(tip[0], tip[1], 0.16, lean, "#dba94c", width=0.5)


def _oat(easel: Easel) -> None:
    for lean in (118.0, 66.0, 92.0):
        _ear(easel, 0.5, 0.97, lean)


def _cocoa(easel: Easel) -> None:
    for row in range(2):
        for column in range(3):
            left, top = 0.16 + 0.22 * column, 0.1 + 0.22 * row
            easel.solid(_placed([(0, 0), (0.2, 0), (0.2, 0.2), (0, 0.2)], left, top, 0), "#5b2f17", depth=0.5)
            easel.solid(
                _placed([(0.04, 0.04), (0.16, 0.04), (0.16, 0.16), (0.04, 0.16)], left, top, 0),
                "#74401f",
                depth=0.6,
            )
    easel.ball(0.36, 0.76, 0.2, "#8a4a20", squash=0.6, turn=25, depth=0.6)
    easel.ball(0.66, 0.8, 0.18, "#7a3f1a", squash=0.6, turn=-20, depth=0.6)


def _apple(easel: Easel) -> None:
    easel.line([(0.5, 0.3), (0.53, 0.18), (0.6, 0.08)], "#5b3a1a", 0.035)
    easel.leaf(0.54, 0.2, 0.34, 20)
    angle = np.linspace(-np.pi, np.pi, 60)  # from the bottom round; 0 is the top, with its dip
    x = 0.5 + 0.36 * np.sin(angle) * (1 + 0.06 * np.cos(angle))
    y = 0.58 - 0.33 * np.cos(angle) + 0.09 * np.exp(-6 * angle**2)
    easel.solid(_points(x, y), "#8cc21f", depth=0.65)


def _grape(easel: Easel) -> None:
    easel.line([(0.5, 0.25), (0.54, 0.05)], "#5b4a1a", 0.03)
    easel.leaf(0.5, 0.16, 0.36, 5, width=0.7)
    for row, count in enumerate((4, 5, 4, 3, 2, 1)):
        for column in range(count):
            easel.ball(
                0.5 + (column - (count - 1) / 2) * 0.16, 0.3 + row * 0.125, 0.095, "#5c1a57", depth=0.8
            )


def _potato(easel: Easel) -> None:
    for x, y, turn, colour in (
        (0.34, 0.4, 25, "#f1c24b"),
        (0.66, 0.42, -30, "#f5cc5c"),
        (0.5, 0.66, 5, "#ffdb6e"),
    ):
        easel.solid(ellipse(x, y + 0.02, 0.29, 0.2, turn), "#b9812a", depth=0)
        easel.solid(ellipse(x, y, 0.28, 0.19, turn), colour, depth=0.5)
        easel.line(_placed([(-0.2, 0.02), (0, -0.05), (0.2, 0.02)], x, y, turn), "#e5ad3b", 0.014)


def _chilli(easel: Easel) -> None:
    for x, y, turn, colour in ((0.2, 0.28, -38, "#c21515"), (0.34, 0.16, -62, "#dc2418")):
        along = np.linspace(0, 1, 30)
        bend = 0.16 * along**2
        half = 0.085 * (1 - along) ** 0.6 * np.minimum(1, 0.5 + along * 5)
        edge = [(0.78 * a, b - h) for a, b, h in zip(along, bend, half, strict=True)]
        edge += [(0.78 * a, b + h) for a, b, h in zip(along[::-1], bend[::-1], half[::-1], strict=True)]
        easel.solid(_placed(edge, x, y, turn), colour, depth=0.7)
        easel.ball(x, y, 0.065, "#3d8a2b", depth=0.4)
        easel.line(_placed([(0, 0), (-0.13, 0.03)], x, y, turn), "#3d8a2b", 0.035)


def _onion(easel: Easel) -> None:
    for lean in (75.0, 90.0, 108.0):
        easel.leaf(0.5, 0.34, 0.34, lean, "#58a83a", width=0.2)
    angle = np.linspace(-np.pi, np.pi, 60)  # from the bottom round; 0 is the top, with its peak
    y = 0.62 - 0.28 * np.cos(angle) - 0.1 * np.exp(-14 * angle**2)
    easel.solid(_points(0.5 + 0.34 * np.sin(angle), y), "#c7823a", depth=0.6)
    for width in (0.1, 0.2, 0.29):
        for side in (-1, 1):
            curve = [
                (0.5 + side * width * math.sin(a), 0.62 - 0.27 * math.cos(a))
                for a in np.linspace(0.15, math.pi - 0.15, 12)
            ]
            easel.line(curve, "#a5642a", 0.008)


def _bean(easel: Easel) -> None:
    for x, y, turn in ((0.32, 0.34, 40), (0.68, 0.38, -30), (0.44, 0.7, 10), (0.78, 0.74, 60)):
        easel.ball(x, y, 0.21, "#5a3218", squash=0.68, turn=turn, depth=0.7)
        easel.line(
            _placed([(-0.19, 0), (-0.07, 0.03), (0.07, -0.03), (0.19, 0)], x, y, turn), "#2a1509", 0.022
        )


def _teacup(easel: Easel) -> None:
    easel.solid(ellipse(0.48, 0.84, 0.4, 0.08), "#e9e2d2", depth=0.3)
    easel.line(ellipse(0.78, 0.58, 0.1, 0.11), "#f3eee2", 0.04)
    cup = [(0.16, 0.42), (0.8, 0.42)] + [
        (0.48 + 0.32 * math.cos(a), 0.44 + 0.38 * math.sin(a)) for a in np.linspace(0, math.pi, 24)
    ]
    easel.solid(cup, "#fbf8f0", depth=0.4)
    easel.solid(ellipse(0.48, 0.42, 0.32, 0.07), "#7a2f12", depth=0.3)
    for x in (0.36, 0.48, 0.6):
        easel.line([(x, 0.32), (x + 0.04, 0.24), (x - 0.02, 0.16), (x + 0.03, 0.07)], "#d9d4c8", 0.018)


def _leaf(easel: Easel) -> None:
    for turn, length in ((150, 0.44), (30, 0.46), (90, 0.62)):
        easel.leaf(0.5, 0.82, length, turn, "#5a9c2e", width=0.5)


def _mint(easel: Easel) -> None:
    easel.line([(0.5, 0.98), (0.5, 0.4)], "#2d7d46", 0.02)
    for y, length in ((0.82, 0.36), (0.6, 0.4), (0.4, 0.3)):
        for turn in (20, 160):
            easel.leaf(0.5, y, length, turn, "#36a866", width=0.62)
    easel.leaf(0.5, 0.42, 0.34, 90, "#49bd7a", width=0.62)


def _basil(easel: Easel) -> None:
    for turn, length, colour in (
        (200, 0.36, "#2f7d24"),
        (-20, 0.38, "#2f7d24"),
        (140, 0.5, "#3a922c"),
        (45, 0.5, "#3a922c"),
        (92, 0.55, "#4aa838"),
    ):
        easel.leaf(0.5, 0.68, length, turn, colour, width=0.72)


def _honey(easel: Easel) -> None:
    for column, row in ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, 2), (0, 2)):
        x, y = 0.22 + column * 0.25 + (row % 2) * 0.125, 0.2 + row * 0.22
        easel.solid(
            [(x + 0.135 * math.sin(a), y + 0.135 * math.cos(a)) for a in np.arange(6) * math.pi / 3],
            "#c77f0a",
            depth=0.1,
        )
        easel.solid(
            [(x + 0.11 * math.sin(a), y + 0.11 * math.cos(a)) for a in np.arange(6) * math.pi / 3],
            "#ffb914",
            depth=0.5,
        )
    easel.line([(0.92, 0.2), (0.66, 0.62)], "#8a5a2b", 0.05)
    easel.ball(0.6, 0.74, 0.16, "#a56a2c", squash=0.8, turn=60, depth=0.6)


def _penne(easel: Easel) -> None:
    for x, y, turn in ((0.3, 0.3, 35), (0.66, 0.3, -40), (0.5, 0.55, 10), (0.3, 0.78, -25), (0.72, 0.76, 50)):
        easel.solid(
            _placed([(-0.27, 0.02), (-0.17, -0.09), (0.27, -0.09), (0.17, 0.09), (-0.2, 0.09)], x, y, turn),
            "#efc35c",
            depth=0.7,
        )
        easel.solid(ellipse(*_placed([(0.22, 0)], x, y, turn)[0], 0.04, 0.09, turn), "#b07c23", depth=0)


def _fusilli(easel: Easel) -> None:
    for x, y, turn in ((0.34, 0.28, 30), (0.66, 0.44, -50), (0.36, 0.7, -10), (0.74, 0.82, 25)):
        for step in range(5):
            centre = _placed([(-0.22 + step * 0.11, 0)], x, y, turn)[0]
            easel.ball(*centre, 0.105, "#efc35c", squash=0.5, turn=turn + 60, depth=0.7)


def _tomato(easel: Easel) -> None:
    easel.ball(0.36, 0.46, 0.29, "#c81e12", squash=0.9, depth=0.7)
    easel.ball(0.62, 0.62, 0.32, "#dc2a18", squash=0.9, depth=0.7)
    for x, y, size in ((0.36, 0.24, 0.15), (0.62, 0.37, 0.17)):
        for turn in (10, 60, 120, 170, 230, 310):
            easel.leaf(x, y, size, turn, width=0.3)


def _corn(easel: Easel) -> None:
    for row in range(11):
        half = 0.2 * math.sin(math.pi * (0.12 + 0.8 * row / 11)) ** 0.6
        for column in range(5):
            easel.ball(
                0.5 + (column - 2) / 2 * half, 0.1 + row * 0.07, 0.052, "#ffd02e", squash=0.85, depth=0.6
            )
    easel.leaf(0.52, 0.98, 0.66, 118, "#5fa033", width=0.34)
    easel.leaf(0.48, 0.98, 0.66, 62, "#6fb23d", width=0.34)


def _beans(easel: Easel) -> None:
    for x, y, turn in (
        (0.28, 0.32, 30),
        (0.64, 0.26, -20),
        (0.5, 0.52, 70),
        (0.24, 0.68, -40),
        (0.76, 0.6, 15),
        (0.56, 0.8, -15),
    ):
        easel.ball(x, y, 0.19, "#8c1f27", squash=0.58, turn=turn, depth=0.9)
        easel.ball(*_placed([(0, 0.08)], x, y, turn)[0], 0.03, "#e9c7b0", squash=0.6, turn=turn, depth=0)


def _fish(easel: Easel) -> None:
    easel.solid([(0.74, 0.5), (0.97, 0.28), (0.92, 0.5), (0.97, 0.72)], "#5d86a8", depth=0.4)
    easel.solid([(0.4, 0.36), (0.56, 0.16), (0.64, 0.38)], "#4c7597", depth=0.3)
    easel.solid([(0.44, 0.66), (0.54, 0.84), (0.62, 0.62)], "#4c7597", depth=0.3)
    along = np.linspace(0, 1, 30)
    girth = np.sin(np.pi * along**0.75)
    back, belly = (
        _points(0.05 + 0.74 * along, 0.5 - 0.22 * girth),
        _points(0.05 + 0.74 * along, 0.5 + 0.2 * girth),
    )
    easel.solid(back + belly[::-1], "#86aecb", depth=0.7)
    easel.line([(0.27, 0.38), (0.31, 0.5), (0.27, 0.63)], "#3f6684", 0.014)
    easel.ball(0.18, 0.45, 0.035, "#0e1a24", depth=0.9)


def _strawberry(easel: Easel) -> None:
    for x, y, size in ((0.34, 0.42, 0.27), (0.64, 0.58, 0.33)):
        angle = np.linspace(0, 2 * np.pi, 48)
        lowness = 0.5 - 0.5 * np.cos(angle)  # 0 at the stalk, 1 at the tip
        across = size * np.sin(angle) * (1 - 0.32 * lowness**2)
        down = size * (0.25 * lowness - 0.9 * np.cos(angle))
        easel.solid(_points(x + across, y + down), "#d81f3a", depth=0.65)
        for row in range(5):
            for column in range(5 - row // 2):
                seed_x = x + (column - (4 - row // 2) / 2) * size * 0.36
                easel.ball(
                    seed_x, y - size * 0.5 + row * size * 0.36, size * 0.035, "#f7d774", squash=1.5, depth=0
                )
        for turn in (10, 55, 90, 125, 170):
            easel.leaf(x, y - size * 0.78, size * 0.55, turn, width=0.4)


def _blueberry(easel: Easel) -> None:
    easel.leaf(0.5, 0.3, 0.4, 30)
    easel.leaf(0.5, 0.3, 0.36, 155)
    for x, y in ((0.32, 0.44), (0.66, 0.42), (0.5, 0.66), (0.2, 0.7), (0.8, 0.72)):
        easel.ball(x, y, 0.18, "#3b4a94", depth=0.7)
        easel.ball(x + 0.03, y - 0.02, 0.055, "#222c5e", squash=0.7, depth=0.2)


def _flower(easel: Easel) -> None:
    easel.line([(0.8, 0.2), (0.62, 0.9)], "#4a2d14", 0.03)
    easel.line([(0.88, 0.24), (0.72, 0.94)], "#5a3a1c", 0.03)
    for turn in range(18, 378, 72):
        easel.leaf(0.42, 0.48, 0.38, turn, "#fff3c4", width=0.55)
    easel.ball(0.42, 0.48, 0.1, "#eab52d", depth=0.6)


MOTIFS: dict[str, Callable[[Easel], None]] = {
    "apple": _apple,
    "basil": _basil,
    "bean": _bean,
    "beans": _beans,
    "blueberry": _blueberry,
    "bolt": _bolt,
    "cherry": _cherry,
    "chilli": _chilli,
    "cocoa": _cocoa,
    "corn": _corn,
    "cow": _cow,
    "drop": _drop,
    "fish": _fish,
    "flower": _flower,
    "fusilli": _fusilli,
    "grape": _grape,
    "honey": _honey,
    "leaf": _leaf,
    "lemon": _citrus("#f5d020", "#fbe56b", 0.78),
    "lime": _citrus("#6fb52c", "#c5e384", 0.99),
    "mint": _mint,
    "oat": _oat,
    "onion": _onion,
    "orange": _citrus("#f28a1c", "#f9ac4d", 1.0),
    "penne": _penne,
    "potato": _potato,
    "strawberry": _strawberry,
    "teacup": _teacup,
    "tomato": _tomato,
}


@functools.cache
def _drawn(name: str) -> Image.Image:
    easel = Easel()
    MOTIFS[name](easel)
    return easel.image


def draw_motif(name: str, side: int) -> Image.Image:
    """Draw a motif.

    Args:
        name: A key of MOTIFS.
        side: Width and height in pixels.
    Returns:
        A new RGBA image of side x side, transparent around the motif.
    """
    return _drawn(name).resize((side, side), Image.Resampling.LANCZOS)
