"""Pictures of products with the truth about them: reference pictures of one, checkout scenes of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_catalogue.arrangement import LIES, ROUND, Placed, arrange, frame_camera, lay_divider, rest
from demo_catalogue.camera import Camera
from demo_catalogue.lighting import any_light, studio_light
from demo_catalogue.photograph import Look, develop
from demo_catalogue.products import DemoProduct
from demo_catalogue.randomness import generator
from demo_catalogue.rendering import draw_packages
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

_REFERENCE_PLACES: tuple[Background, ...] = ("wood", "shelf", "studio", "conveyor", "cloth", "scale")
_SCENE_PLACES: tuple[Background, ...] = ("conveyor", "wood", "shelf", "scale", "conveyor", "cloth")


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


def render_reference_image(
    product: DemoProduct, *, view: int, seed: int, size: tuple[int, int] = (320, 320)
) -> Image.Image:
    """Draw a reference picture of a product: the image of render_reference, without the truth."""
    return render_reference(product, view=view, seed=seed, size=size).image


def render_reference(
    product: DemoProduct, *, view: int, seed: int, size: tuple[int, int] = (320, 320)
) -> Scene:
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
    width, height, _ = product.size_mm
    if view == 0:
        placed = rest(product, random, yaw=float(random.uniform(-14, 14)), lying=False, item=0)
        camera = frame_camera(
            [placed],
            size,
            pitch=24.0 if height < 0.7 * width else 9.0,  # low things also show their lid
            azimuth=0.0,
            roll=0.0,
            fill=0.86,
            view_angle=30.0,
            random=None,
        )
        return _expose([placed], (product,), camera, "studio", random, Look.studio(), clutter=0)
    background = _REFERENCE_PLACES[int(random.integers(len(_REFERENCE_PLACES)))]
    lying = bool(background != "shelf" and random.random() < 0.6 * LIES[product.shape])
    spread = 70.0 if product.shape in ROUND else 38.0
    placed = rest(product, random, yaw=float(random.uniform(-spread, spread)), lying=lying, item=0)
    low, high = (42, 74) if lying else (4, 20) if background == "shelf" else (8, 46)
    camera = frame_camera(
        [placed],
        size,
        pitch=float(random.uniform(low, high)),
        azimuth=0.0,
        roll=float(random.normal(0, 4)),
        fill=float(random.uniform(0.62, 0.86)),
        view_angle=float(random.uniform(24, 38)),
        random=random,
    )
    look = Look.drawn(random, gentle=False)
    return _expose([placed], (product,), camera, background, random, look, clutter=int(random.integers(0, 3)))


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
        products: What lies there; a product may come more than once, and there may be none.
        seed: Another seed, another arrangement of the same products.
        size: Width and height in pixels.
        background: None lets the seed choose.
        dense: Pack the products so that they touch and partly hide one another, as for 30 and more of them.
        clutter: Also lay receipts, coins and a divider bar about.
    Returns:
        The picture and its items. A product of which nothing can be seen is no item; the others keep their order.
    """
    random = generator("scene", seed, *(product.sku for product in products))
    chosen = background or _SCENE_PLACES[int(random.integers(len(_SCENE_PLACES)))]
    upright = chosen == "shelf"
    pitch = float(random.uniform(9, 20) if upright else random.uniform(40, 60))
    placed = arrange(products, random, upright=upright, dense=dense, pitch=pitch, aspect=size[0] / size[1])
    camera = frame_camera(
        placed,
        size,
        pitch=pitch,
        azimuth=float(random.uniform(-12, 12)),
        roll=float(random.normal(0, 2.5)),
        fill=0.9 if dense else 0.84,
        view_angle=float(random.uniform(38, 52)),
        random=random,
    )
    scattered = clutter and not upright
    if clutter and chosen == "conveyor" and random.random() < 0.6:
        placed.append(lay_divider(placed, random))
    look = Look.drawn(random, gentle=True)
    n_clutter = int(random.integers(2, 7)) if scattered else 0
    return _expose(placed, products, camera, chosen, random, look, clutter=n_clutter)


def _expose(
    placed: Sequence[Placed],
    products: Sequence[DemoProduct],
    camera: Camera,
    background: Background,
    random: np.random.Generator,
    look: Look,
    *,
    clutter: int,
) -> Scene:
    """Draw the surroundings, then the products into them, then let the camera spoil the picture a little."""
    hulls = [one.hull for one in placed]
    sheet = visible_sheet(camera, background)
    ground = draw_ground(background, random, sheet, hulls)
    scatter_clutter(ground, sheet, random, clutter)
    tone = np.asarray(ground.resize((1, 1), Image.Resampling.BOX), np.float32)[0, 0] / 255
    light = studio_light() if background == "studio" else any_light(random, tone**2)
    shadowed = cast_shadows(ground, sheet, hulls, light)
    frame = paint_ground(draw_backdrop(background, random, camera.size), shadowed, sheet, camera)
    picture = (np.asarray(frame, np.float32) / 255) ** 2 * np.float32(light.on_ground)
    owners, alone = draw_packages(picture, placed, camera, light, len(products))
    image = develop(picture, look, random)
    items: list[SceneItem] = []
    numbers = np.full(
        len(products) + 1, -1, np.int16
    )  # of items by product; the last is for "none", which is -1
    for product_number, product in enumerate(products):
        rows, columns = np.nonzero(owners == product_number)
        if not rows.size:
            continue
        numbers[product_number] = len(items)
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        items.append(SceneItem(product.sku, box, rows.size / max(int(alone[product_number]), rows.size)))
    return Scene(image, tuple(items), numbers[owners])
