"""Draws packages into a picture by casting rays, so that perspective, occlusion and boxes are right by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_catalogue.arrangement import Placed
from demo_catalogue.camera import Camera
from demo_catalogue.geometry import Floats, Hits
from demo_catalogue.lighting import Light, crumpled, shade

_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # a turned square grid


def draw_packages(
    picture: Floats, placed: Sequence[Placed], camera: Camera, light: Light, n_items: int
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Draw packages into a linear picture (height, width, 3), in place, the furthest first.

    Returns:
        The item number at each pixel (-1 where none), and how many pixels each item covers without the others.
    """
    height, width, _ = picture.shape
    depth = np.full((height, width), np.inf, np.float32)
    owners = np.full((height, width), -1, np.int16)
    alone = np.zeros(n_items, np.int64)
    for one in sorted(
        placed, key=lambda other: -float(np.linalg.norm(other.hull.mean(axis=1) - camera.position))
    ):
        spots = camera.project(one.hull)
        x1, y1 = (max(0, math.floor(float(value)) - 1) for value in spots.min(axis=1))
        x2 = min(width, math.ceil(float(spots[0].max())) + 1)
        y2 = min(height, math.ceil(float(spots[1].max())) + 1)
        if x1 >= x2 or y1 >= y2:
            continue
        xs, ys = np.meshgrid(
            np.arange(x1, x2, dtype=np.float32) + 0.5, np.arange(y1, y2, dtype=np.float32) + 0.5
        )
        shape = xs.shape
        seen = _look_at(one, camera, light, xs.ravel(), ys.ravel())
        colour, distance, face = (
            seen.colour.reshape(*shape, 3),
            seen.distance.reshape(shape),
            seen.face.reshape(shape),
        )
        opacity = seen.opacity.reshape(shape)
        coverage = np.isfinite(distance).astype(np.float32)
        rough = _edges(face)
        if rough.any():
            row, column = np.nonzero(rough)
            total = np.zeros((row.size, 3), np.float32)
            count = np.zeros(row.size, np.float32)
            nearest = distance[row, column]
            for dx, dy in _SUBPIXELS:
                fine = _look_at(
                    one, camera, light, xs[row, column] + np.float32(dx), ys[row, column] + np.float32(dy)
                )
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


def _look_at(one: Placed, camera: Camera, light: Light, x: Floats, y: Floats) -> _Seen:
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
    texels = (
        one.package.art_scale * float(np.linalg.norm(camera.position - one.hull.mean(axis=1))) / camera.focal
    )
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
            colour[here] = shade(
                (_sampled(art, u, v) / 255) ** 2, normal, towards, np.maximum(0, above), surface.finish, light
            )
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
