"""Pictures of products: reference pictures of one, checkout scenes of several, each with the true boxes.

Everything is drawn by casting rays at solids, so that perspective, occlusion and boxes are right by construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo_catalogue.geometry import Camera, Floats, Hits, cuboid, rotation
from demo_catalogue.lighting import Light, any_light, crumpled, shade, studio_light
from demo_catalogue.packages import PLASTIC, Package, Part, Surface, build_package
from demo_catalogue.products import DemoProduct, Shape
from demo_catalogue.randomness import generator
from demo_catalogue.surroundings import (
    Background,
    cast_shadows,
    draw_backdrop,
    draw_ground,
    paint_ground,
    scatter_clutter,
    visible_sheet,
)

Box = tuple[float, float, float, float]

_ROUND: frozenset[Shape] = frozenset({"can", "slim_can", "tin", "flat_tin", "bottle", "jar", "tub", "squeeze_bottle"})
_LIES: dict[Shape, float] = {  # how often a product lies in a scene instead of standing
    "can": 0.25, "slim_can": 0.3, "tin": 0.15, "flat_tin": 0.0, "bottle": 0.6, "squeeze_bottle": 0.7, "jar": 0.15, "tub": 0.0,
    "gable_carton": 0.5, "brick_carton": 0.5, "box": 0.75, "pillow_bag": 1.0, "block_bag": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class SceneItem:
    """One product that a picture shows."""

    sku: str
    box: Box  # x1, y1, x2, y2 in pixels: the tight bounds of its visible pixels, x2 and y2 exclusive
    visible_share: float  # of the pixels that it would cover alone, 0 to 1


@dataclass(frozen=True)
class Scene:
    """A picture with the truth about it."""

    image: Image.Image  # RGB
    items: tuple[SceneItem, ...]
    owners: NDArray[np.int16]  # (height, width): the number of the item seen at a pixel, -1 where none is


@dataclass(frozen=True)
class _Placed:
    """A package in the world."""

    package: Package
    turn: Floats  # (3, 3) from the package's frame to the world's
    position: Floats  # (3,)
    item: int  # number among the products, -1 for clutter

    @property
    def hull(self) -> Floats:
        return self.turn @ self.package.hull + self.position[:, None]


def render_reference_image(product: DemoProduct, *, view: int, seed: int, size: tuple[int, int] = (320, 320)) -> Image.Image:
    """Draw a reference picture of a product; see render_reference, which also tells the box."""
    return render_reference(product, view=view, seed=seed, size=size).image


def render_reference(product: DemoProduct, *, view: int, seed: int, size: tuple[int, int] = (320, 320)) -> Scene:
    """Draw a picture of one product.

    Args:
        product: What it shows.
        view: 0 is the studio, front on white. Others vary pose, light, background, sharpness and noise.
        seed: Another seed, another set of views.
        size: Width and height in pixels.
    Returns:
        A scene of one item.
    """
    random = generator("reference", product.sku, view, seed)
    package = build_package(product)
    low = product.size_mm[1] < 0.7 * product.size_mm[0]
    if view == 0:
        background: Background = "studio"
        yaw, pitch, roll, fill = float(random.uniform(-14, 14)), 24.0 if low else 9.0, 0.0, 0.86
    else:
        background = ("wood", "shelf", "studio", "conveyor", "cloth", "scale")[int(random.integers(6))]
        spread = 70.0 if product.shape in _ROUND else 38.0
        yaw, roll, fill = float(random.uniform(-spread, spread)), float(random.normal(0, 4)), float(random.uniform(0.62, 0.86))
        pitch = float(random.uniform(4, 20) if background == "shelf" else random.uniform(8, 46))
    lying = view > 0 and background != "shelf" and random.random() < 0.6 * _LIES[product.shape]
    placed = _rest(package, product, random, yaw=yaw, lying=lying, item=0)
    if lying:
        pitch = float(random.uniform(42, 74))
    camera = _framed([placed], size, pitch=pitch, azimuth=0.0, roll=roll, fill=fill, view_angle=float(random.uniform(24, 38)), random=random if view else None)
    look = _Look.studio() if view == 0 else _Look.drawn(random)
    return _expose([placed], (product,), camera, background, random, look, clutter=0 if view == 0 else int(random.integers(0, 3)))


def render_scene(
    products: Sequence[DemoProduct],
    *,
    seed: int,
    size: tuple[int, int] = (1280, 960),
    background: Background | None = None,
    dense: bool = False,
    clutter: bool = True,
) -> Scene:
    """Draw a checkout scene.

    Args:
        products: What lies there; a product may come more than once.
        seed: Another seed, another arrangement of the same products.
        size: Width and height in pixels.
        background: None lets the seed choose.
        dense: Pack the products so that they touch and partly hide one another, as for 30 and more of them.
        clutter: Also lay receipts, coins and a divider bar about.
    Returns:
        The picture and its items. A product of which nothing can be seen is no item; the others keep their order.
    """
    random = generator("scene", seed, *(product.sku for product in products))
    chosen: Background = background or ("conveyor", "wood", "shelf", "scale", "conveyor", "cloth")[int(random.integers(6))]
    upright = chosen == "shelf"
    pitch = float(random.uniform(9, 20) if upright else random.uniform(40, 60))
    placed = _arranged(products, random, upright=upright, dense=dense, pitch=pitch, aspect=size[0] / size[1])
    camera = _framed(
        placed, size, pitch=pitch, azimuth=float(random.uniform(-12, 12)), roll=float(random.normal(0, 2.5)), fill=0.9 if dense else 0.84,
        view_angle=float(random.uniform(38, 52)), random=random,
    )  # fmt: skip
    if clutter and not upright and random.random() < 0.5:
        placed.append(_divider(placed, random))
    return _expose(placed, tuple(products), camera, chosen, random, _Look.drawn(random, gentle=True), clutter=int(random.integers(2, 7)) if clutter and not upright else 0)


def _rest(package: Package, product: DemoProduct, random: np.random.Generator, *, yaw: float, lying: bool, item: int, x: float = 0.0, z: float = 0.0) -> _Placed:
    """Put a package on the ground: standing, or on its back with the front up."""
    if lying:
        spin = float(random.normal(0, 25)) if product.shape in _ROUND else 0.0
        turn = rotation(yaw, -90, 0) @ rotation(spin, 0, 0)
    else:
        turn = rotation(yaw, 0, 0)
    hull = turn @ package.hull
    middle = (hull.max(axis=1) + hull.min(axis=1)) / 2
    return _Placed(package, turn, np.array([x - middle[0], -hull[1].min(), z - middle[2]], np.float32), item)


def _arranged(products: Sequence[DemoProduct], random: np.random.Generator, *, upright: bool, dense: bool, pitch: float, aspect: float) -> list[_Placed]:
    """Lay products out in loose rows, each with room for its own footprint."""
    resting: list[tuple[_Placed, float, float]] = []
    for item, product in enumerate(products):
        lying = not upright and random.random() < _LIES[product.shape]
        round_about = product.shape in _ROUND
        yaw = float(random.normal(0, 10) if dense else random.uniform(-60, 60) if round_about and not lying else random.normal(0, 26))
        placed = _rest(build_package(product), product, random, yaw=yaw, lying=lying, item=item)
        hull = placed.hull
        hidden = 0.6 * float(hull[1].max()) / math.tan(math.radians(pitch))  # mm of ground behind it that it mostly hides
        deep = float(np.ptp(hull[2])) + (0.0 if upright or dense else hidden)
        resting.append((placed, float(np.ptp(hull[0])), deep))
    order = random.permutation(len(resting)).tolist()
    gap = 2.0 if dense else 24.0
    sizes = [(wide + gap, deep + gap) for _, wide, deep in resting]
    if upright:  # side by side, in one row while that is no longer than a shelf
        rows = _in_rows(sizes, order, 900.0)
    else:
        total = sum(wide for wide, _ in sizes)
        sine = math.sin(math.radians(pitch))
        choices = [_in_rows(sizes, order, 1.1 * total / count) for count in range(1, len(sizes) + 1)]
        rows = min(choices, key=lambda choice: max(_extent(sizes, choice)[0] / aspect, _extent(sizes, choice)[1] * sine), default=[])
    across = _extent(sizes, rows)[0]
    arranged: list[_Placed] = []
    z = 0.0
    for row in rows:
        depth = max((resting[number][2] for number in row), default=0.0)
        slack = 0.0 if dense else (across - sum(sizes[number][0] for number in row)) / (len(row) + 1)
        x = 0.0
        for number in row:
            placed, wide, deep = resting[number]
            x += slack * float(random.uniform(0.4, 1.0)) + gap * float(random.uniform(0.5, 1.0))
            shift = np.array([x + wide / 2, 0, z + deep + (depth - deep) * float(random.random()) - np.ptp(placed.hull[2]) / 2], np.float32)
            arranged.append(_Placed(placed.package, placed.turn, placed.position + shift, placed.item))
            x += wide
        z += depth + gap
    spots = np.concatenate([one.hull for one in arranged], axis=1) if arranged else np.zeros((3, 1), np.float32)
    middle = (spots.max(axis=1) + spots.min(axis=1)) / 2 * np.array([1, 0, 1], np.float32)
    return [_Placed(one.package, one.turn, one.position - middle.astype(np.float32), one.item) for one in arranged]


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


def _divider(placed: Sequence[_Placed], random: np.random.Generator) -> _Placed:
    """The bar that parts two customers' goods; it belongs to no product."""
    spots = np.concatenate([one.hull for one in placed], axis=1)
    colour = ("#c81f2d", "#1f4fa3", "#2b2b2e")[int(random.integers(3))]
    art = (np.asarray(Image.new("RGB", (8, 8), colour)),)
    solid = cuboid(340, 34, 34, edge_mm=6)
    package = Package((Part(solid, (Surface(art, PLASTIC),) * 6),), 0.1, solid.hull)
    turn = rotation(90 + float(random.normal(0, 8)), 0, 0)
    side = 1 if random.random() < 0.5 else -1
    edge = float(spots[0].max() if side > 0 else spots[0].min())
    return _Placed(package, turn, np.array([edge + side * 75, 0, float(random.normal(0, 30))], np.float32), -1)


