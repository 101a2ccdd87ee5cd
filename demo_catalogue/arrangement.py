"""Puts packages into the world, standing or lying, side by side or packed; and the camera where it sees them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from demo_catalogue.camera import Camera
from demo_catalogue.geometry import Floats, cuboid, rotation
from demo_catalogue.packages import PLASTIC, Package, Part, Surface, build_package
from demo_catalogue.products import DemoProduct, Shape

ROUND: frozenset[Shape] = frozenset(
    {"can", "slim_can", "tin", "flat_tin", "bottle", "jar", "tub", "squeeze_bottle"}
)
LIES: dict[Shape, float] = {  # how often a product lies in a scene instead of standing
    "can": 0.25,
    "slim_can": 0.3,
    "tin": 0.15,
    "flat_tin": 0.0,
    "bottle": 0.6,
    "squeeze_bottle": 0.7,
    "jar": 0.15,
    "tub": 0.0,
    "gable_carton": 0.5,
    "brick_carton": 0.5,
    "box": 0.75,
    "pillow_bag": 1.0,
    "block_bag": 0.5,
}
_SHELF_MM = 900.0
_LOOSE_GAP_MM, _DENSE_GAP_MM = 24.0, 2.0
_HIDDEN = 0.6  # of the ground in a standing product's lee is kept free, so that it hides little


@dataclass(frozen=True)
class Placed:
    """A package in the world."""

    package: Package
    turn: Floats  # (3, 3) from the package's frame to the world's
    position: Floats  # (3,)
    item: int  # number among the products, -1 for clutter

    @property
    def hull(self) -> Floats:
        """World points (3, m) whose convex hull holds it."""
        return np.asarray(self.turn @ self.package.hull + self.position[:, None])


@dataclass(frozen=True)
class _Resting:
    """A package on the ground, and the ground that it wants for itself."""

    placed: Placed
    width: float
    depth: float


def rest(product: DemoProduct, random: np.random.Generator, *, yaw: float, lying: bool, item: int) -> Placed:
    """Put a product on the ground over the origin: standing, or on its back with the front up."""
    package = build_package(product)
    turn = rotation(yaw, 0, 0)
    if lying:
        spin = float(random.normal(0, 25)) if product.shape in ROUND else 0.0
        turn = rotation(yaw, -90, 0) @ rotation(spin, 0, 0)
    hull = turn @ package.hull
    middle = (hull.max(axis=1) + hull.min(axis=1)) / 2
    return Placed(package, turn, np.array([-middle[0], -hull[1].min(), -middle[2]], np.float32), item)


def arrange(
    products: Sequence[DemoProduct],
    random: np.random.Generator,
    *,
    upright: bool,
    dense: bool,
    pitch: float,
    aspect: float,
) -> list[Placed]:
    """Lay products out in rows.

    Args:
        products: To lay out.
        random: The stream that decides.
        upright: All stand, side by side as on a shelf.
        dense: They touch and may hide one another; otherwise there is room between and behind them.
        pitch: Of the camera, degrees from above level: the flatter, the more ground lies hidden.
        aspect: Width of the picture by its height.
    Returns:
        The products in the world, their ground's middle at the origin.
    """
    resting = [
        _laid(product, random, item=item, upright=upright, dense=dense, pitch=pitch)
        for item, product in enumerate(products)
    ]
    gap = _DENSE_GAP_MM if dense else _LOOSE_GAP_MM
    sizes = [(one.width + gap, one.depth + gap) for one in resting]
    order = random.permutation(len(resting)).tolist()
    rows = (
        _in_rows(sizes, order, _SHELF_MM) if upright else _fitting_rows(sizes, order, random, pitch, aspect)
    )
    across, _ = _extent(sizes, rows)
    arranged: list[Placed] = []
    z = 0.0
    for row in rows:
        depth = max(resting[number].depth for number in row) + (0.0 if dense else 2 * gap)
        slack = 0.0 if dense else (across - sum(sizes[number][0] for number in row)) / (len(row) + 1)
        x = 0.0
        for number in row:
            one = resting[number]
            x += slack * float(random.uniform(0.4, 1.0)) + gap * float(random.uniform(0.5, 1.0))
            # Towards the front of its ground: what it hides lies behind it.
            front = z + one.depth + (depth - one.depth) * float(random.random())
            middle = front - float(np.ptp(one.placed.hull[2])) / 2
            shift = np.array([x + one.width / 2, 0, middle], np.float32)
            arranged.append(replace(one.placed, position=one.placed.position + shift))
            x += one.width
        z += depth + gap
    low, high = _bounds(arranged)
    centre = np.array([(low[0] + high[0]) / 2, 0, (low[2] + high[2]) / 2], np.float32)
    return [replace(one, position=one.position - centre) for one in arranged]


def _laid(
    product: DemoProduct, random: np.random.Generator, *, item: int, upright: bool, dense: bool, pitch: float
) -> _Resting:
    lying = bool(not upright and random.random() < LIES[product.shape])
    if dense:
        yaw = float(random.normal(0, 10))
    elif product.shape in ROUND and not lying:
        yaw = float(random.uniform(-60, 60))
    else:
        yaw = float(random.normal(0, 26))
    placed = rest(product, random, yaw=yaw, lying=lying, item=item)
    hull = placed.hull
    lee = _HIDDEN * float(hull[1].max()) / math.tan(math.radians(pitch))
    kept_free = 0.0 if upright else 0.15 * lee if dense else lee
    return _Resting(placed, float(np.ptp(hull[0])), float(np.ptp(hull[2])) + kept_free)


def _fitting_rows(
    sizes: Sequence[tuple[float, float]],
    order: Sequence[int],
    random: np.random.Generator,
    pitch: float,
    aspect: float,
) -> list[list[int]]:
    """Choose, among the numbers of rows that fill the picture well, one by chance."""
    total = sum(wide for wide, _ in sizes)
    choices = [_in_rows(sizes, order, 1.1 * total / count) for count in range(1, len(sizes) + 1)]
    spans = []
    for choice in choices:
        wide, deep = _extent(sizes, choice)
        spans.append(max(wide / aspect, deep * math.sin(math.radians(pitch))))
    fitting = [choice for choice, span in zip(choices, spans, strict=True) if span <= 1.3 * min(spans)]
    return fitting[int(random.integers(len(fitting)))] if fitting else []


def _in_rows(sizes: Sequence[tuple[float, float]], order: Sequence[int], across: float) -> list[list[int]]:
    """Fill rows of a width with things of (width, depth), in order."""
    rows: list[list[int]] = []
    filled = math.inf
    for number in order:
        if filled + sizes[number][0] > across:
            rows.append([])
            filled = 0.0
        rows[-1].append(number)
        filled += sizes[number][0]
    return rows


def _extent(sizes: Sequence[tuple[float, float]], rows: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Width and depth of rows."""
    wide = max((sum(sizes[number][0] for number in row) for row in rows), default=0.0)
    return wide, sum(max(sizes[number][1] for number in row) for row in rows)


