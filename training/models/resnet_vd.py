"""ResNet50_vd: the backbone of PP-ShiTu's model for servers.

He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks" (2019), section 4.1, figure 2:
ResNet-D. The stem is three 3 x 3 convolutions, the stride sits in a block's 3 x 3 convolution, and where a shortcut
narrows the map it averages 2 x 2 pixels first.
"""

import torch
from torch import Tensor, nn

from training.models.embedder import Backbone
from training.models.layers import ConvNorm, make_divisible

DEPTHS = (3, 4, 6, 3)
STEM_CHANNELS = (32, 32, 64)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution, added to the input or to a projection of it, then ReLU.

    Maps (N, in_channels, H, W) to (N, 4 * width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, projects: bool) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.narrow = ConvNorm(in_channels, width, activation=nn.ReLU)
        self.filter = ConvNorm(width, width, 3, stride=stride, activation=nn.ReLU)
        self.widen = ConvNorm(width, out_channels)
        # Over the edge of an odd map upstream averages the pixels that are there.
        self.pool = (
            nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        )
        self.shortcut = ConvNorm(in_channels, out_channels) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.widen(self.filter(self.narrow(x))) + self.shortcut(self.pool(x)))


class ResNet50Vd(Backbone):
    """The network up to its layer `flatten`."""

    def __init__(self, *, scale: float = 1.0) -> None:
        """
        Args:
            scale: of all channel counts; only 1.0 is published, smaller ones are for tests.
        Raises:
            ValueError: it is not above 0.
        """
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale: found {scale}, wanted above 0, such as 1.0.")
        first, second, third = (make_divisible(channels * scale) for channels in STEM_CHANNELS)
        self.stem = nn.Sequential(
            ConvNorm(3, first, 3, stride=2, activation=nn.ReLU),
            ConvNorm(first, second, 3, activation=nn.ReLU),
            ConvNorm(second, third, 3, activation=nn.ReLU),
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks = []
        channels = third
        for stage, depth in enumerate(DEPTHS):
            width = make_divisible(WIDTHS[stage] * scale)
            for index in range(depth):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(Bottleneck(channels, width, stride=stride, projects=index == 0))
                channels = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to (N, out_channels)."""
        maps: Tensor = self.blocks(self.pool(self.stem(pixels)))  # (N, C, H / 32, W / 32)
        return maps.mean(dim=(2, 3))
