"""Rays, solids and the camera against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from demo_catalogue import list_products
from demo_catalogue.camera import Camera
from demo_catalogue.geometry import Pillow, Ring, TurnedSolid, convex_outline, cuboid, gabled, rotation
from demo_catalogue.packages import build_package
from demo_catalogue.products import DemoProduct


def aimed(pitch: float = 30, roll: float = 0) -> Camera:
    return Camera.aimed(
        (10, 50, -5), pitch=pitch, azimuth=20, roll=roll, distance=700, size=(320, 240), view_angle=40
    )


def rays(*directions: tuple[float, float, float]) -> np.ndarray:
    return np.array(directions, np.float32).T


def test_a_box_is_met_at_its_front() -> None:
    hits = cuboid(60, 100, 40).trace(
        np.array([0, 50, 500], np.float32), rays((0, 0, -1), (0.02, 0.03, -1), (1, 0, -1))
    )
    assert hits.distance[:2] == pytest.approx([480, 480])
    assert np.isinf(hits.distance[2])
    assert hits.surface[0] == 0
    assert hits.normal[:, 0] == pytest.approx([0, 0, 1])
    assert (hits.u[0], hits.v[0]) == pytest.approx((0.5, 0.5))
    # 480 * 0.02 mm to the right of 60 mm, 480 * 0.03 mm up of 100 mm
    assert (hits.u[1], hits.v[1]) == pytest.approx((0.5 + 9.6 / 60, 0.5 - 14.4 / 100))


def test_a_box_is_met_at_its_top_from_above() -> None:
    hits = cuboid(60, 100, 40, middle=(5, 20, 0)).trace(np.array([0, 500, 0], np.float32), rays((0, -1, 0)))
    assert hits.distance[0] == pytest.approx(380)
    assert hits.surface[0] == 4
    assert hits.u[0] == pytest.approx(0.5 - 5 / 60)


def test_a_gable_is_met_at_its_slope_and_ridge() -> None:
    carton = gabled(72, 180, 220, 72, ridge=4)
    down = carton.trace(np.array([0, 500, 19], np.float32), rays((0, -1, 0)))
    assert down.distance[0] == pytest.approx(500 - 200, abs=0.01)  # half way from eaves to ridge
    assert down.surface[0] == 4
    assert down.v[0] == pytest.approx(0.5, abs=0.01)


def test_a_cylinder_is_met_at_its_wall_its_lid_and_inside_its_rim() -> None:
    cup = TurnedSolid((Ring(30, 0, 0), Ring(30, 100, 1), Ring(25, 100, 1), Ring(25, 90, 2), Ring(0, 90, 2)))
    level = cup.trace(np.array([0, 50, 300], np.float32), rays((0, 0, -1), (0.05, 0, -1), (0.2, 0, -1)))
    assert level.distance[0] == pytest.approx(270)
    assert (level.u[0], level.v[0]) == pytest.approx((0.5, 0.5))
    assert level.u[1] > 0.5  # to the right
    assert np.isinf(level.distance[2])
    above = cup.trace(np.array([0, 400, 0], np.float32), rays((0, -1, 0), (0.09, -1, 0)))
    assert above.distance == pytest.approx([310, 300])  # the sunk lid, then the rim
    assert above.normal[1] == pytest.approx([1, 1])
    slant = cup.trace(np.array([-290, 395, 0], np.float32), rays((1.04, -1, 0)))
    assert slant.normal[0, 0] == pytest.approx(-1)  # the inner wall of the rim, which looks inwards


def test_a_squashed_bottle_is_as_deep_as_it_should_be() -> None:
    bottle = TurnedSolid((Ring(30, 0, 0), Ring(30, 100, 1), Ring(0, 100, 1)), squash=0.5)
    hits = bottle.trace(np.array([0, 50, 300], np.float32), rays((0, 0, -1)))
    assert hits.distance[0] == pytest.approx(285)
    assert np.ptp(bottle.hull[2]) == pytest.approx(30, rel=0.02)


def test_a_bag_is_thick_in_the_middle_and_flat_at_its_seal() -> None:
    bag = Pillow(180, 260, 60)
    hits = bag.trace(np.array([0, 130, 600], np.float32), rays((0, 0, -1), (0, 0.2125, -1), (0.2, 0, -1)))
    assert hits.distance[0] == pytest.approx(570, abs=0.5)
    assert hits.distance[1] > 590
    assert np.isinf(hits.distance[2])


@pytest.mark.parametrize("product", list_products()[::4], ids=lambda product: product.sku)
def test_a_hull_holds_all_of_its_package(product: DemoProduct) -> None:
    """Boxes of pixels to draw, and framing, rely on it."""
    package = build_package(product)
    camera = aimed()
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(0, 320, 3) + 0.5, np.arange(0, 240, 3) + 0.5))
    directions = camera.rays(x.astype(np.float32), y.astype(np.float32))
    low, high = camera.project(package.hull).min(axis=1), camera.project(package.hull).max(axis=1)
    for part in package.parts:
        hit = np.isfinite(part.solid.trace(camera.position, directions).distance)
        assert hit.any() or product.shape in ("gable_carton", "block_bag", "brick_carton")
        for axis, pixels in enumerate((x, y)):
            assert pixels[hit].min(initial=np.inf) >= low[axis] - 1
            assert pixels[hit].max(initial=-np.inf) <= high[axis] + 1


def test_rays_pass_through_what_is_projected_where_they_start() -> None:
    camera = aimed(roll=7)
    points = np.array([[0, 40, -30, 10], [0, 90, 10, 50], [0, 25, 60, -5]], np.float32)
    pixels = camera.project(points)
    directions = camera.rays(pixels[0], pixels[1])
    towards = points - camera.position[:, None]
    cosine = (
        np.sum(directions * towards, axis=0)
        / np.linalg.norm(directions, axis=0)
        / np.linalg.norm(towards, axis=0)
    )
    assert cosine == pytest.approx(1, abs=1e-6)
    assert pixels[:, 3] == pytest.approx([160, 120], abs=1e-3)  # the target is in the middle


def test_the_ground_matrix_undoes_projection() -> None:
    camera = aimed(pitch=50, roll=-4)
    ground = np.array([[0, 80, -60], [0, 0, 0], [0, 40, -90]], np.float32)
    pixels = np.concatenate([camera.project(ground), np.ones((1, 3))])
    x, z, scale = camera.ground_matrix() @ pixels
    assert x / scale == pytest.approx(ground[0], abs=0.01)
    assert z / scale == pytest.approx(ground[2], abs=0.01)


def test_a_turn_keeps_lengths_and_lays_the_front_up() -> None:
    turn = rotation(33, -90, 0)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-6)
    assert turn @ np.array([0, 0, 1]) == pytest.approx([0, 1, 0], abs=1e-6)


def test_the_outline_of_points_leaves_out_those_within() -> None:
    x, y = np.array([0, 4, 4, 0, 2, 1, 2.0]), np.array([0, 0, 4, 4, 2, 3, 0.0])
    assert set(convex_outline(x, y)) == {(0, 0), (4, 0), (4, 4), (0, 4)}
