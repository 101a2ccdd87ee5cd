"""What a camera does to a picture: exposure, colour cast, vignette, blur, shake and grain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from demo_catalogue.geometry import Floats


@dataclass(frozen=True)
class Look:
    """What the camera does to the picture."""

    exposure: float
    tint: tuple[float, float, float]
    vignette: float
    blur: float  # pixels, as a share of 1000 pixels of the longer side
    smear: tuple[int, int]  # motion in pixels
    noise: float  # standard deviation of 0..255

    @classmethod
    def studio(cls) -> Look:
        return cls(1.0, (1.0, 1.0, 1.0), 0.0, 0.0, (0, 0), 0.6)

    @classmethod
    def drawn(cls, random: np.random.Generator, *, gentle: bool = False) -> Look:
        warmth, green = random.normal(0, 0.035), random.normal(0, 0.015)
        smear = (0, 0)
        if random.random() < (0.08 if gentle else 0.15):
            smear = (int(random.integers(-2, 3)), int(random.integers(-1, 2)))
        return cls(
            exposure=float(random.uniform(0.8, 1.18) if gentle else random.uniform(0.62, 1.3)),
            tint=(float(1 + warmth), float(1 + green), float(1 - warmth)),
            vignette=float(random.uniform(0, 0.35)),
            blur=float(random.choice([0.0, 0.3, 0.6, 1.0] if gentle else [0.0, 0.8, 1.6, 3.2])),
            smear=smear,
            noise=float(random.uniform(1.0, 4.0) if gentle else random.uniform(1.0, 7.0)),
        )


_DICE_DEVIATION = math.sqrt(2 * (256**2 - 1) / 12)  # of the sum of two uniform bytes


def develop(picture: Floats, look: Look, random: np.random.Generator) -> Image.Image:
    """Turn linear light (height, width, 3) into a photograph; the picture is used up."""
    height, width, _ = picture.shape
    picture *= np.asarray(look.tint, np.float32) * np.float32(look.exposure)
    if look.vignette:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
        picture *= (1 - np.float32(look.vignette) * 0.5 * (x + y))[..., None]
    np.clip(picture, 0, 1, out=picture)
    np.sqrt(picture, out=picture)
    if look.smear != (0, 0):
        dx, dy = look.smear
        picture = (picture + np.roll(picture, (dy, dx), (0, 1)) + np.roll(picture, (-dy, -dx), (0, 1))) / 3
    if look.blur:
        soft = Image.fromarray((picture * 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(look.blur * max(width, height) / 1000)
        )
        picture = np.asarray(soft, np.float32)
    else:
        picture *= 255
    if look.noise:
        # The sum of two dice is bell-shaped enough for grain, and ten times quicker than normal deviates.
        dice = np.frombuffer(random.bytes(2 * picture.size), np.uint8).reshape(2, *picture.shape)
        grain = dice[0].astype(np.float32) + dice[1] - 255
        picture = picture + grain * np.float32(look.noise / _DICE_DEVIATION)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
