"""Where products lie: conveyor, wooden table, shelf, steel scale, studio. Ground seen in perspective, a backdrop
behind it where the ground ends, clutter printed on it, and the shadows that products cast on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo_catalogue.camera import Camera
from demo_catalogue.geometry import Floats, convex_outline
from demo_catalogue.lighting import Light

Background = Literal["studio", "conveyor", "wood", "shelf", "scale", "cloth"]
BACKGROUNDS: tuple[Background, ...] = ("studio", "conveyor", "wood", "shelf", "scale", "cloth")

Reach = tuple[float, float]  # how far what lies on the ground reaches from the origin along x and z, mm

_FAR_MM: dict[Background, float] = {"shelf": 230.0, "studio": 400.0}

_SHEET_PIXELS = 1.5  # pixels of a ground seen from above, at most, for each pixel of the picture
_SHADOW_PIXELS = 60_000  # pixels of the map of shadows, at most: they are soft


@dataclass(frozen=True)
class Sheet:
    """A flat piece of the ground seen straight from above: x to the right, z down the picture."""

    left: float  # mm
    back: float
    width: float
    depth: float
    scale: float  # pixels per mm

    @property
    def size(self) -> tuple[int, int]:
        return max(2, round(self.width * self.scale)), max(2, round(self.depth * self.scale))

    def x(self) -> Floats:
        return (self.left + (np.arange(self.size[0], dtype=np.float32) + 0.5) / self.scale)[None, :]

    def z(self) -> Floats:
        return (self.back + (np.arange(self.size[1], dtype=np.float32) + 0.5) / self.scale)[:, None]

    def pixel(self, x: float, z: float) -> tuple[float, float]:
        return (x - self.left) * self.scale, (z - self.back) * self.scale


def visible_sheet(camera: Camera, background: Background) -> Sheet:
    """Find the piece of ground that the picture shows.

    Args:
        camera: That looks.
        background: How far its ground reaches behind the products; beyond, the backdrop is seen.
    Returns:
        The sheet, about as fine as the picture at its middle, or coarser where it would grow too large.
    """
    far = _FAR_MM.get(background, 700.0)
    scale = camera.focal / float(np.linalg.norm(camera.position))
    width, height = camera.size
    edge = np.linspace(0, 1, 9)
    x = np.concatenate([edge * width, edge * width, np.zeros(9), np.full(9, width)]).astype(np.float32)
    y = np.concatenate([np.zeros(9), np.full(9, height), edge * height, edge * height]).astype(np.float32)
    rays = camera.rays(x, y)
    drop = np.where(rays[1] < -1e-3, -camera.position[1] / np.minimum(rays[1], -1e-3), np.inf)
    reach = np.minimum(drop, 4 * (far + float(np.linalg.norm(camera.position))))
    ground = camera.position[:, None] + reach * rays
    left, right = float(ground[0].min()), float(ground[0].max())
    back, front = max(-far, float(ground[2].min())), float(ground[2].max())
    area = (right - left) * (front - back)
    return Sheet(
        left, back, right - left, front - back, min(scale, math.sqrt(_SHEET_PIXELS * width * height / area))
    )


def _noise(random: np.random.Generator, sheet: Sheet, cell_x: float, cell_z: float) -> Floats:
    """Smooth noise of about unit strength, with cells of the given size in mm."""
    width, height = sheet.size
    rows = min(height, max(2, math.ceil(sheet.depth / cell_z) + 1))
    columns = min(width, max(2, math.ceil(sheet.width / cell_x) + 1))
    rough = np.frombuffer(random.bytes(rows * columns), np.uint8).reshape(rows, columns)
    smooth = Image.fromarray((rough.astype(np.float32) - 127.5) / 73.9)  # the deviation of uniform bytes
    return np.asarray(smooth.resize((width, height), Image.Resampling.BILINEAR))


Paint = tuple[
    Sequence[float], Floats
]  # a colour of 0 to 255, and how bright it is at each place of the sheet


def _studio(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    return (247, 247, 247), np.ones((sheet.size[1], sheet.size[0]), np.float32)


def _conveyor(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    coarse, lengthwise = _noise(random, sheet, 220, 220), _noise(random, sheet, 160, 6)
    belt = random.uniform(0.21, 0.34) * (
        1 + 0.06 * _noise(random, sheet, 2, 2) + 0.05 * (lengthwise + coarse)
    )
    half = max(random.uniform(210, 260), reach[1] + 50)
    beyond = np.abs(sheet.z() - random.uniform(-30, 30)) - half  # mm past the belt's edge
    steel, counter = 1 + 0.06 * _noise(random, sheet, 300, 1.5), 0.64 + 0.02 * _noise(random, sheet, 3, 3)
    light = np.where(beyond < 0, belt, np.where(beyond < 2.5, 0.11, np.where(beyond < 36, steel, counter)))
    return (178, 180, 184), light


def _wood(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    tones = ((176, 128, 82), (205, 170, 124), (120, 80, 50), (150, 118, 88))
    colour = tones[int(random.integers(len(tones)))]
    plank = random.uniform(70, 140)
    place = (sheet.z() + 5000) / plank
    number = np.floor(place).astype(np.intp)
    tint = random.uniform(0.86, 1.1, size=512)[number % 512].astype(np.float32)
    bend = 7 * _noise(random, sheet, 260, 60)
    rings = np.sin((sheet.z() + bend + 40 * tint) * 0.55 + 2.2 * _noise(random, sheet, 190, 14))
    fibre = _noise(random, sheet, 60, 0.8)
    gap = np.where((place - number) * plank < 1.6, np.float32(0.45), np.float32(1))
    return colour, gap * tint * (1 + 0.06 * rings + 0.05 * fibre)


def _shelf(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    grey = random.uniform(190, 232)
    light = 1 + 0.012 * _noise(random, sheet, 2, 2) + 0.02 * _noise(random, sheet, 300, 300)
    return (grey, grey, grey * 0.985), light


def _scale(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    plate = 1 + 0.07 * _noise(random, sheet, 400, 0.9) + 0.05 * _noise(random, sheet, 240, 240)
    half_x, half_z = (max(random.uniform(190, 260), side + random.uniform(20, 60)) for side in reach)
    beyond = np.maximum(np.abs(sheet.x()) - half_x, np.abs(sheet.z()) - half_z)  # mm past the plate's edge
    around = 0.38 + 0.02 * _noise(random, sheet, 3, 3)
    light = np.where(beyond < -4, plate, np.where(beyond < 0, 1.2, np.where(beyond < 5, 0.13, around)))
    return (186, 189, 193), light


def _cloth(random: np.random.Generator, sheet: Sheet, reach: Reach) -> Paint:
    colour = (random.uniform(95, 215) + random.uniform(-38, 38, size=3)).tolist()
    check = random.uniform(18, 46)
    weave = ((np.floor(sheet.x() / check) % 2) + (np.floor(sheet.z() / check) % 2)) * 0.5
    threads = 0.05 * _noise(random, sheet, 1.5, 1.5) + 0.06 * _noise(random, sheet, 90, 120)
    return colour, 1 - random.uniform(0.0, 0.4) * weave + threads


_GROUNDS: dict[Background, Callable[[np.random.Generator, Sheet, Reach], Paint]] = {
    "studio": _studio,
    "conveyor": _conveyor,
    "wood": _wood,
    "shelf": _shelf,
    "scale": _scale,
    "cloth": _cloth,
}
_BRIGHTEST = 1.5  # light above this is cut off


def draw_ground(
    background: Background, random: np.random.Generator, sheet: Sheet, hulls: Sequence[Floats]
) -> Image.Image:
    """Draw the bare ground from above, evenly lit; belt and plate are large enough for what lies there."""
    spots = np.abs(np.concatenate([np.zeros((3, 1), np.float32), *hulls], axis=1))
    reach = (float(spots[0].max()), float(spots[2].max()))
    colour, light = _GROUNDS[background](random, sheet, reach)
    grey = Image.fromarray(np.clip(light * (255 / _BRIGHTEST), 0, 255).astype(np.uint8))
    ramp = np.arange(256) * (_BRIGHTEST / 255)
    channels = [grey.point(np.clip(ramp * part, 0, 255).astype(int).tolist()) for part in colour]
    return Image.merge("RGB", channels)


def scatter_clutter(ground: Image.Image, sheet: Sheet, random: np.random.Generator, count: int) -> None:
    """Lay flat things on the ground, in place: receipts, coins, price stickers."""
    for _ in range(count):
        x = sheet.left + sheet.width * random.uniform(0.05, 0.95)
        z = sheet.back + sheet.depth * random.uniform(0.05, 0.95)
        kind = int(random.integers(3))
        wide, deep = ((58.0, 130.0), (23.0, 23.0), (38.0, 24.0))[kind]
        drawn = Image.new("RGBA", (round(wide * sheet.scale * 2), round(deep * sheet.scale * 2)))
        if min(drawn.size) < 4:
            continue
        pen = ImageDraw.Draw(drawn)
        w, h = drawn.size
        if kind == 0:
            pen.rectangle((0, 0, w, h), fill="#f4f3ee")
            for line in range(14):
                y = h * (0.08 + line * 0.06)
                pen.line(
                    (w * 0.1, y, w * random.uniform(0.35, 0.6), y), fill="#77746e", width=max(1, h // 80)
                )
                pen.line((w * 0.75, y, w * 0.9, y), fill="#77746e", width=max(1, h // 80))
        elif kind == 1:
            metal = ("#b87b45", "#d8b25a", "#c9ccd0")[int(random.integers(3))]
            pen.ellipse((0, 0, w - 1, h - 1), fill=metal, outline="#5e5140", width=max(1, w // 16))
            pen.ellipse((w * 0.22, h * 0.22, w * 0.78, h * 0.78), outline="#7d6a48", width=max(1, w // 24))
        else:
            pen.rounded_rectangle(
                (0, 0, w, h), radius=w // 8, fill=("#ffe14d", "#ffffff", "#ff9d3c")[int(random.integers(3))]
            )
            pen.line((w * 0.15, h * 0.35, w * 0.85, h * 0.35), fill="#c22222", width=max(1, h // 6))
            pen.line((w * 0.15, h * 0.7, w * 0.6, h * 0.7), fill="#444444", width=max(1, h // 12))
        turned = drawn.rotate(random.uniform(0, 360), Image.Resampling.BILINEAR, expand=True).reduce(2)
        px, py = sheet.pixel(x, z)
        ground.paste(turned, (round(px - turned.width / 2), round(py - turned.height / 2)), turned)


def cast_shadows(ground: Image.Image, sheet: Sheet, hulls: Sequence[Floats], light: Light) -> Image.Image:
    """Darken the ground where products stand in the light.

    Args:
        ground: From above, evenly lit.
        sheet: Where that ground lies.
        hulls: World points (3, m) of each product.
        light: Its key light casts the shadows; the nearer the ground the shadow's source, the sharper.
    Returns:
        The ground with shadows.
    """
    shrink = max(1.0, math.sqrt(sheet.size[0] * sheet.size[1] / _SHADOW_PIXELS))
    size = (max(2, round(sheet.size[0] / shrink)), max(2, round(sheet.size[1] / shrink)))
    scale = sheet.scale / shrink
    lean = light.key[[0, 2]] / max(0.25, float(light.key[1]))
    share = float(
        np.mean(light.key_colour * light.key[1] / (light.key_colour * light.key[1] + light.ambient))
    )
    dark = Image.new("L", size, 255)
    tallest = max((float(hull[1].max()) for hull in hulls), default=0.0)
    for part, strength in ((0.15, 0.42), (0.5, 0.4), (1.0, 0.45)):
        layer = Image.new("L", size, 255)
        pen = ImageDraw.Draw(layer)
        for hull in hulls:
            height = hull[1] * part
            spots = np.stack([hull[0] - lean[0] * height, hull[2] - lean[1] * height])
            outline = convex_outline((spots[0] - sheet.left) * scale, (spots[1] - sheet.back) * scale)
            pen.polygon(outline, fill=round(255 * (1 - strength * share)))
        blur = (1.5 + 0.22 * light.softness * part * tallest) * scale
        dark = ImageChops.multiply(dark, layer.filter(ImageFilter.GaussianBlur(blur)))
    contact = Image.new("L", size, 255)
    pen = ImageDraw.Draw(contact)
    for hull in hulls:
        low = hull[:, hull[1] < hull[1].min() + 12]
        outline = convex_outline((low[0] - sheet.left) * scale, (low[2] - sheet.back) * scale)
        if len(outline) > 2:
            pen.polygon(outline, fill=105)
    dark = ImageChops.multiply(dark, contact.filter(ImageFilter.GaussianBlur(4.0 * scale)))
    wide = dark.resize(ground.size, Image.Resampling.BILINEAR)
    return ImageChops.multiply(ground, Image.merge("RGB", (wide, wide, wide)))


def draw_backdrop(background: Background, random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """What is behind the ground, out of focus: blurred shelves, or the studio's white."""
    if background == "studio":
        return Image.new("RGB", size, (247, 247, 247))
    small = (96, max(8, round(96 * size[1] / size[0])))
    tone = random.uniform(40, 150)
    wall = Image.new("RGB", small, (round(tone), round(tone * 0.98), round(tone * 0.95)))
    pen = ImageDraw.Draw(wall)
    for row in range(5):
        y = row * small[1] / 4
        x = 0.0
        while x < small[0]:
            wide = random.uniform(3, 12)
            colour = tuple(round(0.45 * tone + 0.55 * value) for value in random.uniform(20, 220, size=3))
            pen.rectangle((x, y + random.uniform(0, 4), x + wide - 1, y + small[1] / 4 - 3), fill=colour)
            x += wide
    blurred = wall.filter(ImageFilter.GaussianBlur(random.uniform(2.5, 5)))
    return blurred.resize(size, Image.Resampling.BICUBIC)