def _framed(
    placed: Sequence[_Placed], size: tuple[int, int], *, pitch: float, azimuth: float, roll: float, fill: float, view_angle: float,
    random: np.random.Generator | None,
) -> Camera:  # fmt: skip
    """Step back until everything fills a share of the picture; with a stream, a little off the middle."""
    spots = np.concatenate([one.hull for one in placed], axis=1) if placed else np.array([[-150, 150], [0, 0], [-100, 100]], np.float32)
    middle = (spots.max(axis=1) + spots.min(axis=1)) / 2
    target = (float(middle[0]), float(middle[1]), float(middle[2]))
    distance = 3.0 * float(np.linalg.norm(np.ptp(spots, axis=1)))
    for _ in range(6):
        camera = Camera.aimed(target, pitch=pitch, azimuth=azimuth, roll=roll, distance=distance, size=size, view_angle=view_angle)
        seen = camera.project(spots)
        distance *= max(np.ptp(seen[0]) / size[0], np.ptp(seen[1]) / size[1]) / fill
    seen = camera.project(spots)
    centre = []
    for axis in (0, 1):
        low, high = float(seen[axis].min()), float(seen[axis].max())
        room = max(0.0, size[axis] * 0.97 - (high - low))
        centre.append(size[axis] / 2 - (low + high) / 2 + camera.centre[axis] + (float(random.uniform(-0.4, 0.4)) * room if random else 0.0))
    return Camera(camera.position, camera.axes, camera.focal, (centre[0], centre[1]), size)


