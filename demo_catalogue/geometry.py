"""Solids: where a ray of light meets a package, and which point of which surface it meets.

Lengths are millimetres. A package's own frame has x to the right, y up and z towards the buyer; it stands on y = 0
with its front at positive z. Points and directions are arrays of shape (3, n), float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Hits:
    """Where n rays meet a solid."""

    distance: Floats  # (n,) multiples of the direction's length; infinite where the ray misses
    normal: Floats  # (3, n) outward, about unit length; anything where the ray misses
    surface: NDArray[np.int8]  # (n,) number of the surface met
    u: Floats  # (n,) 0 to 1 from the left of the surface's picture
    v: Floats  # (n,) 0 to 1 from its top


class Solid(Protocol):
    @property
    def hull(self) -> Floats:
        """Points (3, m) whose convex hull holds the solid."""
        ...

    def trace(self, origin: Floats, direction: Floats) -> Hits:
        """Meet rays that start at one origin (3,) and run along directions (3, n)."""
        ...


@dataclass(frozen=True)
class Facet:
    """One plane of a convex solid: it keeps the points with normal . p <= offset."""

    normal: Vector
    offset: float
    surface: int
    u: tuple[Vector, float]  # u = vector . p + constant
    v: tuple[Vector, float]


class ConvexSolid:
    """What several planes enclose: boxes, cartons, block-bottom bags. Its edges catch light as if slightly round."""

    def __init__(self, facets: tuple[Facet, ...], corners: Floats, *, edge_mm: float = 1.6) -> None:
        self._facets = facets
        self._edge_mm = edge_mm
        self.hull = corners

    def trace(self, origin: Floats, direction: Floats) -> Hits:
        n = direction.shape[1]
        enter = np.full(n, -np.inf, np.float32)
        leave = np.full(n, np.inf, np.float32)
        met = np.zeros(n, np.int8)
        for number, facet in enumerate(self._facets):
            normal = np.asarray(facet.normal, np.float32)
            towards = normal @ direction
            room = np.float32(facet.offset - float(normal @ origin))
            with np.errstate(divide="ignore", invalid="ignore"):
                at = room / towards
            if room < 0:  # the origin lies outside this plane: rays can enter through it
                at = np.where(towards < 0, at, np.float32(np.inf))
                later = at > enter
                enter = np.where(later, at, enter)
                met[later] = number
            else:
                leave = np.minimum(leave, np.where(towards > 0, at, np.float32(np.inf)))
        distance = np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf))
        point = origin[:, None] + np.where(np.isfinite(distance), distance, 0) * direction
        normals = np.zeros((3, n), np.float32)
        u, v = np.zeros(n, np.float32), np.zeros(n, np.float32)
        surface = np.zeros(n, np.int8)
        for number, facet in enumerate(self._facets):
            here = np.flatnonzero((met == number) & np.isfinite(distance))
            if not here.size:
                continue
            p = point[:, here]
            normal = np.repeat(np.asarray(facet.normal, np.float32)[:, None], here.size, axis=1)
            for other in self._facets:
                if other is facet:
                    continue
                side = np.asarray(other.normal, np.float32)
                nearness = np.maximum(0, 1 - (np.float32(other.offset) - side @ p) / self._edge_mm)
                normal += 0.7 * side[:, None] * nearness**2
            normals[:, here] = normal
            u[here] = np.asarray(facet.u[0], np.float32) @ p + facet.u[1]
            v[here] = np.asarray(facet.v[0], np.float32) @ p + facet.v[1]
            surface[here] = facet.surface
        return Hits(distance, normals / np.maximum(1e-6, np.linalg.norm(normals, axis=0)), surface, u, v)


def cuboid(
    width: float, height: float, depth: float, *, middle: Vector = (0, 0, 0), edge_mm: float = 1.6
) -> ConvexSolid:
    """A box standing on middle; surfaces 0 to 5: front, back, left, right, top, bottom."""
    x, y, z = middle
    a, c = width / 2, depth / 2
    facets = (
        Facet(
            (0, 0, 1), c + z, 0, ((1 / width, 0, 0), 0.5 - x / width), ((0, -1 / height, 0), 1 + y / height)
        ),
        Facet(
            (0, 0, -1), c - z, 1, ((-1 / width, 0, 0), 0.5 + x / width), ((0, -1 / height, 0), 1 + y / height)
        ),
        Facet(
            (-1, 0, 0), a - x, 2, ((0, 0, 1 / depth), 0.5 - z / depth), ((0, -1 / height, 0), 1 + y / height)
        ),
        Facet(
            (1, 0, 0), a + x, 3, ((0, 0, -1 / depth), 0.5 + z / depth), ((0, -1 / height, 0), 1 + y / height)
        ),
        Facet(
            (0, 1, 0),
            height + y,
            4,
            ((1 / width, 0, 0), 0.5 - x / width),
            ((0, 0, 1 / depth), 0.5 - z / depth),
        ),
        Facet((0, -1, 0), -y, 5, ((1 / width, 0, 0), 0.5 - x / width), ((0, 0, -1 / depth), 0.5 + z / depth)),
    )
    corners = [(x + i * a, y + j * height, z + k * c) for i in (-1, 1) for j in (0, 1) for k in (-1, 1)]
    return ConvexSolid(facets, np.array(corners, np.float32).T, edge_mm=edge_mm)


def gabled(
    width: float, eaves: float, height: float, depth: float, *, ridge: float, edge_mm: float = 1.6
) -> ConvexSolid:
    """A box up to its eaves, then two slopes to a ridge of some thickness along x.

    Surfaces: 0 front, 1 back, 2 left, 3 right, 4 front slope, 5 back slope and top.
    """
    a, c, rise, run = width / 2, depth / 2, height - eaves, (depth - ridge) / 2
    slope = math.hypot(rise, run)
    ny, nz = run / slope, rise / slope
    offset = ny * height + nz * ridge / 2
    facets = (
        Facet((0, 0, 1), c, 0, ((1 / width, 0, 0), 0.5), ((0, -1 / eaves, 0), 1)),
        Facet((0, 0, -1), c, 1, ((-1 / width, 0, 0), 0.5), ((0, -1 / eaves, 0), 1)),
        Facet((-1, 0, 0), a, 2, ((0, 0, 1 / depth), 0.5), ((0, -1 / height, 0), 1)),
        Facet((1, 0, 0), a, 3, ((0, 0, -1 / depth), 0.5), ((0, -1 / height, 0), 1)),
        Facet((0, ny, nz), offset, 4, ((1 / width, 0, 0), 0.5), ((0, -1 / rise, 0), height / rise)),
        Facet((0, ny, -nz), offset, 5, ((-1 / width, 0, 0), 0.5), ((0, -1 / rise, 0), height / rise)),
        Facet((0, 1, 0), height, 5, ((1 / width, 0, 0), 0.5), ((0, 0, 0), 0.02)),
        Facet((0, -1, 0), 0, 5, ((1 / width, 0, 0), 0.5), ((0, 0, 0), 0.02)),
    )
    corners = [
        (i * a, y, k * z)
        for i in (-1, 1)
        for k in (-1, 1)
        for y, z in ((0, c), (eaves, c), (height, ridge / 2))
    ]
    return ConvexSolid(facets, np.array(corners, np.float32).T, edge_mm=edge_mm)


@dataclass(frozen=True)
class Ring:
    """One corner of a turned solid's outline, and the surface from there to the next corner."""

    radius: float
    height: float
    surface: int


