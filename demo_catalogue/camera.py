"""The camera over the ground: from world points to pixels, and from pixels to rays and to the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_catalogue.geometry import Floats, Vector


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over the ground plane y = 0."""

    position: Floats  # (3,)
    axes: Floats  # (3, 3): rows right, up, forward
    focal: float  # pixels
    centre: tuple[float, float]  # pixel where the forward axis meets the picture
    size: tuple[int, int]  # width, height

    @classmethod
    def aimed(
        cls,
        target: Vector,
        *,
        pitch: float,
        azimuth: float,
        roll: float,
        distance: float,
        size: tuple[int, int],
        view_angle: float,
    ) -> Camera:
        """Look at a target from a distance, pitch degrees from above and azimuth degrees from the right.

        Args:
            target: Point in the middle of the picture.
            pitch: 0 level to 90 straight down.
            azimuth: 0 from the front.
            roll: Turn of the camera about its own axis, degrees.
            distance: Millimetres from the target.
            size: Width and height of the picture, pixels.
            view_angle: Degrees across the longer side.
        """
        up_angle, side_angle = math.radians(pitch), math.radians(azimuth)
        back = np.array(
            [
                math.cos(up_angle) * math.sin(side_angle),
                math.sin(up_angle),
                math.cos(up_angle) * math.cos(side_angle),
            ]
        )
        right = np.array([math.cos(side_angle), 0, -math.sin(side_angle)])
        up = np.cross(back, right)
        cr, sr = math.cos(math.radians(roll)), math.sin(math.radians(roll))
        axes = np.stack([cr * right + sr * up, cr * up - sr * right, -back])
        focal = max(size) / 2 / math.tan(math.radians(view_angle) / 2)
        return cls(
            (np.asarray(target) + distance * back).astype(np.float32),
            axes.astype(np.float32),
            focal,
            (size[0] / 2, size[1] / 2),
            size,
        )

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Directions (3, n) through pixel positions; a pixel's middle is at its number plus 0.5."""
        right, up, forward = self.axes
        across = ((x - self.centre[0]) / self.focal).astype(np.float32)
        down = ((y - self.centre[1]) / self.focal).astype(np.float32)
        return np.asarray(right[:, None] * across - up[:, None] * down + forward[:, None])

    def project(self, points: Floats) -> Floats:
        """Pixel positions (2, n) of points (3, n), which must lie in front of the camera."""
        seen = self.axes @ (points - self.position[:, None])
        return np.stack(
            [self.centre[0] + self.focal * seen[0] / seen[2], self.centre[1] - self.focal * seen[1] / seen[2]]
        )

    def ground_matrix(self) -> NDArray[np.float64]:
        """The homography (3, 3) from a pixel (x, y, 1) to a ground point (x, z, 1), up to scale."""
        right, up, forward = self.axes.astype(np.float64)
        across, down = right / self.focal, -up / self.focal
        direction = np.stack(
            [across, down, forward - across * self.centre[0] - down * self.centre[1]], axis=1
        )
        px, py, pz = self.position.astype(np.float64)
        # Ground point = position - (py / dy) direction, multiplied by dy.
        return np.stack(
            [px * direction[1] - py * direction[0], pz * direction[1] - py * direction[2], direction[1]]
        )