def _bounds(placed: Sequence[Placed]) -> tuple[Floats, Floats]:
    """Lowest and highest coordinates (3,) of everything; of an arm's length of bare ground where there is nothing."""
    spots = [one.hull for one in placed] or [np.array([[-150, 150], [0, 0], [-100, 100]], np.float32)]
    everything = np.concatenate(spots, axis=1)
    return everything.min(axis=1), everything.max(axis=1)


def lay_divider(placed: Sequence[Placed], random: np.random.Generator) -> Placed:
    """Lay the bar that parts two customers' goods beside them; it belongs to no product."""
    low, high = _bounds(placed)
    colour = ("#c81f2d", "#1f4fa3", "#2b2b2e")[int(random.integers(3))]
    surface = Surface((np.asarray(Image.new("RGB", (8, 8), colour)),), PLASTIC)
    solid = cuboid(340, 34, 34, edge_mm=6)
    package = Package((Part(solid, (surface,) * 6),), 0.1, solid.hull)
    x = float(high[0]) + 75 if random.random() < 0.5 else float(low[0]) - 75
    position = np.array([x, 0, float(random.normal(0, 30))], np.float32)
    return Placed(package, rotation(90 + float(random.normal(0, 8)), 0, 0), position, -1)


def frame_camera(
    placed: Sequence[Placed],
    size: tuple[int, int],
    *,
    pitch: float,
    azimuth: float,
    roll: float,
    fill: float,
    view_angle: float,
    random: np.random.Generator | None,
) -> Camera:
    """Step back until everything fills a share of the picture; with a stream, aim a little off the middle.

    Args:
        placed: All of it will be inside the picture.
        size: Width and height of the picture, pixels.
        pitch: Degrees from above level.
        azimuth: Degrees to the right of the front.
        roll: Degrees about the camera's own axis.
        fill: Share of the picture's width or height that everything spans, below 1.
        view_angle: Degrees across the longer side.
        random: The stream that moves the aim, or None for the very middle.
    """
    low, high = _bounds(placed)
    spots = np.concatenate([one.hull for one in placed], axis=1) if placed else np.stack([low, high], axis=1)
    middle = (low + high) / 2
    distance = 3.0 * float(np.linalg.norm(high - low))
    for _ in range(6):  # six steps bring the span within a pixel of what is wanted
        camera = Camera.aimed(
            (float(middle[0]), float(middle[1]), float(middle[2])),
            pitch=pitch,
            azimuth=azimuth,
            roll=roll,
            distance=distance,
            size=size,
            view_angle=view_angle,
        )
        seen = camera.project(spots)
        distance *= max(float(np.ptp(seen[0])) / size[0], float(np.ptp(seen[1])) / size[1]) / fill
    centre = []
    for axis in (0, 1):
        start, end = float(seen[axis].min()), float(seen[axis].max())
        room = max(0.0, size[axis] * 0.97 - (end - start))
        aside = float(random.uniform(-0.4, 0.4)) * room if random else 0.0
        centre.append(camera.centre[axis] + size[axis] / 2 - (start + end) / 2 + aside)
    return replace(camera, centre=(centre[0], centre[1]))