@dataclass(frozen=True)
class _Look:
    """What the camera does to the picture."""

    exposure: float
    tint: tuple[float, float, float]
    vignette: float
    blur: float  # pixels, as a share of 1000 pixels of the longer side
    smear: tuple[int, int]  # motion in pixels
    noise: float  # standard deviation of 0..255

    @classmethod
    def studio(cls) -> _Look:
        return cls(1.0, (1.0, 1.0, 1.0), 0.0, 0.0, (0, 0), 0.6)

    @classmethod
    def drawn(cls, random: np.random.Generator, *, gentle: bool = False) -> _Look:
        warmth, green = random.normal(0, 0.035), random.normal(0, 0.015)
        smear = (0, 0)
        if random.random() < (0.08 if gentle else 0.15):
            smear = (int(random.integers(-3, 4)), int(random.integers(-2, 3)))
        return cls(
            exposure=float(random.uniform(0.8, 1.18) if gentle else random.uniform(0.62, 1.3)),
            tint=(float(1 + warmth), float(1 + green), float(1 - warmth)),
            vignette=float(random.uniform(0, 0.35)),
            blur=float(random.choice([0.0, 0.3, 0.6, 1.0] if gentle else [0.0, 0.8, 1.6, 3.2])),
            smear=smear,
            noise=float(random.uniform(1.0, 4.0) if gentle else random.uniform(1.0, 7.0)),
        )


