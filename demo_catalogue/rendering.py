"""Draws packages into a picture by casting rays, so that perspective, occlusion and boxes are right by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from demo_catalogue.arrangement import Placed
from demo_catalogue.camera import Camera
from demo_catalogue.geometry import Floats, Hits, convex_outline
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

    def nearness(one: Placed) -> float:
        return -float(np.linalg.norm(one.hull.mean(axis=1) - camera.position))

    for one in sorted(placed, key=nearness):
        rows, columns = _outlined_pixels(one, camera)
        if not rows.size:
            continue
        seen = _look_at(one, camera, light, columns + 0.5, rows + 0.5)
        coverage = _smooth_edges(seen, one, camera, light, rows, columns)
        if one.item >= 0:
            alone[one.item] = int(np.count_nonzero(coverage >= 0.5))
        coverage = np.where(seen.distance < depth[rows, columns], coverage, np.float32(0))
        behind = picture[rows, columns]
        picture[rows, columns] = behind + (coverage * seen.opacity)[:, None] * (seen.colour - behind)
        solid = coverage >= 0.5
        depth[rows[solid], columns[solid]] = seen.distance[solid]
        owners[rows[solid], columns[solid]] = one.item
    return owners, alone


def _outlined_pixels(one: Placed, camera: Camera) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels that may see a package: within its hull's outline, or just beside it."""
    x, y = camera.project(one.hull)
    left, top = max(0, math.floor(x.min()) - 2), max(0, math.floor(y.min()) - 2)
    right, bottom = min(camera.size[0], math.ceil(x.max()) + 2), min(camera.size[1], math.ceil(y.max()) + 2)
    if left >= right or top >= bottom:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    outline = Image.new("L", (right - left, bottom - top))
    pen = ImageDraw.Draw(outline)
    corners = convex_outline(x - left, y - top)
    pen.polygon(corners, fill=255)
    pen.line([*corners, corners[0], corners[1]], fill=255, width=4, joint="curve")
    rows, columns = np.nonzero(np.asarray(outline))
    return rows + top, columns + left


def _smooth_edges(
    seen: _Seen, one: Placed, camera: Camera, light: Light, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Floats:
    """Look four times, in place, at each pixel whose neighbour sees another face; tell the share (n,) that is hit."""
    row, column = rows - rows.min(), columns - columns.min()
    face = np.full((row.max() + 1, column.max() + 1), -1, np.int16)
    face[row, column] = seen.face
    rough = np.zeros(face.shape, bool)
    across, down = face[:, 1:] != face[:, :-1], face[1:] != face[:-1]
    rough[:, 1:] |= across
    rough[:, :-1] |= across
    rough[1:] |= down
    rough[:-1] |= down
    coverage = np.isfinite(seen.distance).astype(np.float32)
    edge = np.flatnonzero(rough[row, column])
    colour, hits = np.zeros((edge.size, 3), np.float32), np.zeros(edge.size, np.float32)
    nearest = seen.distance[edge]
    for dx, dy in _SUBPIXELS:
        fine = _look_at(one, camera, light, columns[edge] + 0.5 + dx, rows[edge] + 0.5 + dy)
        hit = np.isfinite(fine.distance)
        colour[hit] += fine.colour[hit]
        hits += hit
        nearest = np.minimum(nearest, fine.distance)
    seen.colour[edge] = colour / np.maximum(hits, 1)[:, None]
    seen.opacity[edge] = 1
    seen.distance[edge] = nearest
    coverage[edge] = hits / len(_SUBPIXELS)
    return coverage


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
