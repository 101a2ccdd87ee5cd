"""How the published recipe varies a scene before the detector sees it, its boxes moved along exactly.

`picodet_640_reader.yml` of PaddleDetection, in its order: RandomCrop, RandomFlip, RandomDistort for each picture, then
BatchRandomResize for each batch. Boxes are (G, 4) float32 x1, y1, x2, y2 in pixels, and no step leaves one without
area.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recognition.boxes import clip, pairwise_iou
from recognition.images import resize
from training.data.augment import recoloured, saturation
from training.data.coco import Truth, boxes_of_some_area
from training.data.randomness import Stream, generator

# RandomCrop of PaddleDetection, which has them from SSD (Liu et al., 2016, section 2.2, "Data augmentation").
CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
CROP_ASPECTS = (0.5, 2.0)
CROP_SCALES = (0.3, 1.0)
CROP_ATTEMPTS = 50

FLIP = 0.5

# RandomDistort of PaddleDetection: each of the four with this chance.
DISTORT = 0.5
HUE_HALF_TURNS = 18.0
GAINS = (0.5, 1.5)
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]], np.float64)

# BatchRandomResize of the recipe, for an input of 640.
PUBLISHED_INPUT = 640
PUBLISHED_SIZES = (576, 608, 640, 672, 704)
SIZE_STEP = 32

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "area", "bicubic", "lanczos")
PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}

Pixels = NDArray[np.uint8]


def random_crop(pixels: Pixels, truth: Truth, random: np.random.Generator) -> tuple[Pixels, Truth]:
    """Cut a part out at random that holds some box well enough, or leave the picture whole.

    One of seven wishes is drawn, "whole" or an overlap (IoU) that some box must have with the part, and tried up to 50
    times; the next wish follows where it fails. A box stays when its centre is in the part, cut off at its borders.

    Args:
        pixels: (h, w, 3).
        truth: a picture without boxes stays whole.
        random: of this picture.
    Returns:
        A view of the part, and its boxes in its pixels: one or more where there were any.
    """
    height, width = pixels.shape[:2]
    wishes: list[float | None] = [*CROP_OVERLAPS, None]
    if not len(truth.boxes) or min(width, height) < 2:
        return pixels, truth
    for place in random.permutation(len(wishes)).tolist():
        overlap = wishes[place]
        if overlap is None:
            return pixels, truth
        for _ in range(CROP_ATTEMPTS):
            part = _random_part(width, height, random)
            if pairwise_iou(truth.boxes, part[None]).max() < overlap:
                continue
            inside = _inside(truth, part)
            if len(inside.boxes):
                left, top, right, bottom = part.astype(int).tolist()
                return pixels[top:bottom, left:right], inside
    return pixels, truth


def _random_part(width: int, height: int, random: np.random.Generator) -> NDArray[np.float32]:
    scale = random.uniform(*CROP_SCALES)
    lowest, highest = CROP_ASPECTS
    # Of the part's share of the width over its share of the height; within bounds at which both are 1 at most.
    aspect = random.uniform(max(lowest, scale**2), min(highest, scale**-2))
    part_width = max(1, min(width, int(width * scale * math.sqrt(aspect))))
    part_height = max(1, min(height, int(height * scale / math.sqrt(aspect))))
    left = int(random.integers(width - part_width + 1))
    top = int(random.integers(height - part_height + 1))
    return np.array([left, top, left + part_width, top + part_height], np.float32)


def _inside(truth: Truth, part: NDArray[np.float32]) -> Truth:
    left, top, right, bottom = part.tolist()
    moved = truth.boxes - np.array([left, top, left, top], np.float32)
    cut = clip(moved, right - left, bottom - top)
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    kept = (
        (centres >= 0).all(axis=1)
        & (centres < [right - left, bottom - top]).all(axis=1)
        & boxes_of_some_area(cut)
    )
    return Truth(cut[kept], truth.labels[kept])


def flipped(pixels: Pixels, truth: Truth) -> tuple[Pixels, Truth]:
    """Left becomes right."""
    width = np.float32(pixels.shape[1])
    x1, y1, x2, y2 = truth.boxes.T
    return pixels[:, ::-1], Truth(np.stack([width - x2, y1, width - x1, y2], axis=1), truth.labels)


def distorted(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Change hue, saturation, contrast and brightness, each or not, in any order.

    As upstream, whose contrast is a gain like its brightness (no mean is kept), and whose hue turns the colour plane
    of YIQ by up to 18 half turns, that is: to any angle, and not by the 18 degrees that its name suggests. Published
    weights were trained so. Deviation: values beyond 0..255 are cut off at the end, where upstream
    goes on with them.

    Args:
        pixels: (h, w, 3).
        random: of this picture.
    """
    steps: tuple[Callable[[np.random.Generator], NDArray[np.float64]], ...] = (
        _hue_turn,
        _saturation,
        _gain,
        _gain,
    )
    colours = np.eye(3)  # all four are linear, and so one map of the colours
    for place in random.permutation(len(steps)).tolist():
        if random.random() < DISTORT:
            colours = steps[place](random) @ colours
    return recoloured(pixels, colours)