def _expose(
    placed: Sequence[_Placed], products: tuple[DemoProduct, ...], camera: Camera, background: Background, random: np.random.Generator, look: _Look, *, clutter: int,
) -> Scene:  # fmt: skip
    """Draw the surroundings, then the products into them, then let the camera spoil the picture a little."""
    focus = float(np.linalg.norm(camera.position))
    scale = camera.focal / focus
    far = {"shelf": 230.0, "studio": 400.0}.get(background, 700.0)
    sheet = visible_sheet(camera, far=far, scale=scale)
    ground = draw_ground(background, random, sheet)
    scatter_clutter(ground, sheet, random, clutter)
    tone = np.asarray(ground.resize((1, 1), Image.Resampling.BOX), np.float32)[0, 0] / 255
    light = studio_light() if background == "studio" else any_light(random, tone**2)
    shadowed = cast_shadows(ground, sheet, [one.hull for one in placed], light)
    frame = paint_ground(draw_backdrop(background, random, camera.size), shadowed, sheet, camera)
    # The ground is lit evenly: what it gets of key and ambient light, relative to the studio's white.
    level = 1.0 if background == "studio" else float(np.mean(light.key_colour) * light.key[1] + np.mean(light.ambient))
    picture = (np.asarray(frame, np.float32) / 255) ** 2 * np.float32(min(level, 1.3))
    owners, alone = _draw_packages(picture, placed, camera, light, len(products))
    image = _develop(picture, look, random)
    items, kept = [], np.full(len(products) + 1, -1, np.int16)
    for number, product in enumerate(products):
        rows, columns = np.nonzero(owners == number)
        if not rows.size:
            continue
        kept[number] = len(items)
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        items.append(SceneItem(product.sku, box, rows.size / max(int(alone[number]), rows.size)))
    return Scene(image, tuple(items), kept[owners])


_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # a turned square grid