def paint_ground(frame: Image.Image, ground: Image.Image, sheet: Sheet, camera: Camera) -> Image.Image:
    """Lay the ground, in perspective, over the backdrop.

    Args:
        frame: The backdrop, as large as the picture.
        ground: From above.
        sheet: Where it lies.
        camera: That looks at it.
    Returns:
        The picture without products.
    """
    to_ground = camera.ground_matrix()
    to_sheet = np.array(
        [[sheet.scale, 0, -sheet.left * sheet.scale], [0, sheet.scale, -sheet.back * sheet.scale], [0, 0, 1]]
    )
    matrix = to_sheet @ to_ground
    matrix = (matrix / matrix[2, 2]).ravel()[:8]
    bare = ground.copy()
    bare.putalpha(255)
    seen = bare.transform(
        frame.size, Image.Transform.PERSPECTIVE, tuple(matrix.tolist()), Image.Resampling.BILINEAR
    )
    mask = seen.getchannel("A")
    horizon = _below_horizon(camera)
    if horizon is not None:
        mask = ImageChops.multiply(mask, horizon)
    painted = frame.copy()
    painted.paste(seen.convert("RGB"), (0, 0), mask)
    return painted


def _below_horizon(camera: Camera) -> Image.Image | None:
    """A mask of the pixels whose rays reach the ground, or None where all do.

    The homography also maps pixels above the horizon to ground, behind the camera: they must not be painted.
    """
    width, height = camera.size
    right, up, forward = (float(value) for value in camera.axes[:, 1])
    across = (np.arange(width, dtype=np.float32) + 0.5 - camera.centre[0]) / camera.focal
    down = (np.arange(height, dtype=np.float32) + 0.5 - camera.centre[1]) / camera.focal
    rise = (forward + right * across)[None, :] - (up * down)[:, None]
    if max(rise[0, 0], rise[0, -1], rise[-1, 0], rise[-1, -1]) < 0:
        return None
    return Image.fromarray(np.where(rise < 0, 255, 0).astype(np.uint8))
