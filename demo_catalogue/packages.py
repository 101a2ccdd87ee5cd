"""From a product to its package: solids with the printed art on their surfaces."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from demo_catalogue.geometry import Pillow, Ring, Solid, TurnedSolid, Vector, cuboid, gabled
from demo_catalogue.labels import draw_front, draw_side, draw_wrap
from demo_catalogue.lettering import draw_word
from demo_catalogue.motifs import draw_motif
from demo_catalogue.products import DemoProduct

_ART_PIXELS = 440  # of the longer side of a front; a product in a scene is rarely seen larger


@dataclass(frozen=True)
class Finish:
    """How a surface takes light."""

    gloss: float = 0.25  # mirror-like reflection on top of the colour, 0 to 1
    metal: float = 0.0  # share of the light that is reflected in the surface's own colour, 0 to 1
    crumple: float = 0.0  # how far wrinkles tilt the surface
    clear: float = 0.0  # darkening towards the rim, as of a filled bottle
    see_through: float = (
        0.0  # share of what lies behind that shows through where the surface faces the camera
    )


PAPER = Finish(gloss=0.12)
CARTON = Finish(gloss=0.22)
PLASTIC = Finish(gloss=0.45)
PRINTED_METAL = Finish(gloss=0.5, metal=0.35)
METAL = Finish(gloss=0.3, metal=0.85)
FILM = Finish(gloss=0.6, metal=0.12, crumple=0.26)
FOIL = Finish(gloss=0.4, metal=0.25, crumple=0.13)
FILLED = Finish(gloss=0.7, clear=0.5)
WATER = Finish(gloss=0.8, clear=0.45, see_through=0.55)


@dataclass(frozen=True)
class Surface:
    """Printed art in halving sizes, the first the largest, each (h, w, 3) uint8 in sRGB; and its finish."""

    art: tuple[NDArray[np.uint8], ...]
    finish: Finish


@dataclass(frozen=True)
class Part:
    solid: Solid
    surfaces: tuple[Surface, ...]


@dataclass(frozen=True)
class Package:
    parts: tuple[Part, ...]
    art_scale: float  # pixels of the art per mm
    hull: NDArray[np.float32]  # (3, m)


def _surface(art: Image.Image, finish: Finish) -> Surface:
    sizes = [art.convert("RGB")]
    while min(sizes[-1].size) >= 16:
        sizes.append(sizes[-1].reduce(2))
    return Surface(tuple(np.ascontiguousarray(np.asarray(size)) for size in sizes), finish)


def _plain(colour: str, finish: Finish) -> Surface:
    return _surface(Image.new("RGB", (8, 8), colour), finish)


@functools.lru_cache(maxsize=64)
def build_package(product: DemoProduct) -> Package:
    """Draw a product's art and put it on its solids.

    The last 64 packages are kept (about 2 MB each), so that many pictures of one product cost its art once.
    """
    scale = _ART_PIXELS / max(product.size_mm[:2])
    match product.shape:
        case "can" | "slim_can":
            parts = _drink_can(product, scale)
        case "tin" | "flat_tin":
            parts = _food_tin(product, scale)
        case "bottle":
            parts = _bottle(product, scale)
        case "squeeze_bottle":
            parts = _squeeze_bottle(product, scale)
        case "jar":
            parts = _jar(product, scale)
        case "tub":
            parts = _tub(product, scale)
        case "gable_carton" | "block_bag":
            parts = _gabled(product, scale)
        case "brick_carton" | "box":
            parts = _box(product, scale)
        case "pillow_bag":
            parts = _pillow_bag(product, scale)
    return Package(parts, scale, np.concatenate([part.solid.hull for part in parts], axis=1))


def _wrapped(product: DemoProduct, radius: float, height: float, scale: float, finish: Finish) -> Surface:
    return _surface(draw_wrap(product, round(2 * math.pi * radius * scale), round(height * scale)), finish)


def _drink_can(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, _ = product.size_mm
    r = width / 2
    neck = r * 0.82
    rings = (
        Ring(0, 0, 1), Ring(r * 0.72, 0, 1), Ring(r * 0.8, 1.5, 0), Ring(r * 0.97, 7, 0), Ring(r, 11, 0),
        Ring(r, h - 15, 0), Ring(r * 0.985, h - 11, 0),
        Ring(neck * 1.03, h - 4, 0), Ring(neck, h - 3, 1), Ring(neck * 1.04, h - 1, 1),
        Ring(neck * 1.02, h, 1), Ring(neck * 0.96, h, 1),
        Ring(neck * 0.9, h - 4.5, 2), Ring(0, h - 4.5, 2),
    )  # fmt: skip
    metal = product.design.body
    lid = Image.new("RGB", (128, 128), metal)
    pen = ImageDraw.Draw(lid)
    pen.ellipse((6, 6, 121, 121), outline="#9a9da1", width=2)
    pen.ellipse((42, 66, 86, 112), outline="#8b8e92", width=2)
    pen.rounded_rectangle((50, 40, 78, 84), radius=13, fill="#e2e4e6", outline="#7f8286", width=2)
    pen.ellipse((56, 44, 72, 58), fill="#8f9296")
    surfaces = (
        _wrapped(product, r, h - 4.5, scale, PRINTED_METAL),
        _plain(metal, METAL),
        _surface(lid, METAL),
    )
    return (Part(TurnedSolid(rings), surfaces),)


def _food_tin(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, _ = product.size_mm
    r = width / 2
    rings = (
        Ring(0, 1, 1), Ring(r * 0.94, 1, 1), Ring(r * 0.97, 0, 1), Ring(r, 1, 1), Ring(r, 3, 1),
        Ring(r * 0.965, 4, 0), Ring(r * 0.965, h - 4, 1),
        Ring(r, h - 3, 1), Ring(r, h - 1, 1), Ring(r * 0.985, h, 1), Ring(r * 0.95, h, 1),
        Ring(r * 0.93, h - 3.5, 2), Ring(0, h - 3.5, 2),
    )  # fmt: skip
    metal = product.design.body if product.shape == "flat_tin" else "#c4c8cc"
    if product.shape == "flat_tin":
        side = round(width * scale)
        lid = draw_front(product, side, side, panel=(0.78, 0.9))
        finish = PRINTED_METAL
    else:
        lid = Image.new("RGB", (160, 160), metal)
        pen = ImageDraw.Draw(lid)
        for inset in (8, 24, 44):
            pen.ellipse((inset, inset, 159 - inset, 159 - inset), outline="#8e9296", width=2)
            pen.ellipse((inset + 3, inset + 3, 156 - inset, 156 - inset), outline="#eceef0", width=2)
        finish = METAL
    surfaces = (_wrapped(product, r, h - 8, scale, PAPER), _plain(metal, METAL), _surface(lid, finish))
    return (Part(TurnedSolid(rings), surfaces),)


def _curve(
    start: tuple[float, float], end: tuple[float, float], surface: int, steps: int = 7
) -> tuple[Ring, ...]:
    """Rings of a soft S from one radius and height to another, without the last."""
    turns = np.linspace(0, 1, steps + 1)[:-1]
    return tuple(Ring(float(start[0] + (end[0] - start[0]) * (0.5 - 0.5 * math.cos(math.pi * t))),
                      float(start[1] + (end[1] - start[1]) * t), surface) for t in turns)  # fmt: skip


def _bottle(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, _ = product.size_mm
    r = width / 2
    low, high = h * 0.3, h * 0.66
    rings = (
        Ring(0, 0, 1), Ring(r * 0.8, 0, 1), Ring(r * 0.95, 3, 1), Ring(r, 9, 1), Ring(r, h * 0.12, 1),
        Ring(r * 0.955, h * 0.15, 1), Ring(r, h * 0.18, 1),
        Ring(r, low, 0), Ring(r, high, 1), *_curve((r, high + 3), (r * 0.42, h * 0.89), 1),
        Ring(r * 0.42, h * 0.9, 1), Ring(r * 0.5, h * 0.9, 1),
        Ring(r * 0.5, h * 0.915, 1), Ring(r * 0.43, h * 0.917, 2), Ring(r * 0.45, h * 0.92, 2),
        Ring(r * 0.45, h * 0.99, 2), Ring(r * 0.4, h, 2), Ring(0, h, 2),
    )  # fmt: skip
    red, green, blue = ImageColor.getrgb(product.design.body)[:3]
    liquid = _plain(product.design.body, WATER if min(red, green, blue) > 180 else FILLED)
    cap = Image.new("RGB", (240, 16), product.design.band)
    pen = ImageDraw.Draw(cap)
    for rib in range(0, 240, 6):
        pen.line((rib, 0, rib, 16), fill=product.design.ink, width=1)
    surfaces = (_wrapped(product, r, high - low, scale, PLASTIC), liquid, _surface(cap, PLASTIC))
    return (Part(TurnedSolid(rings), surfaces),)


def _squeeze_bottle(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, depth = product.size_mm
    r = width / 2
    top = h * 0.78
    rings = (
        Ring(0, 0, 1), Ring(r * 0.9, 0, 1), Ring(r * 0.97, 3, 0), Ring(r, 8, 0), Ring(r * 0.97, h * 0.3, 0),
        Ring(r * 0.9, h * 0.46, 0), Ring(r * 0.93, h * 0.6, 0),
        *_curve((r * 0.93, h * 0.64), (r * 0.42, top), 0), Ring(r * 0.42, top, 1),
        Ring(r * 0.46, top + 1, 1), Ring(r * 0.44, h * 0.88, 1),
        Ring(r * 0.25, h * 0.9, 1), Ring(r * 0.2, h * 0.99, 1), Ring(r * 0.16, h, 1), Ring(0, h, 1),
    )  # fmt: skip
    squash = depth / width
    body = Part(
        TurnedSolid(rings, squash=squash),
        (_wrapped(product, r, top, scale, PLASTIC), _plain(product.design.body, PLASTIC)),
    )
    return (body,)


def _jar(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, _ = product.size_mm
    r = width / 2
    low, high = h * 0.14, h * 0.68
    rings = (
        Ring(0, 0, 1), Ring(r * 0.86, 0, 1), Ring(r * 0.96, 3, 1), Ring(r, 8, 1), Ring(r, low, 0),
        Ring(r, high, 1), *_curve((r, high + 2), (r * 0.8, h * 0.85), 1, 5),
        Ring(r * 0.8, h * 0.86, 2), Ring(r * 0.86, h * 0.87, 2), Ring(r * 0.86, h * 0.98, 2),
        Ring(r * 0.83, h, 3), Ring(0, h, 3),
    )  # fmt: skip
    lid = Image.new("RGB", (128, 128), product.design.band)
    word = draw_word(product.brand, 92, 30, product.design.base, style=product.design.lettering)
    lid.paste(word, ((128 - word.width) // 2, (128 - word.height) // 2), word)
    surfaces = (
        _wrapped(product, r, high - low, scale, PAPER),
        _plain(product.design.body, FILLED),
        _plain(product.design.band, PRINTED_METAL),
        _surface(lid, PRINTED_METAL),
    )
    return (Part(TurnedSolid(rings), surfaces),)


def _tub(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, _ = product.size_mm
    r = width / 2
    rings = (
        Ring(0, 0, 1), Ring(r * 0.7, 0, 1), Ring(r * 0.74, 2, 0), Ring(r * 0.93, h - 6, 1),
        Ring(r * 0.93, h - 4, 1), Ring(r, h - 3, 1), Ring(r, h, 2), Ring(0, h, 2),
    )  # fmt: skip
    side = 160
    lid = Image.new("RGB", (side, side), "#eceef0")
    fruit = draw_motif(product.design.motif, 76)
    lid.paste(fruit, (42, 66), fruit)
    word = draw_word(product.brand, 116, 34, product.design.ink, style=product.design.lettering)
    lid.paste(word, ((side - word.width) // 2, 30), word)
    surfaces = (
        _wrapped(product, r * 0.83, h - 8, scale, PLASTIC),
        _plain("#f4f4f2", PLASTIC),
        _surface(lid, Finish(gloss=0.3, metal=0.3, crumple=0.05)),
    )
    return (Part(TurnedSolid(rings), surfaces),)


def _gabled(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, depth = product.size_mm
    bag = product.shape == "block_bag"
    fin, ridge = (h * 0.1, 3.0) if bag else (14.0, 3.0)
    top = h - fin
    eaves = top - depth * (0.55 if bag else 0.5)
    finish = FOIL if bag else CARTON
    front = _surface(draw_front(product, round(width * scale), round(eaves * scale)), finish)
    sides = [
        _surface(draw_side(product, round(depth * scale), round(top * scale), barcode=barcode), finish)
        for barcode in (True, False)
    ]
    roof = Image.new(
        "RGB",
        (round(width * scale), max(8, round((top - eaves) * scale))),
        product.design.base if bag else product.design.band,
    )
    word = draw_word(
        product.brand, round(roof.width * 0.7), round(roof.height * 0.4), product.design.ink, style="bold"
    )
    roof.paste(word, ((roof.width - word.width) // 2, (roof.height - word.height) // 2), word)
    slope = _surface(roof, finish)
    strip = _plain(product.design.base if bag else product.design.band, finish)
    body = Part(
        gabled(width, eaves, top, depth, ridge=ridge, edge_mm=3.5 if bag else 1.6),
        (front, front, *sides, slope, slope),
    )
    return body, Part(cuboid(width, fin + 2, ridge, middle=(0, top - 2, 0), edge_mm=1), (strip,) * 6)


def _box(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, h, depth = product.size_mm
    front = _surface(draw_front(product, round(width * scale), round(h * scale)), CARTON)
    sides = [
        _surface(draw_side(product, max(8, round(depth * scale)), round(h * scale), barcode=barcode), CARTON)
        for barcode in (False, True)
    ]
    roof = Image.new("RGB", (round(width * scale), max(8, round(depth * scale))), product.design.base)
    pen = ImageDraw.Draw(roof)
    pen.rectangle((0, round(roof.height * 0.72), roof.width, roof.height), fill=product.design.band)
    word = draw_word(
        product.brand,
        round(roof.width * 0.7),
        round(roof.height * 0.45),
        product.design.ink,
        style=product.design.lettering,
        outline=product.design.accent,
    )
    roof.paste(word, ((roof.width - word.width) // 2, round(roof.height * 0.36 - word.height / 2)), word)
    top = _surface(roof, CARTON)
    box = Part(cuboid(width, h, depth), (front, front, *sides, top, top))
    if product.shape == "box":
        return (box,)
    at: Vector = (width * 0.2, h, 0)
    cap = TurnedSolid(
        (
            Ring(14, 0, 0),
            Ring(14, 3, 0),
            Ring(12.5, 3.5, 0),
            Ring(12.5, 14, 0),
            Ring(11, 15, 0),
            Ring(0, 15, 0),
        ),
        at=at,
    )
    return box, Part(cap, (_plain(product.design.band, PLASTIC),))


def _pillow_bag(product: DemoProduct, scale: float) -> tuple[Part, ...]:
    width, height, _ = product.size_mm
    size = (round(width * scale), round(height * scale))
    sides = (draw_front(product, *size, panel=(0.84, 0.88)), draw_side(product, *size, barcode=True))
    for side in sides:
        _crimp(side)
    front, back = (_surface(side, FILM) for side in sides)
    return (Part(Pillow(*product.size_mm), (front, back)),)


def _crimp(side: Image.Image) -> None:
    """Print the pressed lines of a bag's seals at top and bottom."""
    pen = ImageDraw.Draw(side, "RGBA")
    for line in range(3, round(side.height * 0.035), 4):
        for y in (line, side.height - 1 - line):
            pen.line((0, y, side.width, y), fill=(255, 255, 255, 90), width=1)
            pen.line((0, y + 1, side.width, y + 1), fill=(0, 0, 0, 70), width=1)