def _hue_turn(random: np.random.Generator) -> NDArray[np.float64]:
    angle = random.uniform(-HUE_HALF_TURNS, HUE_HALF_TURNS) * math.pi
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    matrix: NDArray[np.float64] = np.linalg.inv(TO_YIQ) @ turn @ TO_YIQ
    return matrix


def _saturation(random: np.random.Generator) -> NDArray[np.float64]:
    return saturation(random.uniform(*GAINS))


def _gain(random: np.random.Generator) -> NDArray[np.float64]:
    return np.eye(3) * random.uniform(*GAINS)


def resized(
    pixels: Pixels, truth: Truth, width: int, height: int, interpolation: Interpolation
) -> tuple[Pixels, Truth]:
    """Stretch a scene and its boxes.

    Args:
        pixels: (h, w, 3).
        truth: its boxes.
        width: wanted.
        height: wanted.
        interpolation: bilinear and bicubic are OpenCV's, as a card without antialias means them; the others are
            Pillow's, whose Lanczos averages where OpenCV's samples.
    """
    rows, columns = pixels.shape[:2]
    if interpolation == "bilinear" or interpolation == "bicubic":
        stretched = resize(pixels, width, height, interpolation=interpolation, antialias=False)
    else:
        stretched = np.asarray(Image.fromarray(pixels).resize((width, height), PILLOW_FILTERS[interpolation]))
    scale = np.array([width / columns, height / rows] * 2)
    boxes = clip((truth.boxes * scale).astype(np.float32), width, height)
    return stretched, Truth(boxes, truth.labels)


@dataclass(frozen=True)
class BatchShape:
    """What all scenes of a batch are resized to.

    Attributes:
        width: in pixels.
        height: in pixels.
        interpolation: how.
    """

    width: int
    height: int
    interpolation: Interpolation


@dataclass(frozen=True)
class DetectionAugmentation:
    """The published detector's recipe for an input of any size.

    Attributes:
        width: of the network's input, a multiple of `step`.
        height: likewise.
        multi_scale: batches of 576 to 704 pixels in steps of 32 for an input of 640, and in proportion for others.
        step: sizes are multiples of it.
        crop: whether parts are cut out.
        distort: whether colours are changed.
    """

    width: int = PUBLISHED_INPUT
    height: int = PUBLISHED_INPUT
    multi_scale: bool = True
    step: int = SIZE_STEP
    crop: bool = True
    distort: bool = True

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.step) < 1 or self.width % self.step or self.height % self.step:
            raise ValueError(f"input: found {self.width} x {self.height}, wanted multiples of {self.step}")

    def batch_shape(self, seed: int, epoch: int, batch: int) -> BatchShape:
        """One size and interpolation for a step's batch, the same in all processes."""
        if not self.multi_scale:
            return BatchShape(self.width, self.height, "bilinear")
        random = generator(seed, Stream.BATCH_SIZE, epoch, batch)
        share = PUBLISHED_SIZES[int(random.integers(len(PUBLISHED_SIZES)))] / PUBLISHED_INPUT
        interpolation = INTERPOLATIONS[int(random.integers(len(INTERPOLATIONS)))]
        return BatchShape(self._near(self.width * share), self._near(self.height * share), interpolation)

    def _near(self, side: float) -> int:
        return max(1, round(side / self.step)) * self.step

    def __call__(
        self, pixels: Pixels, truth: Truth, shape: BatchShape, random: np.random.Generator
    ) -> tuple[Pixels, Truth]:
        """Vary a scene.

        Args:
            pixels: (h, w, 3).
            truth: its boxes.
            shape: of its batch.
            random: of this scene.
        Returns:
            (shape.height, shape.width, 3), and the boxes in its pixels.
        """
        if self.crop:
            pixels, truth = random_crop(pixels, truth, random)
        if random.random() < FLIP:
            pixels, truth = flipped(pixels, truth)
        if self.distort:
            pixels = distorted(pixels, random)
        pixels, truth = resized(pixels, truth, shape.width, shape.height, shape.interpolation)
        some = boxes_of_some_area(truth.boxes)  # rounding to float32 may close a box of a fraction of a pixel
        return pixels, Truth(truth.boxes[some], truth.labels[some])
