"""One shot saved twice is known; two shots, also of one product, are not taken for one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognition import images
from recognition.duplicates import are_near_duplicates


@pytest.fixture(scope="module")
def crops(demo_catalogue: Path):
    """Crops of the demo catalogue's first forty reference images: several of each product."""
    with (demo_catalogue / "gallery.csv").open() as file:
        rows = list(csv.DictReader(file))[:40]
    return [images.decode((demo_catalogue / row["image"]).read_bytes()).pixels for row in rows]


def test_the_same_shot_in_another_quality_size_or_light_is_a_near_duplicate(crops):
    for crop in crops[::5]:
        again = images.decode(images.encode_jpeg(crop, quality=40)).pixels
        half = np.asarray(Image.fromarray(crop).resize((crop.shape[1] // 2, crop.shape[0] // 2)))
        lighter = np.clip(crop.astype(np.float32) * 1.1, 0, 255).astype(np.uint8)
        assert are_near_duplicates(crop, crop)
        assert are_near_duplicates(crop, again)
        assert are_near_duplicates(half, crop)
        assert are_near_duplicates(crop, lighter)


def test_no_two_shots_of_the_demo_catalogue_are(crops):
    pairs = [(one, other) for i, one in enumerate(crops) for other in crops[:i]]
    assert not any(are_near_duplicates(one, other) for one, other in pairs)


def test_crops_without_contrast_repeat_nothing():
    flat = np.full((40, 40, 3), 200, np.uint8)
    assert not are_near_duplicates(flat, flat)
