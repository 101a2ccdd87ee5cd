"""PicoDet on PP-LCNet: PP-ShiTu's main-body detector.

Yu et al., "PP-PicoDet: A Better Real-Time Object Detector on Mobile Devices" (2021): CSP-PAN over three maps of the
backbone and a fourth, coarser one; at each level a head of its own that says for every cell how sure it is and how
the distances to the four sides are distributed (Li et al., "Generalized Focal Loss", 2020, section 3.1). This is the
first PicoDet, as PP-ShiTu's published weights have it: backbone PP-LCNet for the paper's ESNet, four levels, class
and box out of one convolution. Another trunk may stand in for PP-LCNet's. Losses and the assigner live in
`training.losses`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.embedder import Trunk
from training.models.layers import ConvNorm, DepthwiseSeparable

# A distance is the expectation over the bins 0, 1, ... REG_MAX, in strides.
REG_MAX = 7
BINS = REG_MAX + 1
SIDES = 4
STRIDES = (8, 16, 32, 64)
# Sides are multiples of it. At an odd multiple, as some published training sizes are, the coarsest level has half a
# cell more than the picture.
SIDE_STEP = 32
# Cells have their centre in the middle.
CELL_OFFSET = 0.5
NECK_CHANNELS = 128
KERNEL = 5
HEAD_DEPTH = 4
# What the classifier says before training: one cell in a hundred holds something (Lin et al., "Focal Loss", 2017, 4.1).
PRIOR = 0.01


class LevelOutput(NamedTuple):
    """What the head says of one level.

    Attributes:
        scores: logits, (N, C, H, W).
        distributions: logits, (N, 4 * BINS, H, W), the sides in the order left, top, right, bottom.
        stride: of the level's cells, in input pixels.
    """

    scores: Tensor
    distributions: Tensor
    stride: int


class CSPBlock(nn.Module):
    """Cross stage partial: half of the channels are filtered, the other half only passed on.

    Maps (N, in_channels, H, W) to (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvNorm(in_channels, half, activation=nn.Hardswish)
        self.short = ConvNorm(in_channels, half, activation=nn.Hardswish)
        self.filter = nn.Sequential(
            ConvNorm(half, half, activation=nn.Hardswish), DepthwiseSeparable(half, half, KERNEL)
        )
        self.final = ConvNorm(2 * half, out_channels, activation=nn.Hardswish)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.final(torch.cat([self.filter(self.main(x)), self.short(x)], dim=1))
        return y


class CSPPAN(nn.Module):
    """Brings three maps to the same channels and lets them learn of each other, down and up; adds a fourth.

    Maps (N, in_channels[i], H / 2^i, W / 2^i), i = 0..2, to four of `channels` each, i = 0..3.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(c, channels, activation=nn.Hardswish) for c in in_channels)
        steps = range(len(in_channels) - 1)
        # The first one of top_down makes the coarser map.
        self.top_down = nn.ModuleList(CSPBlock(2 * channels, channels) for _ in steps)
        self.downsample = nn.ModuleList(
            DepthwiseSeparable(channels, channels, KERNEL, stride=2) for _ in steps
        )
        self.bottom_up = nn.ModuleList(CSPBlock(2 * channels, channels) for _ in steps)
        self.top_of_lateral = DepthwiseSeparable(channels, channels, KERNEL, stride=2)
        self.top_of_last = DepthwiseSeparable(channels, channels, KERNEL, stride=2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        inner = [laterals[-1]]  # coarsest last
        for block, finer in zip(self.top_down, laterals[-2::-1], strict=True):
            upsampled = functional.interpolate(inner[0], scale_factor=2.0, mode="nearest")
            inner.insert(0, block(torch.cat([upsampled, finer], dim=1)))
        outer = inner[:1]
        for downsample, block, coarser in zip(self.downsample, self.bottom_up, inner[1:], strict=True):
            outer.append(block(torch.cat([downsample(outer[-1]), coarser], dim=1)))
        top = self.top_of_lateral(laterals[-1]) + self.top_of_last(outer[-1])
        return [*outer, top]


class PicoHead(nn.Module):
    """A tower of depthwise separable convolutions, and one that gives scores and distributions together.

    Each level has its own. Maps (N, channels, H, W) to logits (N, n_classes, H, W) and (N, 4 * BINS, H, W).
    """

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.tower = nn.Sequential(
            *(DepthwiseSeparable(channels, channels, KERNEL) for _ in range(HEAD_DEPTH))
        )
        self.predict = nn.Conv2d(channels, n_classes + SIDES * BINS, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        # Upstream gives the distributions' logits the same start; a softmax does not see it.
        assert self.predict.bias is not None
        nn.init.constant_(self.predict.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        predicted: Tensor = self.predict(self.tower(x))
        return predicted[:, : self.n_classes], predicted[:, self.n_classes :]


class PicoDet(nn.Module):
    """The detector, for any picture whose sides are multiples of 32."""

    def __init__(self, backbone: Trunk, *, n_classes: int = 1, neck_channels: int = NECK_CHANNELS) -> None:
        """
        Args:
            backbone: whose last three maps are looked at, at strides 8, 16 and 32.
            n_classes: 1 is the main body alone.
            neck_channels: of neck and head, an even number.
        """
        super().__init__()
        self.n_classes = n_classes
        self.backbone = backbone
        self.neck = CSPPAN(backbone.level_channels[-3:], neck_channels)
        self.heads = nn.ModuleList(PicoHead(neck_channels, n_classes) for _ in STRIDES)

    def forward(self, pixels: Tensor) -> tuple[LevelOutput, ...]:
        """Map normalised pictures (N, 3, H, W) to what the head says at each of STRIDES.

        Raises:
            ValueError: a side is no multiple of 32.
        """
        height, width = pixels.shape[2:]
        if height % SIDE_STEP or width % SIDE_STEP:
            raise ValueError(f"pictures: found {width} x {height}, wanted multiples of {SIDE_STEP}.")
        levels = self.neck(self.backbone(pixels)[-3:])
        outputs = []
        for head, level, stride in zip(self.heads, levels, STRIDES, strict=True):
            scores, distributions = head(level)
            outputs.append(LevelOutput(scores, distributions, stride))
        return tuple(outputs)


def cell_centres(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres (H * W, 2), x and y in strides, of a level's cells row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2) + CELL_OFFSET


def expected_distances(distributions: Tensor) -> Tensor:
    """Expectation over the bins.

    Args:
        distributions: logits, (..., 4 * BINS).
    Returns:
        (..., 4) distances to the left, top, right and bottom side in strides, each 0..REG_MAX.
    """
    shares = distributions.reshape(*distributions.shape[:-1], SIDES, BINS).softmax(dim=-1)
    distances: Tensor = shares @ torch.arange(BINS, dtype=shares.dtype, device=shares.device)
    return distances


def boxes_around(centres: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) x1, y1, x2, y2 out of centres (..., 2) and distances (..., 4), all in one unit."""
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)


def decode(levels: Sequence[LevelOutput]) -> tuple[Tensor, Tensor]:
    """Boxes and scores of every cell, before non-maximum suppression.

    Args:
        levels: as PicoDet gives them.
    Returns:
        Boxes (N, P, 4), x1, y1, x2, y2 in input pixels, not cut off at the picture's borders; scores (N, P, C) in
        0..1. P counts the cells of all levels row by row, 8,500 for 640 x 640.
    """
    boxes, scores = [], []
    for level in levels:
        height, width = level.scores.shape[2:]
        centres = cell_centres(height, width, level.scores.device)  # (H * W, 2)
        distances = expected_distances(level.distributions.flatten(2).transpose(1, 2))  # (N, H * W, 4)
        boxes.append(boxes_around(centres, distances) * level.stride)
        scores.append(level.scores.flatten(2).transpose(1, 2).sigmoid())  # (N, H * W, C)
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