class TurnedSolid:
    """An outline turned round the y axis: cans, bottles, jars. Squashed along z where its depth is not its width.

    The outline runs from the bottom's outer edge upwards, over the rim and, where there is one, down into the lid.
    Level parts (lids) take u, v from x, z; all others from the angle and the height between the surface's limits.
    """

    def __init__(self, rings: tuple[Ring, ...], *, squash: float = 1.0, at: Vector = (0, 0, 0)) -> None:
        self._squash = np.array([1, 1, 1 / squash], np.float32)
        self._at = np.asarray(at, np.float32)
        self._rings = rings
        limits: dict[int, tuple[float, float, float]] = {}
        for first, second in pairwise(rings):
            low, high, radius = limits.get(first.surface, (math.inf, -math.inf, 0.0))
            limits[first.surface] = (min(low, first.height, second.height), max(high, first.height, second.height),
                                     max(radius, first.radius, second.radius))  # fmt: skip
        self._limits = limits
        self._normals = self._smooth_normals()
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        profile = np.array(
            [(side * ring.radius, ring.height) for ring in rings for side in (-1, 1)], np.float32
        )
        steps = [
            (r / math.cos(math.pi / 20), y) for r, y in convex_outline(profile[:, 0], profile[:, 1]) if r >= 0
        ]
        points = np.array(
            [(r * math.sin(a), y, r * math.cos(a) * squash) for r, y in steps for a in angles], np.float32
        )
        self.hull = points.T + self._at[:, None]

    def _smooth_normals(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """Normals (outward, up) at both ends of each part, shared with the neighbour where the bend is soft."""
        own = []
        for first, second in pairwise(self._rings):
            dr, dy = second.radius - first.radius, second.height - first.height
            length = math.hypot(dr, dy)
            own.append((dy / length, -dr / length))
        ends = []
        for place, normal in enumerate(own):
            both = []
            for other in (place - 1, place + 1):
                shared = normal
                if 0 <= other < len(own) and normal[0] * own[other][0] + normal[1] * own[other][1] > math.cos(
                    math.radians(42)
                ):
                    shared = (normal[0] + own[other][0], normal[1] + own[other][1])
                    length = math.hypot(*shared)
                    shared = (shared[0] / length, shared[1] / length)
                both.append(shared)
            ends.append((both[0], both[1]))
        return ends

    def trace(self, origin: Floats, direction: Floats) -> Hits:
        ox, oy, oz = (float(value) for value in (origin - self._at) * self._squash)
        dx, dy, dz = direction[0], direction[1], direction[2] * self._squash[2]
        n = direction.shape[1]
        best = np.full(n, np.inf, np.float32)
        met = np.full(n, -1, np.int8)
        flat = dx * dx + dz * dz
        inward = ox * dx + oz * dz
        centre = ox * ox + oz * oz
        with np.errstate(divide="ignore", invalid="ignore"):
            for number, (first, second) in enumerate(pairwise(self._rings)):
                rise = second.height - first.height
                if abs(rise) < 1e-6:
                    at = (first.height - oy) / dy
                    radius = (ox + at * dx) ** 2 + (oz + at * dz) ** 2
                    inner, outer = sorted((first.radius, second.radius))
                    good = (radius >= inner * inner) & (radius <= outer * outer)
                else:
                    slope = (second.radius - first.radius) / rise
                    reach = first.radius + slope * (oy - first.height)
                    a = flat - slope * slope * dy * dy
                    b = inward - reach * slope * dy
                    root = np.sqrt(b * b - a * (centre - reach * reach))
                    # Outer walls are met where the ray goes in, inner walls of a rim where it goes out.
                    at = (-b - root) / a if rise > 0 else (-b + root) / a
                    height = oy + at * dy
                    good = (height >= min(first.height, second.height)) & (
                        height <= max(first.height, second.height)
                    )
                good &= (at > 0) & (at < best)
                best = np.where(good, at, best)
                met[good] = number
        return self._describe((ox, oy, oz), (dx, dy, dz), best.astype(np.float32), met)

    def _describe(
        self, origin: Vector, direction: tuple[Floats, Floats, Floats], best: Floats, met: NDArray[np.int8]
    ) -> Hits:
        n = best.size
        normals = np.zeros((3, n), np.float32)
        u, v = np.zeros(n, np.float32), np.zeros(n, np.float32)
        surface = np.zeros(n, np.int8)
        for number, (first, second) in enumerate(pairwise(self._rings)):
            here = np.flatnonzero(met == number)
            if not here.size:
                continue
            x, y, z = (
                start + best[here] * along[here] for start, along in zip(origin, direction, strict=True)
            )
            low, high, outermost = self._limits[first.surface]
            rise = second.height - first.height
            surface[here] = first.surface
            if abs(rise) < 1e-6:
                normals[1, here] = 1 if second.radius < first.radius else -1
                u[here], v[here] = 0.5 + x / (2 * outermost), 0.5 + z / (2 * outermost)
                continue
            share = (y - first.height) / rise
            start, end = self._normals[number]
            outward = start[0] + share * (end[0] - start[0])
            radius = np.maximum(1e-3, np.hypot(x, z))
            normals[0, here] = outward * x / radius
            normals[1, here] = start[1] + share * (end[1] - start[1])
            normals[2, here] = outward * z / radius
            u[here] = 0.5 + np.arctan2(x, z) / (2 * np.pi)
            v[here] = (high - y) / (high - low)
        normals *= self._squash[:, None]
        normals /= np.maximum(1e-6, np.linalg.norm(normals, axis=0))
        return Hits(best, normals, surface, u, v)


class Pillow:
    """A bag of film, sealed flat at top and bottom and blown up between. Surfaces: 0 front, 1 back."""

    _STEPS = 18  # the bag is a smooth bulge; finer steps change no pixel
    _SEAL = 0.93  # beyond this share of the half height the film lies flat

    def __init__(self, width: float, height: float, depth: float) -> None:
        self._half = np.array([width / 2, height / 2, depth / 2], np.float32)
        x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 11)))
        thickness = 1.03 * self._film(x, y)  # a little more, for the film bulges between points
        upper, lower = (np.stack([x * width / 2, (y + 1) * height / 2, side * thickness]) for side in (1, -1))
        self.hull = np.concatenate([upper, lower], axis=1).astype(np.float32)

    def _thickness(self, x: Floats, y: Floats) -> Floats:
        """Half thickness in mm over (x, y) as shares of the half sides; negative outside the outline."""
        tall = np.abs(y)
        waist = 1 - 0.05 * (1 - y * y)
        across = np.maximum(0, 1 - (x / waist) ** 2)
        along = np.maximum(0, 1 - (tall / self._SEAL) ** 6)
        bulge = self._half[2] * across**0.62 * np.sqrt(along)
        teeth = 1 - 0.012 * np.abs((x * 22) % 2 - 1)
        return np.where((np.abs(x) < waist) & (tall < teeth), np.maximum(bulge, 0.5), np.float32(-1))

    def _film(self, x: Floats, y: Floats) -> Floats:
        return np.maximum(0, self._thickness(x, y))

    def trace(self, origin: Floats, direction: Floats) -> Hits:
        a, b, c = (float(value) for value in self._half)
        start = origin - np.array([0, b, 0], np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = np.array([[a], [b], [1.02 * c]], np.float32)
            first, second = (-limit - start[:, None]) / direction, (limit - start[:, None]) / direction
        near = np.minimum(first, second).max(axis=0)
        far = np.maximum(first, second).min(axis=0)
        n = near.size
        distance = np.full(n, np.inf, np.float32)
        normals = np.zeros((3, n), np.float32)
        u, v = np.zeros(n, np.float32), np.zeros(n, np.float32)
        surface = np.zeros(n, np.int8)
        rays = np.flatnonzero((near < far) & (near > 0))
        outside, inside = near[rays].copy(), np.full(rays.size, np.nan, np.float32)
        step = (far[rays] - near[rays]) / self._STEPS
        looking = np.arange(rays.size)
        for turn in range(1, self._STEPS):
            at = near[rays[looking]] + turn * step[looking]
            within = self._depth_inside(start, direction[:, rays[looking]], at) > 0
            inside[looking[within]] = at[within]
            outside[looking[~within]] = at[~within]
            looking = looking[~within]
        found = np.flatnonzero(np.isfinite(inside))
        rays, low, high = rays[found], outside[found], inside[found]
        along = direction[:, rays]
        for _ in range(5):
            middle = (low + high) / 2
            within = self._depth_inside(start, along, middle) > 0
            low, high = np.where(within, low, middle), np.where(within, middle, high)
        p = start[:, None] + high * along
        x, y = p[0] / a, p[1] / b
        facing = np.where(p[2] >= 0, np.float32(1), np.float32(-1))
        nudge = np.float32(0.02)
        slope_x = (self._film(x + nudge, y) - self._film(x - nudge, y)) / (2 * nudge * a)
        slope_y = (self._film(x, y + nudge) - self._film(x, y - nudge)) / (2 * nudge * b)
        normal = np.stack([-slope_x, -slope_y, facing])
        distance[rays] = high
        normals[:, rays] = normal / np.linalg.norm(normal, axis=0)
        surface[rays] = np.where(facing > 0, 0, 1)
        u[rays], v[rays] = 0.5 + 0.5 * facing * x, 0.5 - 0.5 * y
        return Hits(distance, normals, surface, u, v)

    def _depth_inside(self, start: Floats, direction: Floats, at: Floats) -> Floats:
        p = start[:, None] + at * direction
        return np.asarray(self._thickness(p[0] / self._half[0], p[1] / self._half[1]) - np.abs(p[2]))


def convex_outline(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """The convex hull of plane points, in order (Andrew's monotone chain)."""
    ordered = sorted(set(zip(x.tolist(), y.tolist(), strict=True)))
    outline: list[tuple[float, float]] = []
    for direction in (ordered, ordered[::-1]):
        start = len(outline)
        for px, py in direction:
            while len(outline) >= start + 2:
                (x1, y1), (x2, y2) = outline[-2:]
                if (x2 - x1) * (py - y1) - (y2 - y1) * (px - x1) > 0:
                    break
                outline.pop()
            outline.append((px, py))
        outline.pop()
    return outline


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """Turn by degrees: roll about z first, then pitch about x, then yaw about y; (3, 3), acts on columns."""
    cy, sy = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cp, sp = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    cr, sr = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z, np.float32)
