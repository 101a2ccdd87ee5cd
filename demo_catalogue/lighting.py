"""Light: a key light with softboxes, and what a surface with its finish sends to the camera.

Colours here are linear light with gamma 2, near enough to sRGB for pictures and quick: squared on the way in, a
square root on the way out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_catalogue.geometry import Floats
from demo_catalogue.packages import Finish
from demo_catalogue.randomness import generator


@dataclass(frozen=True)
class Light:
    key: Floats  # (3,) unit direction towards the key light
    key_colour: Floats  # (3,) its strength by colour
    ambient: Floats  # (3,) light from everywhere above
    bounce: Floats  # (3,) light from the ground
    softboxes: Floats  # (k, 3) unit directions to long upright lamps that shiny surfaces mirror
    softness: float  # how wide the key's shadow blurs, 0 hard to 1 soft
    on_ground: float  # brightness of level ground, 1 for as bright as it is painted


def studio_light() -> Light:
    return Light(
        key=_unit(np.array([-0.45, 0.9, 0.75])),
        key_colour=np.array([0.66, 0.66, 0.66], np.float32),
        ambient=np.array([0.5, 0.5, 0.5], np.float32),
        bounce=np.array([0.4, 0.4, 0.4], np.float32),
        softboxes=np.stack([_unit(np.array([-0.9, 0.15, 0.55])), _unit(np.array([0.95, 0.15, 0.35]))]),
        softness=0.9,
        on_ground=1.0,
    )


def any_light(random: np.random.Generator, ground: Floats) -> Light:
    """A light as shops and kitchens have it: from above, any side, warm to cold, bright to dim.

    Args:
        random: The stream it is drawn from.
        ground: The ground's colour (3,), linear.
    """
    side = random.uniform(-1.2, 1.2)
    key = _unit(np.array([side, random.uniform(0.9, 2.0), random.uniform(-0.2, 1.1)]))
    warmth = random.uniform(-0.12, 0.16)
    tint = np.array([1 + warmth, 1.0, 1 - 1.3 * warmth])
    strength, fill = random.uniform(0.45, 0.9), random.uniform(0.25, 0.55)
    turns = random.uniform(-1.5, 1.5, size=2)
    boxes = np.stack([_unit(np.array([np.sin(turn), 0.25, np.cos(turn)])) for turn in turns])
    return Light(
        key=key,
        key_colour=(strength * tint).astype(np.float32),
        ambient=(fill * (0.5 + 0.5 * tint)).astype(np.float32),
        bounce=(0.5 * (strength * key[1] + fill) * ground).astype(np.float32),
        softboxes=boxes,
        softness=float(random.uniform(0.25, 0.9)),
        on_ground=min(1.3, float(strength * key[1] + fill)),
    )


def _unit(vector: NDArray[np.float64]) -> Floats:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def shade(
    colour: Floats, normal: Floats, towards: Floats, height: Floats, finish: Finish, light: Light
) -> Floats:
    """Light n points of a surface.

    Args:
        colour: (n, 3) linear colour of the surface.
        normal: (3, n) unit, in the world.
        towards: (3, n) unit, to the camera.
        height: (n,) mm above the ground, where light is scarcer.
        finish: Of the surface.
        light: That falls on it.
    Returns:
        (n, 3) linear light towards the camera; 1 is paper white under full light.
    """
    facing = np.clip(np.einsum("in,in->n", normal, towards), 0.02, 1)
    lit = np.clip(light.key @ normal, 0, None)
    sky = (0.5 + 0.5 * normal[1])[:, None]
    open_air = (1 - 0.45 * np.exp(-height / 14))[:, None]
    diffuse = lit[:, None] * light.key_colour + open_air * (sky * light.ambient + (1 - sky) * light.bounce)
    if finish.clear:
        diffuse = diffuse * (1 - finish.clear * (1 - facing) ** 1.5)[:, None]
    seen = colour * diffuse * (1 - 0.75 * finish.metal)
    if finish.gloss or finish.metal:
        mirrored = 2 * facing * normal - towards
        mirror = _surroundings(mirrored, light) * (0.7 + 0.3 * open_air[:, 0])
        glow = mirror[:, None] * (light.key_colour + light.ambient)
        grazing = (1 - facing) ** 5
        seen += glow * (colour * finish.metal * 0.95 + (finish.gloss * (0.05 + 0.55 * grazing))[:, None])
        sparkle = np.clip(light.key @ mirrored, 0, None) ** 60
        seen += (sparkle * finish.gloss * 0.5)[:, None] * light.key_colour
    return np.asarray(seen, np.float32)


def _surroundings(direction: Floats, light: Light) -> Floats:
    """Brightness (n,) of what a mirror would show in a direction: lamps, a pale ceiling, a dark floor."""
    x, y, z = direction
    level = np.sqrt(x * x + z * z) + 1e-6
    glow = 0.22 + 0.42 * np.clip(y, 0, 1) + 0.35 * _ramp(y, 0.6, 0.9) - 0.14 * _ramp(-y, 0.0, 0.3)
    upright = _ramp(-np.abs(y - 0.1), -0.75, -0.6)
    for box in light.softboxes:
        towards = (x * box[0] + z * box[2]) / (level * float(np.hypot(box[0], box[2])))
        glow = glow + 2.2 * _ramp(towards, 0.93, 0.97) * upright
    return np.asarray(glow, np.float32)


def _ramp(value: Floats, low: float, high: float) -> Floats:
    share = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


_WRINKLES = 256


@functools.cache
def _wrinkles() -> Floats:
    """Slopes (2, 256, 256) of crumpled film: a few sizes of creases."""
    random = generator("wrinkles")
    height = np.zeros((_WRINKLES, _WRINKLES), np.float32)
    for cells, weight in ((5, 1.0), (11, 0.6), (24, 0.25)):
        rough = Image.fromarray(random.standard_normal((cells, cells)).astype(np.float32))
        field = np.asarray(rough.resize((_WRINKLES, _WRINKLES), Image.Resampling.BICUBIC))
        height += weight * (1 - np.abs(field)) * 64 / cells  # ridges where the field is near zero
    return np.stack([np.gradient(height, axis=1), np.gradient(height, axis=0)]).astype(np.float32)


def crumpled(normal: Floats, u: Floats, v: Floats, amount: float) -> Floats:
    """Tilt normals (3, n) by creases that lie fixed on the surface (u, v)."""
    slopes = _wrinkles()
    column = np.clip(u * _WRINKLES, 0, _WRINKLES - 1).astype(np.intp)
    row = np.clip(v * _WRINKLES, 0, _WRINKLES - 1).astype(np.intp)
    across, along = slopes[0][row, column], slopes[1][row, column]
    tilted = normal + amount * np.stack([across, -along, 0.5 * (across - along)])
    return np.asarray(tilted / np.linalg.norm(tilted, axis=0), np.float32)
