"""PP-LCNetV2_base, and the variant of it that is PP-ShiTuV2's backbone.

PaddleClas, `docs/en/models/PP-LCNetV2_en.md` (2022): PP-LCNet with ReLU for hard swish, depthwise convolutions of
several kernels that are one in inference, pointwise ones split in two, and few shortcuts. No paper describes it. Where
upstream's names mislead (squeeze-and-excitation's `hardsigmoid` is a true sigmoid), what its weights were trained
with counts.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training.models.embedder import Backbone
from training.models.layers import (
    ConvNorm,
    DownscaleInInferDropout,
    ParallelDepthwise,
    SqueezeExcitation,
    make_divisible,
)

STEM_CHANNELS = 32
LAST_CHANNELS = 1280
DROPOUT = 0.2
EMBEDDING_CHANNELS = 512


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution; the first one has the stride and doubles the channels."""

    in_channels: int
    kernel: int
    depth: int
    stride: int = 2
    splits: bool = False
    has_branches: bool = False
    squeezes: bool = False
    has_shortcut: bool = False


STAGES = (
    Stage(64, kernel=3, depth=2),
    Stage(128, kernel=3, depth=2),
    Stage(256, kernel=5, depth=6, splits=True, has_branches=True, squeezes=True),
    Stage(512, kernel=5, depth=2, has_branches=True, has_shortcut=True),
)


# The stem's second half.
PLAIN = Stage(32, kernel=3, depth=1, stride=1)


class LCNetV2Block(nn.Module):
    """Depthwise convolution (perhaps in branches), ReLU, perhaps squeeze-and-excitation, pointwise convolution.

    Where it has a shortcut, its input is added behind the last ReLU, with none after. Maps (N, in_channels, H, W)
    to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, stage: Stage) -> None:
        super().__init__()
        self.depthwise: nn.Module = (
            ParallelDepthwise(in_channels, stage.kernel, stride=stride)
            if stage.has_branches
            else ConvNorm(in_channels, in_channels, stage.kernel, stride=stride, groups=in_channels)
        )
        self.activation = nn.ReLU()
        self.squeeze = SqueezeExcitation(in_channels, gate=nn.Sigmoid) if stage.squeezes else nn.Identity()
        middle = out_channels // 2
        self.pointwise = (
            nn.Sequential(
                ConvNorm(in_channels, middle, activation=nn.ReLU),
                ConvNorm(middle, out_channels, activation=nn.ReLU),
            )
            if stage.splits
            else ConvNorm(in_channels, out_channels, activation=nn.ReLU)
        )
        self.has_shortcut = stage.has_shortcut and stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.squeeze(self.activation(self.depthwise(x))))
        return y + x if self.has_shortcut else y


class PPLCNetV2Trunk(nn.Module):
    """Stem and four stages.

    Attributes:
        out_channels: of the map that they give.
    """

    def __init__(self, scale: float, stages: tuple[Stage, ...]) -> None:
        """
        Args:
            scale: of all channel counts, above 0; only 1.0 is published, others are for tests and small trainings.
            stages: the rows of the table.
        Raises:
            ValueError: the scale is not above 0.
        """
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale: found {scale}, wanted above 0, such as 1.0.")
        stem, channels = make_divisible(STEM_CHANNELS * scale), make_divisible(2 * STEM_CHANNELS * scale)
        self.stem = nn.Sequential(
            ConvNorm(3, stem, 3, stride=2, activation=nn.ReLU),
            LCNetV2Block(stem, channels, stride=1, stage=PLAIN),
        )
        self.stages = nn.ModuleList()
        for stage in stages:
            wide = make_divisible(2 * stage.in_channels * scale)
            blocks = []
            for index in range(stage.depth):
                stride = stage.stride if index == 0 else 1
                blocks.append(LCNetV2Block(channels, wide, stride=stride, stage=stage))
                channels = wide
            self.stages.append(nn.Sequential(*blocks))
        self.out_channels = channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pictures (N, 3, H, W) to (N, out_channels, H / 32, W / 32), or / 16 by the stages."""
        x: Tensor = self.stem(pixels)
        for stage in self.stages:
            x = stage(x)
        return x


class PPLCNetV2(Backbone):
    """PP-LCNetV2_base up to its layer `flatten`, where its classifier begins."""

    def __init__(
        self, *, scale: float = 1.0, last_channels: int = LAST_CHANNELS, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.trunk = PPLCNetV2Trunk(scale, STAGES)
        self.last_conv = nn.Conv2d(self.trunk.out_channels, last_channels, 1, bias=False)
        self.dropout = DownscaleInInferDropout(dropout)
        self.out_channels = last_channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to (N, last_channels)."""
        pooled = self.trunk(pixels).mean(dim=(2, 3), keepdim=True)  # (N, c, 1, 1)
        return torch.flatten(self.dropout(torch.relu(self.last_conv(pooled))), 1)


class PPLCNetV2ShiTu(Backbone):
    """The backbone of PP-ShiTuV2: its last 1 x 1 convolution is the embedding.

    Three changes (PaddleClas, `pp_lcnetv2_variant.py`): the last stage keeps the resolution (14 x 14 at 224), by
    which its first block gains the 1 x 1 branch; the last convolution gives 512 channels and has a bias; no ReLU
    follows it. The factor 0.8 of the dropout stays.
    """

    def __init__(
        self, *, scale: float = 1.0, last_channels: int = EMBEDDING_CHANNELS, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.trunk = PPLCNetV2Trunk(scale, (*STAGES[:-1], replace(STAGES[-1], stride=1)))
        self.last_conv = nn.Conv2d(self.trunk.out_channels, last_channels, 1)
        self.dropout = DownscaleInInferDropout(dropout)
        self.out_channels = last_channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to (N, last_channels)."""
        pooled = self.trunk(pixels).mean(dim=(2, 3), keepdim=True)  # (N, c, 1, 1)
        return torch.flatten(self.dropout(self.last_conv(pooled)), 1)
