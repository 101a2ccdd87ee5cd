"""The full-size networks have as many parameters as the published ones.

Published counts hold a normalisation's mean and variance, and PicoDet's eight bin values and four unused scales.
"""

import pytest
import torch
from torch import nn

from training.models.embedder import EmbedderModel
from training.models.layers import ParallelDepthwise, fuse_branches
from training.models.necks import BNNeck, FCNeck
from training.models.picodet import PicoDet, decode
from training.models.pplcnet import PUBLISHED_SCALES, PPLCNet, PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2, PPLCNetV2ShiTu
from training.models.resnet_vd import ResNet50Vd

# Cui et al., "PP-LCNet" (2021), table 3, in millions, with the classifier of 1000 and without means and variances.
PPLCNET_MILLIONS = dict(zip(PUBLISHED_SCALES, (1.5, 1.6, 1.9, 2.4, 3.0, 4.5, 6.5, 9.0), strict=True))
CLASSIFIER = 1281 * 1000


def count(network: nn.Module) -> int:
    return sum(
        value.numel()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("scale", PUBLISHED_SCALES)
def test_every_scale_of_pplcnet(scale: float) -> None:
    with torch.device("meta"):
        network = PPLCNet(scale=scale)
    n_parameters = sum(parameter.numel() for parameter in network.parameters()) + CLASSIFIER
    assert round(n_parameters / 1e6, 1) == PPLCNET_MILLIONS[scale]


def test_general_rec_v1() -> None:
    with torch.device("meta"):
        assert count(EmbedderModel(PPLCNet(scale=2.5), FCNeck(1280))) == 8_419_792  # 8.42 M


def test_general_rec_v2_with_branches_and_fused() -> None:
    network = EmbedderModel(PPLCNetV2ShiTu(), BNNeck(512))
    slots = sum(
        part.channels * (part.kernel**2 + 1)
        for part in network.modules()
        if isinstance(part, ParallelDepthwise)
    )
    assert count(network) + slots == 4_778_880  # 4.78 M with the slots that upstream keeps for the fused ones
    assert round(count(fuse_branches(network)) / 1e6, 2) == 4.58


def test_resnet50_vd_with_its_neck() -> None:
    with torch.device("meta"):
        assert count(EmbedderModel(ResNet50Vd(), FCNeck(2048))) == 24_629_600  # 24.6 M


def test_pplcnet_v2_base() -> None:
    """PaddleClas gives 6.6 M; with the branches it is a tenth more."""
    network = fuse_branches(PPLCNetV2())
    n_parameters = sum(parameter.numel() for parameter in network.parameters()) + CLASSIFIER
    assert n_parameters / 1e6 == pytest.approx(6.6, abs=0.05)


def test_picodet_and_its_8500_cells() -> None:
    with torch.device("meta"):
        network = PicoDet(PPLCNetTrunk(scale=2.5))
        assert count(network) + 8 + 4 == 7_085_920  # 7.09 M
        boxes, scores = decode(network(torch.zeros(1, 3, 640, 640)))
    assert boxes.shape == (1, 8500, 4)
    assert scores.shape == (1, 8500, 1)


def test_maps_narrow_as_facts_say() -> None:
    with torch.device("meta"):
        levels = PPLCNetTrunk(scale=2.5)(torch.zeros(1, 3, 640, 640))
        assert [tuple(level.shape[1:]) for level in levels[2:]] == [
            (320, 80, 80),
            (640, 40, 40),
            (1280, 20, 20),
        ]
        pictures = torch.zeros(1, 3, 224, 224)
        assert PPLCNetV2().trunk(pictures).shape == (1, 1024, 7, 7)
        assert PPLCNetV2ShiTu().trunk(pictures).shape == (1, 1024, 14, 14)
