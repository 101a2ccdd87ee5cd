"""Reference pictures and scenes: the truth that comes with them is true, and the same seed gives the same picture."""

from __future__ import annotations

import numpy as np
import pytest

from demo_catalogue import (
    DemoProduct,
    Scene,
    list_products,
    more_products,
    render_reference,
    render_reference_image,
    render_scene,
)
from demo_catalogue.packages import build_package
from demo_catalogue.surroundings import BACKGROUNDS, Background

PRODUCTS = list_products()
SMALL = (480, 320)


def assert_truth(scene: Scene) -> None:
    """Boxes are the tight bounds of the pixels that the renderer gave to each item, and lie inside the picture."""
    width, height = scene.image.size
    assert scene.owners.shape == (height, width)
    assert set(np.unique(scene.owners)) <= set(range(-1, len(scene.items)))
    for number, item in enumerate(scene.items):
        mask = scene.owners == number
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        assert item.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert 0 <= item.box[0] < item.box[2] <= width
        assert 0 <= item.box[1] < item.box[3] <= height
        assert 0 < item.visible_share <= 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_scene_shows_each_product_once_in_its_box(background: Background) -> None:
    chosen = PRODUCTS[3:43:8]
    scene = render_scene(chosen, seed=5, size=SMALL, background=background)
    assert scene.image.mode == "RGB"
    assert scene.image.size == SMALL
    assert [item.sku for item in scene.items] == [product.sku for product in chosen]
    assert_truth(scene)
    assert min(item.visible_share for item in scene.items) > 0.6


def test_the_truth_agrees_with_the_pixels() -> None:
    """On the studio's white, what is not white is the product or its shadow: the box may not miss any colour."""
    for product in PRODUCTS[::5]:
        scene = render_reference(product, view=0, seed=2, size=(200, 200))
        pixels = np.asarray(scene.image, np.float32)
        colourful = np.ptp(pixels, axis=2) > 60  # shadows are grey
        missed = colourful & (scene.owners < 0)
        assert missed.mean() <= 0.002
        x1, y1, x2, y2 = scene.items[0].box
        assert max(x2 - x1, y2 - y1) > 0.7 * 200


def test_the_same_seed_gives_the_same_bytes_whatever_was_drawn_before() -> None:
    product = PRODUCTS[7]
    first = render_reference_image(product, view=3, seed=11, size=(160, 160)).tobytes()
    scene = render_scene(PRODUCTS[:3], seed=8, size=SMALL)
    build_package.cache_clear()
    assert render_scene(PRODUCTS[:3], seed=8, size=SMALL).image.tobytes() == scene.image.tobytes()
    assert render_reference_image(product, view=3, seed=11, size=(160, 160)).tobytes() == first


def test_another_view_seed_or_product_gives_another_picture() -> None:
    pictures = {
        render_reference_image(product, view=view, seed=seed, size=(96, 96)).tobytes()
        for product in PRODUCTS[:2]
        for view in (0, 1, 2)
        for seed in (1, 2)
    }
    assert len(pictures) == 12


@pytest.mark.parametrize("product", more_products(14, seed=4), ids=lambda product: product.sku)
def test_invented_products_can_be_drawn(product: DemoProduct) -> None:
    for view in (0, 1):
        scene = render_reference(product, view=view, seed=1, size=(120, 120))
        assert [item.sku for item in scene.items] == [product.sku]
        assert_truth(scene)
        assert scene.items[0].visible_share == 1


def test_a_dense_scene_holds_many_products_that_overlap() -> None:
    many = [PRODUCTS[(7 * number) % len(PRODUCTS)] for number in range(34)]
    scene = render_scene(many, seed=4, size=(900, 600), dense=True)
    assert_truth(scene)
    assert len(scene.items) >= 32
    shares = np.array([item.visible_share for item in scene.items])
    assert np.median(shares) > 0.9
    assert shares.min() < 0.95  # some hide others
    x1, y1, x2, y2 = np.array([item.box for item in scene.items]).T
    wide = np.minimum.outer(x2, x2) - np.maximum.outer(x1, x1)
    high = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
    overlapping = np.triu((wide > 0) & (high > 0), k=1)
    assert overlapping.sum() >= 15


def test_a_product_may_come_twice() -> None:
    scene = render_scene([PRODUCTS[0], PRODUCTS[0], PRODUCTS[4]], seed=3, size=SMALL)
    assert [item.sku for item in scene.items] == [PRODUCTS[0].sku, PRODUCTS[0].sku, PRODUCTS[4].sku]
    assert scene.items[0].box != scene.items[1].box


@pytest.mark.parametrize("background", ["conveyor", "wood"])
def test_a_scene_may_be_empty(background: Background) -> None:
    scene = render_scene([], seed=2, size=SMALL, background=background)
    assert scene.items == ()
    assert (scene.owners == -1).all()
    assert np.asarray(scene.image).std() > 1  # the ground is there
