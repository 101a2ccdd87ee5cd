"""PP-LCNet at every scale: the trunk that PicoDet stands on, and the backbone with its tail.

Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network" (2021), table 2: depthwise separable blocks
without shortcuts, hard swish throughout, 5 x 5 kernels and squeeze-and-excitation only at the end, one wide 1 x 1
convolution behind the pooling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.embedder import Backbone, Trunk
from training.models.layers import ConvNorm, DownscaleInInferDropout, SqueezeExcitation, make_divisible

PUBLISHED_SCALES = (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5)
STEM_CHANNELS = 16
LAST_CHANNELS = 1280
DROPOUT = 0.2


@dataclass(frozen=True)
class Block:
    """One row of table 2, before scaling."""

    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    squeezes: bool = False


STAGES = (
    (Block(3, 16, 32, 1),),
    (Block(3, 32, 64, 2), Block(3, 64, 64, 1)),
    (Block(3, 64, 128, 2), Block(3, 128, 128, 1)),
    (Block(3, 128, 256, 2), *[Block(5, 256, 256, 1)] * 5),
    (Block(5, 256, 512, 2, squeezes=True), Block(5, 512, 512, 1, squeezes=True)),
)


class LCNetBlock(nn.Module):
    """Depthwise convolution, perhaps squeeze-and-excitation, pointwise convolution; no shortcut.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, squeezes: bool
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            in_channels, in_channels, kernel, stride=stride, groups=in_channels, activation=nn.Hardswish
        )
        self.squeeze = SqueezeExcitation(in_channels, gate=nn.Hardsigmoid) if squeezes else nn.Identity()
        self.pointwise = ConvNorm(in_channels, out_channels, activation=nn.Hardswish)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.squeeze(self.depthwise(x)))
        return y


class PPLCNetTrunk(Trunk):
    """Stem and five stages."""

    def __init__(self, *, scale: float) -> None:
        """
        Args:
            scale: of all channel counts, above 0; the published ones are PUBLISHED_SCALES.
        Raises:
            ValueError: it is not above 0.
        """
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale: found {scale}, wanted above 0, such as {PUBLISHED_SCALES}.")
        self.stem = ConvNorm(3, make_divisible(STEM_CHANNELS * scale), 3, stride=2, activation=nn.Hardswish)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    LCNetBlock(
                        make_divisible(block.in_channels * scale),
                        make_divisible(block.out_channels * scale),
                        kernel=block.kernel,
                        stride=block.stride,
                        squeezes=block.squeezes,
                    )
                    for block in stage
                )
            )
            for stage in STAGES
        )
        self.level_channels = tuple(make_divisible(stage[-1].out_channels * scale) for stage in STAGES)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Map normalised pictures (N, 3, H, W) to the five stages' maps, at strides 2, 4, 8, 16 and 32."""
        levels = []
        x = self.stem(pixels)  # (N, c, H / 2, W / 2)
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class PPLCNet(Backbone):
    """The trunk, mean pooling, and the wide 1 x 1 convolution: upstream's model up to its layer `flatten`.

    Before the classifier upstream drops values with "downscale_in_infer", so that the published weights expect
    the factor 0.8 in inference; see `DownscaleInInferDropout`.
    """

    def __init__(
        self, *, scale: float = 1.0, last_channels: int = LAST_CHANNELS, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.trunk = PPLCNetTrunk(scale=scale)
        self.last_conv = nn.Conv2d(self.trunk.level_channels[-1], last_channels, 1, bias=False)
        self.activation = nn.Hardswish()
        self.dropout = DownscaleInInferDropout(dropout)
        self.out_channels = last_channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to (N, last_channels)."""
        pooled = self.trunk(pixels)[-1].mean(dim=(2, 3), keepdim=True)  # (N, c, 1, 1)
        return torch.flatten(self.dropout(self.activation(self.last_conv(pooled))), 1)
