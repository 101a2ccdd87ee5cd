"""The embedder's augmentations."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition.images import model_input
from tests.training.data.cards import embedder_card
from training.data.augment import (
    ChecklaneAugmentation,
    ShiTuV1Augmentation,
    ShiTuV2Augmentation,
    Stretch,
    normalised,
)
from training.models.embedder import IMAGENET


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return random(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_what_is_not_varied_is_what_serving_sees_to_the_last_bit() -> None:
    pixels = picture(50, 37)
    varied = normalised(Stretch(48, 32)(pixels, random()), IMAGENET)
    np.testing.assert_array_equal(varied.numpy(), model_input(pixels, embedder_card(48, 32)))


@pytest.mark.parametrize(
    "augmentation", [ShiTuV1Augmentation(40, 32), ShiTuV2Augmentation(40, 32), ChecklaneAugmentation(40, 32)]
)
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (64, 64), (500, 333)])
def test_any_crop_comes_out_at_the_networks_size(augmentation, shape) -> None:  # type: ignore[no-untyped-def]
    pixels = picture(*shape)
    for seed in range(20):
        varied = augmentation(pixels, random(seed))
        assert varied.shape == (32, 40, 3)
        assert varied.dtype == np.uint8
        np.testing.assert_array_equal(varied, augmentation(pixels, random(seed)))


def test_v2_shifts_by_the_padding_at_most() -> None:
    pixels = picture(32, 32)
    plain = ShiTuV2Augmentation(32, 32, padding=3, flip=0, rotation=0)
    padded = np.pad(pixels, ((3, 3), (3, 3), (0, 0)))
    places = {
        varied.tobytes(): place
        for place in np.ndindex(7, 7)
        for varied in [padded[place[0] :, place[1] :][:32, :32]]
    }
    found = {places[plain(pixels, random(seed)).tobytes()] for seed in range(400)}
    assert len(found) == 49


def test_v2_flips_and_turns_half_of_the_time() -> None:
    pixels = picture(32, 32)
    turning = ShiTuV2Augmentation(32, 32, padding=0, flip=0, rotation=0.5)
    turned = sum(not np.array_equal(turning(pixels, random(seed)), pixels) for seed in range(400))
    assert 150 < turned < 250
    flipping = ShiTuV2Augmentation(32, 32, padding=0, flip=0.5, rotation=0)
    flipped = [flipping(pixels, random(seed)) for seed in range(400)]
    assert 150 < sum(np.array_equal(one, pixels[:, ::-1]) for one in flipped) < 250
    assert all(np.array_equal(one, pixels) or np.array_equal(one, pixels[:, ::-1]) for one in flipped)


def test_v2_turns_about_the_centre_and_leaves_black_outside() -> None:
    pixels = np.full((33, 33, 3), 255, np.uint8)
    pixels[:12, :12] = 100
    turning = ShiTuV2Augmentation(33, 33, padding=0, flip=0, rotation=1, degrees=90)
    for seed in range(30):
        varied = turning(pixels, random(seed))
        assert varied[16, 16].min() == 255  # the centre stays
        assert varied[22:, 22:].min() != 100  # the dark corner goes to a neighbouring one at most
        assert set(np.unique(varied[[0, 0, -1, -1], [0, -1, 0, -1]])) <= {0, 100, 255}


def test_v1_cuts_parts_of_the_stated_area_and_aspect() -> None:
    # Position is written into the pixels: the first and last ones say where the part was.
    rows, columns = np.mgrid[0:200, 0:250]
    pixels = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    cutting = ShiTuV1Augmentation(64, 64, flip=0)
    shares, aspects = [], []
    for seed in range(300):
        varied = cutting(pixels, random(seed)).astype(float)
        height = (varied[-1, :, 0].mean() - varied[0, :, 0].mean()) * 64 / 63
        width = (varied[:, -1, 1].mean() - varied[:, 0, 1].mean()) * 64 / 63
        shares.append(height * width / (200 * 250))
        aspects.append(width / height)
    assert 0.07 < min(shares) < 0.15
    assert 0.8 < max(shares) < 1.01
    assert 0.7 < min(aspects) < 0.85
    assert 1.2 < max(aspects) < 1.4


def test_another_light_changes_exposure_contrast_saturation_and_balance_by_no_more_than_stated() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    lit = ChecklaneAugmentation(8, 8, minimum_area=1, flip=0, light=0.4, rotation=0)
    means = np.array([lit(grey, random(seed)).reshape(-1, 3).mean(axis=0) for seed in range(400)])
    # A plain grey has neither contrast nor colour to lose: exposure (0.6 to 1.4) times gain (0.9 to 1.1) is left,
    # the gain of its share in the contrast, up to 1.4 of it.
    assert 50 < means.min() < 65
    assert 135 < means.max() < 165
    ratio = means[:, 0] / means[:, 2]
    assert ratio.std() > 0.02
    unlit = ChecklaneAugmentation(8, 8, minimum_area=1, flip=0, light=0, rotation=0)
    np.testing.assert_array_equal(unlit(grey, random()), grey)

    stripes = picture(8, 8)
    spreads = [lit(stripes, random(seed)).std() for seed in range(200)]
    assert min(spreads) < 0.75 * stripes.std() < 1.05 * stripes.std() < max(spreads)
