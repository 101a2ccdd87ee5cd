"""PicoDet's decoding by hand, its refusals, and that all of it learns."""

import math
from typing import Any

import pytest
import torch

from recognition.detector import decode_distributions
from training.components import TRUNKS
from training.models.picodet import BINS, STRIDES, LevelOutput, PicoDet, cell_centres, decode
from training.models.pplcnet import PPLCNetTrunk


def test_a_certain_distribution_decodes_to_its_bins() -> None:
    distributions = torch.full((1, 4 * BINS, 2, 3), -100.0)
    for side, distance in enumerate((1, 2, 3, 4)):  # left, top, right, bottom, in strides
        distributions[0, side * BINS + distance, 1, 2] = 100.0
    scores = torch.zeros(1, 1, 2, 3)
    boxes, found = decode([LevelOutput(scores, distributions, 16)])
    centre_x, centre_y = 2.5, 1.5
    wanted = [(centre_x - 1) * 16, (centre_y - 2) * 16, (centre_x + 3) * 16, (centre_y + 4) * 16]
    assert boxes[0, 5].tolist() == pytest.approx(wanted)
    assert found.shape == (1, 6, 1)
    assert (found == 0.5).all()


def test_training_and_serving_decode_alike() -> None:
    torch.manual_seed(0)
    distributions = torch.randn(1, 4 * BINS, 3, 5)
    boxes, _ = decode([LevelOutput(torch.zeros(1, 1, 3, 5), distributions, 8)])
    rows = distributions[0].flatten(1).T.numpy()
    served = decode_distributions(rows, cell_centres(3, 5).numpy(), BINS) * 8
    torch.testing.assert_close(boxes[0], torch.from_numpy(served).float(), rtol=1e-4, atol=1e-3)


TRUNK_ARGUMENTS: dict[str, dict[str, Any]] = {
    "PPLCNet": {"scale": 0.25},
    "EfficientNetLite": {"scale": "lite0"},
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 320), (96, 608)])
def test_any_multiple_of_32_gives_a_cell_for_each_stride(trunk: str, height: int, width: int) -> None:
    detector = PicoDet(TRUNKS[trunk](**TRUNK_ARGUMENTS[trunk]), n_classes=3, neck_channels=16).eval()
    with torch.inference_mode():
        levels = detector(torch.zeros(2, 3, height, width))
        boxes, scores = decode(levels)
    for level, stride in zip(levels, STRIDES, strict=True):
        assert level.stride == stride
        assert level.scores.shape == (2, 3, -(-height // stride), -(-width // stride))
        assert level.distributions.shape == (2, 32, -(-height // stride), -(-width // stride))
    n_cells = sum(-(-height // stride) * -(-width // stride) for stride in STRIDES)
    assert boxes.shape == (2, n_cells, 4)
    assert scores.shape == (2, n_cells, 3)


def test_other_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="found 80 x 64, wanted multiples of 32"):
        PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16)(torch.zeros(1, 3, 64, 80))


def test_an_untrained_detector_holds_one_cell_in_a_hundred_for_an_object() -> None:
    torch.manual_seed(0)
    _, scores = decode(PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16)(torch.randn(2, 3, 64, 64)))
    assert scores.mean().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_gradients_reach_every_parameter(trunk: str) -> None:
    torch.manual_seed(0)
    detector = PicoDet(TRUNKS[trunk](**TRUNK_ARGUMENTS[trunk]), neck_channels=16).train()
    boxes, scores = decode(detector(torch.randn(2, 3, 128, 128)))
    (boxes.square().mean() + scores.mean() * math.e).backward()
    without = [
        name
        for name, parameter in detector.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []
