"""Necks: from what a backbone gives to the embedding."""

from torch import Tensor, nn

from training.models.embedder import Neck
from training.models.layers import NORM_EPS, NORM_MOMENTUM


class FCNeck(Neck):
    """A linear map with bias: PP-ShiTu V1's 1280 to 512, started by Xavier's normal distribution."""

    def __init__(self, in_channels: int, *, dimension: int = 512) -> None:
        super().__init__()
        self.out_channels = dimension
        self.fc = nn.Linear(in_channels, dimension)
        nn.init.xavier_normal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels) to (N, dimension)."""
        y: Tensor = self.fc(x)
        return y


class BNNeck(Neck):
    """Batch normalisation whose bias stays 0: PP-ShiTu V2's.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (2019), section 3.5. There
    the triplet loss sees the values before it and retrieval those after; PP-ShiTu's triplet loss sees those after
    too. Upstream keeps the bias at 0 by a learning rate of 1e-20; here it is no parameter to learn.
    """

    def __init__(self, in_channels: int, *, dimension: int | None = None) -> None:
        """
        Args:
            in_channels: of the backbone.
            dimension: of the embedding; a linear map without bias comes first, for a backbone that does not give
                the dimension itself as PP-ShiTu V2's does. None is as the backbone.
        """
        super().__init__()
        self.out_channels = in_channels if dimension is None else dimension
        self.fc = None if dimension is None else nn.Linear(in_channels, dimension, bias=False)
        self.norm = nn.BatchNorm1d(self.out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.norm.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels) to (N, out_channels)."""
        y: Tensor = self.norm(x if self.fc is None else self.fc(x))
        return y


class HashNeck(Neck):
    """A linear map to as many values as a hash code has bits, then tanh: the sign of each is the bit.

    Lin et al., "Deep Learning of Binary Hash Codes for Fast Image Retrieval" (2015), section 3.2, squash the layer
    by a sigmoid and cut at 0.5; tanh and 0 say the same of twice the value, and are what PaddleClas trains.
    """

    def __init__(self, in_channels: int, *, bits: int = 512) -> None:
        """
        Args:
            in_channels: of the backbone.
            bits: of the hash code, a multiple of 8.
        Raises:
            ValueError: bits is not.
        """
        super().__init__()
        if bits < 8 or bits % 8:
            raise ValueError(f"bits: found {bits}, wanted a multiple of 8, 8 or more.")
        self.out_channels = bits
        self.fc = nn.Linear(in_channels, bits)
        self.activation = nn.Tanh()
        nn.init.xavier_normal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels) to (N, bits), each in -1..1."""
        y: Tensor = self.activation(self.fc(x))
        return y