def _draw_packages(picture: Floats, placed: Sequence[_Placed], camera: Camera, light: Light, n_items: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Draw packages into a linear picture (height, width, 3), in place, the furthest first.

    Returns:
        The item number at each pixel (-1 where none), and how many pixels each item covers without the others.
    """
    height, width, _ = picture.shape
    depth = np.full((height, width), np.inf, np.float32)
    owners = np.full((height, width), -1, np.int16)
    alone = np.zeros(n_items, np.int64)
    for one in sorted(placed, key=lambda other: -float(np.linalg.norm(other.hull.mean(axis=1) - camera.position))):
        spots = camera.project(one.hull)
        x1, y1 = (max(0, math.floor(float(value)) - 1) for value in spots.min(axis=1))
        x2 = min(width, math.ceil(float(spots[0].max())) + 1)
        y2 = min(height, math.ceil(float(spots[1].max())) + 1)
        if x1 >= x2 or y1 >= y2:
            continue
        xs, ys = np.meshgrid(np.arange(x1, x2, dtype=np.float32) + 0.5, np.arange(y1, y2, dtype=np.float32) + 0.5)
        shape = xs.shape
        seen = _look_at(one, camera, light, xs.ravel(), ys.ravel())
        colour, distance, face = seen.colour.reshape(*shape, 3), seen.distance.reshape(shape), seen.face.reshape(shape)
        opacity = seen.opacity.reshape(shape)
        coverage = np.isfinite(distance).astype(np.float32)
        rough = _edges(face)
        if rough.any():
            row, column = np.nonzero(rough)
            total = np.zeros((row.size, 3), np.float32)
            count = np.zeros(row.size, np.float32)
            nearest = distance[row, column]
            for dx, dy in _SUBPIXELS:
                fine = _look_at(one, camera, light, xs[row, column] + np.float32(dx), ys[row, column] + np.float32(dy))
                hit = np.isfinite(fine.distance)
                total[hit] += fine.colour[hit]
                count += hit
                nearest = np.minimum(nearest, fine.distance)
            colour[row, column] = total / np.maximum(count, 1)[:, None]
            opacity[row, column] = 1
            coverage[row, column] = count / len(_SUBPIXELS)
            distance[row, column] = nearest
        window = (slice(y1, y2), slice(x1, x2))
        if one.item >= 0:
            alone[one.item] = int(np.count_nonzero(coverage >= 0.5))
        coverage = np.where(distance < depth[window], coverage, np.float32(0))
        picture[window] += (coverage * opacity)[..., None] * (colour - picture[window])
        solid = coverage >= 0.5
        depth[window] = np.where(solid, distance, depth[window])
        owners[window] = np.where(solid, np.int16(one.item), owners[window])
    return owners, alone


def _edges(face: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Pixels that see another face than one of their neighbours does."""
    rough = np.zeros(face.shape, bool)
    across, down = face[:, 1:] != face[:, :-1], face[1:] != face[:-1]
    rough[:, 1:] |= across
    rough[:, :-1] |= across
    rough[1:] |= down
    rough[:-1] |= down
    return rough


@dataclass(frozen=True)
class _Seen:
    """What n pixel positions see of a package."""

    colour: Floats  # (n, 3) linear
    opacity: Floats  # (n,) 0 to 1
    distance: Floats  # (n,) infinite past the package
    face: NDArray[np.int16]  # (n,) number of the face met, -1 for none


def _look_at(one: _Placed, camera: Camera, light: Light, x: Floats, y: Floats) -> _Seen:
    """See a package at n pixel positions."""
    rays = camera.rays(x, y)
    origin = one.turn.T @ (camera.position - one.position)
    local = one.turn.T @ rays
    n = x.size
    colour = np.zeros((n, 3), np.float32)
    opacity = np.ones(n, np.float32)
    distance = np.full(n, np.inf, np.float32)
    face = np.full(n, -1, np.int16)
    hits: list[Hits] = []
    for number, part in enumerate(one.package.parts):
        hit = part.solid.trace(origin, local)
        nearer = hit.distance < distance
        distance = np.where(nearer, hit.distance, distance)
        face = np.where(nearer, hit.surface.astype(np.int16) + np.int16(100 * number), face)
        hits.append(hit)
    texels = one.package.art_scale * float(np.linalg.norm(camera.position - one.hull.mean(axis=1))) / camera.focal
    level = max(0, math.floor(math.log2(max(texels, 1e-6)) + 0.35))
    for number, (part, hit) in enumerate(zip(one.package.parts, hits, strict=True)):
        for place, surface in enumerate(part.surfaces):
            here = np.flatnonzero(face == place + 100 * number)
            if not here.size:
                continue
            u, v = hit.u[here], hit.v[here]
            art = surface.art[min(level, len(surface.art) - 1)]
            normal = hit.normal[:, here]
            if surface.finish.crumple:
                normal = crumpled(normal, u, v, surface.finish.crumple)
            ray = rays[:, here]
            towards = -ray / np.linalg.norm(ray, axis=0)
            above = camera.position[1] + distance[here] * ray[1]
            normal = one.turn @ normal
            colour[here] = shade((_sampled(art, u, v) / 255) ** 2, normal, towards, np.maximum(0, above), surface.finish, light)
            if surface.finish.see_through:  # towards its rim a filled bottle bends the light away from behind
                facing = np.clip(np.einsum("in,in->n", normal, towards), 0, 1)
                opacity[here] = 1 - surface.finish.see_through * facing
    return _Seen(colour, opacity, distance, face)


def _sampled(art: NDArray[np.uint8], u: Floats, v: Floats) -> Floats:
    """Read art (h, w, 3) at n places (u, v), each 0 to 1, between its four nearest pixels; (n, 3) of 0 to 255."""
    height, width, _ = art.shape
    x = np.clip(u * width - 0.5, 0, width - 1.001)
    y = np.clip(v * height - 0.5, 0, height - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    fx, fy = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    flat = art.reshape(-1, 3)
    corner = top * width + left
    right, down = (1 if width > 1 else 0), (width if height > 1 else 0)
    upper = flat[corner] * (1 - fx) + flat[corner + right] * fx
    lower = flat[corner + down] * (1 - fx) + flat[corner + down + right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


_DICE_DEVIATION = math.sqrt(2 * (256**2 - 1) / 12)  # of the sum of two uniform bytes


def _develop(picture: Floats, look: _Look, random: np.random.Generator) -> Image.Image:
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
        soft = Image.fromarray((picture * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(look.blur * max(width, height) / 1000))
        picture = np.asarray(soft, np.float32)
    else:
        picture *= 255
    if look.noise:
        # The sum of two dice is bell-shaped enough for grain, and ten times quicker than normal deviates.
        dice = np.frombuffer(random.bytes(2 * picture.size), np.uint8).reshape(2, *picture.shape)
        grain = dice[0].astype(np.float32) + dice[1] - 255
        picture = picture + grain * np.float32(look.noise / _DICE_DEVIATION)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
