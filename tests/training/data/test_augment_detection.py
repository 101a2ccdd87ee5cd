"""The detector's augmentations: boxes go where their pixels go, and none is left without area."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition.boxes import area
from training.data.augment_detection import (
    INTERPOLATIONS,
    PUBLISHED_SIZES,
    BatchShape,
    DetectionAugmentation,
    distorted,
    flipped,
    random_crop,
    resized,
)
from training.data.coco import Truth


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(height: int, width: int, n_boxes: int, seed: int = 0) -> tuple[NDArray[np.uint8], Truth]:
    """A black picture with a box of its own colour for each label, none over another."""
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = []
    generator = random(seed)
    for label in range(n_boxes):
        left = label * width // n_boxes
        x1, x2 = sorted(generator.choice(np.arange(left, left + width // n_boxes), 2, replace=False).tolist())
        y1, y2 = sorted(generator.choice(height + 1, 2, replace=False).tolist())
        pixels[y1:y2, x1:x2] = 40 + 20 * label
        boxes.append((x1, y1, x2, y2))
    return pixels, Truth(np.array(boxes, np.float32).reshape(-1, 4), np.arange(n_boxes))


def assert_boxes_hold_their_pixels(pixels: NDArray[np.uint8], truth: Truth) -> None:
    for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True):
        rows, columns = np.nonzero(pixels[..., 0] == 40 + 20 * label)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("seed", range(60))
def test_a_crop_takes_its_boxes_along(seed: int) -> None:
    pixels, truth = scene(70, 110, 4, seed)
    part, inside = random_crop(pixels, truth, random(seed))
    height, width = part.shape[:2]
    assert 1 <= len(inside.boxes) <= 4
    assert (area(inside.boxes) > 0).all()
    assert (inside.boxes >= 0).all()
    assert (inside.boxes <= [width, height, width, height]).all()
    assert_boxes_hold_their_pixels(part, inside)


def test_crops_vary_and_some_pictures_stay_whole() -> None:
    pixels, truth = scene(70, 110, 4)
    shapes = [random_crop(pixels, truth, random(seed))[0].shape[:2] for seed in range(300)]
    assert len(set(shapes)) > 100
    assert 10 < shapes.count((70, 110)) < 150
    for height, width in shapes:
        assert height >= 0.2 * 70
        assert width >= 0.2 * 110
        assert 0.45 < (width / 110) / (height / 70) < 2.3


def test_a_picture_without_boxes_stays_whole() -> None:
    pixels, truth = scene(20, 30, 0)
    part, inside = random_crop(pixels, truth, random())
    assert part.shape == (20, 30, 3)
    assert inside.boxes.shape == (0, 4)


def test_flipping_twice_is_nothing() -> None:
    pixels, truth = scene(30, 50, 3)
    once = flipped(pixels, truth)
    assert_boxes_hold_their_pixels(*once)
    twice, boxes = flipped(*once)
    np.testing.assert_array_equal(twice, pixels)
    np.testing.assert_array_equal(boxes.boxes, truth.boxes)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resizing_maps_boxes_exactly(interpolation) -> None:  # type: ignore[no-untyped-def]
    pixels, truth = scene(30, 50, 3)
    larger, boxes = resized(pixels, truth, 150, 120, interpolation)
    assert larger.shape == (120, 150, 3)
    np.testing.assert_array_equal(boxes.boxes, truth.boxes * [3, 4, 3, 4])
    if interpolation == "nearest":
        assert_boxes_hold_their_pixels(larger, boxes)
    whole = Truth(np.array([[0, 0, 50, 30]], np.float32), np.zeros(1, np.int64))
    for width, height in ((33, 77), (608, 672), (7, 5)):
        assert resized(pixels, whole, width, height, interpolation)[1].boxes.tolist() == [
            [0, 0, width, height]
        ]


def test_distortion_changes_colours_by_seed_and_keeps_their_range() -> None:
    pixels = random().integers(0, 256, (20, 20, 3), dtype=np.uint8)
    results = [distorted(pixels, random(seed)) for seed in range(60)]
    np.testing.assert_array_equal(results[0], distorted(pixels, random(0)))
    unchanged = sum(np.array_equal(one, pixels) for one in results)
    assert 0 < unchanged < 15  # none of the four: one in sixteen
    assert all(one.dtype == np.uint8 for one in results)


def test_distortion_is_its_four_steps_one_by_one() -> None:
    pixels = random().integers(0, 256, (20, 20, 3), dtype=np.uint8)
    luminance = np.array([0.299, 0.587, 0.114])
    for seed in range(30):
        drawn, colours = random(seed), pixels.astype(np.float64)
        for step in drawn.permutation(4).tolist():
            if drawn.random() >= 0.5:
                continue
            if step == 0:
                angle = drawn.uniform(-18, 18) * np.pi
                yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
                y, i, q = np.moveaxis(colours @ yiq.T, -1, 0)
                turned = np.stack(
                    [y, i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle)], axis=-1
                )
                colours = turned @ np.linalg.inv(yiq).T
            elif step == 1:
                factor = drawn.uniform(0.5, 1.5)
                colours = colours * factor + (colours @ luminance)[..., None] * (1 - factor)
            else:
                colours = colours * drawn.uniform(0.5, 1.5)
        found = distorted(pixels, random(seed)).astype(int)
        assert np.abs(found - np.clip(colours, 0, 255)).max() <= 1.001  # whole numbers, rounded down


def test_saturation_and_hue_leave_grey_alone() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    for seed in range(60):
        varied = distorted(grey, random(seed)).astype(int)
        assert np.ptp(varied) <= 3  # the published YIQ matrix has three digits


def test_batches_have_the_published_sizes_in_proportion() -> None:
    published = DetectionAugmentation()
    shapes = [published.batch_shape(1, 0, number) for number in range(300)]
    assert {shape.width for shape in shapes} == set(PUBLISHED_SIZES)
    assert all(shape.width == shape.height for shape in shapes)
    assert {shape.interpolation for shape in shapes} == set(INTERPOLATIONS)
    assert published.batch_shape(1, 0, 7) == published.batch_shape(1, 0, 7)
    small = DetectionAugmentation(320, 256, step=64)
    found = {
        (shape.width, shape.height) for shape in (small.batch_shape(1, 0, number) for number in range(300))
    }
    assert {width % 64 for width, _ in found} == {0}
    assert (320, 256) in found
    fixed = DetectionAugmentation(320, 256, multi_scale=False)
    assert fixed.batch_shape(1, 0, 3) == BatchShape(320, 256, "bilinear")
    with pytest.raises(ValueError, match="found 330 x 320, wanted multiples of 32"):
        DetectionAugmentation(330, 320)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (41, 59)])
def test_no_scene_ends_with_a_box_without_area(size: tuple[int, int]) -> None:
    height, width = size
    augmentation = DetectionAugmentation(64, 64)
    generator = random(5)
    for number in range(60):
        corners = generator.uniform(0, [width, height], (3, 2, 2)).astype(np.float32)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        boxes[0, 2] = np.nextafter(boxes[0, 0], np.float32(1e9))  # as thin as a box can be
        truth = Truth(boxes, np.zeros(3, np.int64))
        shape = augmentation.batch_shape(0, 0, number)
        pixels, varied = augmentation(np.zeros((height, width, 3), np.uint8), truth, shape, random(number))
        assert pixels.shape == (shape.height, shape.width, 3)
        assert (area(varied.boxes) > 0).all()
        assert (varied.boxes >= 0).all()
        assert (varied.boxes <= [shape.width, shape.height] * 2).all()
        assert len(varied.boxes) == len(varied.labels)
