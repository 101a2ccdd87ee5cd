"""Quantisation-aware training with PACT: the network computes with rounded weights and activations while it learns.

Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks" (2018), section 3: an activation is
cut off at alpha, which is learned like a weight, before it is rounded; the gradient of alpha is 1 where it cuts and 0
elsewhere. The rest is the recipe of PP-ShiTu's quantised model (PaddleClas, `ppcls/arch/slim/quant.py`): every
convolution and linear map but the head's; weights by the largest of each output channel; activations by a moving mean
of each batch's largest; the clipping in training alone; branches fused before. Where we differ:

- Paper and upstream cut alike, but the paper's activations are never negative and get all of the steps; upstream's, and
  so ours, are cut at -alpha too, and rounded symmetrically.
- Alpha starts at the largest magnitude of the first batch. The versions of upstream start it at 20 or at 100, above
  what most activations ever are, where it learns nothing.
- Weight decay shrinks alpha as it does weights (section 3 of the paper); upstream's versions disagree.

Batch normalisations stay as they are while training. Folded in later they scale whole output channels, and so change
nothing in weights that are rounded by output channel.
"""

from typing import Any, TypeVar

import onnx
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from training.models.embedder import HEAD_PREFIXES
from training.models.layers import DepthwiseConv2d, fuse_branches
from training.quantisation.qdq import LARGEST_SIGNED, LEAST_SCALE, Range, quantisable_layers, with_int8_layers

# Share of the moving mean that a step keeps (`moving_rate`).
MOVING_RATE = 0.9
LOWEST_SIGNED = -LARGEST_SIGNED - 1
# What makes one convolution of another's form, beside having a bias or none.
CONV_FORM = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")

Network = TypeVar("Network", bound=nn.Module)


def fake_quantised(x: Tensor, scale: Tensor, lowest: int, highest: int) -> Tensor:
    """Round to whole steps and back to float; the gradient passes as if nothing had happened (straight through).

    Args:
        x: any shape.
        scale: what one step is worth, of a shape that broadcasts.
        lowest, highest: the whole numbers that there are.
    """
    rounded = (x / scale).round().clamp(lowest, highest) * scale
    return x + (rounded - x).detach()


def clipped(x: Tensor, alpha: Tensor) -> Tensor:
    """Cut off beyond -alpha and alpha: equation 1 of the paper on either side of 0.

    The gradient of alpha is 1 for each value above alpha, -1 for each below -alpha (section 3.1).
    """
    inside: Tensor = x - functional.relu(x - alpha) + functional.relu(-alpha - x)
    return inside


class ActivationQuantiser(nn.Module):
    """Cuts off by alpha in training, and rounds to int8 by the moving mean of the largest magnitudes.

    Attributes:
        largest_sum, steps_sum: of the moving mean; both are 0 before the first batch.
        alpha: where it cuts.
    """

    largest_sum: Tensor
    steps_sum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.register_buffer("largest_sum", torch.zeros(()))
        self.register_buffer("steps_sum", torch.zeros(()))

    @property
    def largest(self) -> Tensor:
        """The moving mean; 0 before the first batch."""
        mean: Tensor = self.largest_sum / self.steps_sum.clamp(min=1e-12)
        return mean

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.training:
            x = self._cut_and_noted(x)
        scale = (self.largest / LARGEST_SIGNED).clamp(min=LEAST_SCALE)
        return fake_quantised(x, scale, LOWEST_SIGNED, LARGEST_SIGNED)

    def _cut_and_noted(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if self.steps_sum == 0:
                self.alpha.copy_(_largest_anywhere(x.abs().max()))
        x = clipped(x, self.alpha)
        with torch.no_grad():
            self.largest_sum.mul_(MOVING_RATE).add_(x.abs().max())
            self.steps_sum.mul_(MOVING_RATE).add_(1)
        return x


def _largest_anywhere(largest: Tensor) -> Tensor:
    """Over all processes, so that each starts with the same alpha."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest


def fake_quantised_weight(weight: Tensor) -> Tensor:
    """Weights (out_channels, ...) rounded to int8 by output channel; as `qdq.quantised_weight`, with a gradient."""
    largest = weight.detach().flatten(1).abs().amax(dim=1)
    scale = (largest / LARGEST_SIGNED).clamp(min=LEAST_SCALE)
    by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return fake_quantised(weight, by_channel, -LARGEST_SIGNED, LARGEST_SIGNED)


def _arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """What a convolution of the same form is made with."""
    return {name: getattr(conv, name) for name in CONV_FORM} | {"bias": conv.bias is not None}


class PactConv2d(nn.Conv2d):
    """A convolution that computes with rounded weights and a rounded input."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """
        Args:
            conv: whose weights it takes over; padded by zeros.
        """
        super().__init__(**_arguments(conv))
        self.weight, self.bias = conv.weight, conv.bias
        self.activation = ActivationQuantiser()

    def forward(self, x: Tensor) -> Tensor:
        weight = fake_quantised_weight(self.weight)
        y: Tensor = self._conv_forward(self.activation(x), weight, self.bias)
        return y


class PactLinear(nn.Linear):
    """A linear map that computes with rounded weights and a rounded input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.activation = ActivationQuantiser()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.activation(x), fake_quantised_weight(self.weight), self.bias)


def with_pact(network: Network) -> Network:
    """A copy of an EmbedderModel or PicoDet that learns to be int8: branches fused, layers exchanged.

    Names of weights stay, but for those of fused branches. An embedder's heads stay float: they are not served.
    """
    was_training = network.training
    fused = fuse_branches(network)
    for place, parent in list(fused.named_modules()):
        for name, child in list(parent.named_children()):
            if f"{place}.{name}.".lstrip(".").startswith(HEAD_PREFIXES):
                continue
            if type(child) in (nn.Conv2d, DepthwiseConv2d):
                setattr(parent, name, PactConv2d(child))
            elif type(child) is nn.Linear:
                setattr(parent, name, PactLinear(child))
    return fused.train(was_training)  # type: ignore[return-value]


def without_pact(module: nn.Module) -> tuple[nn.Module, dict[str, Range]]:
    """The float module to export, and the range that each of its layers has learned.

    Args:
        module: that holds a network of `with_pact`.
    Returns:
        A copy in inference mode without rounding; ranges by the name of the layer's weights in it.
    """
    plain = fuse_branches(module)
    ranges = {}
    for place, parent in list(plain.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PactConv2d | PactLinear):
                key = ".".join(filter(None, (place, name, "weight")))
                ranges[key] = Range(float(child.activation.largest), signed=True)
                setattr(parent, name, _plain(child))
    return plain, ranges


def _plain(layer: PactConv2d | PactLinear) -> nn.Module:
    if isinstance(layer, PactLinear):
        linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        linear.weight, linear.bias = layer.weight, layer.bias
        return linear
    conv = nn.Conv2d(**_arguments(layer))
    conv.weight, conv.bias = layer.weight, layer.bias
    return conv


def with_learned_ranges(model: onnx.ModelProto, ranges: dict[str, Range]) -> onnx.ModelProto:
    """The int8 graph of a float graph that was written from `without_pact`'s module.

    Raises:
        ValueError: the graph has no layer for a range; the graph and the ranges are of two networks.
    """
    known = {layer.weight for layer in quantisable_layers(model)}
    strangers = sorted(set(ranges) - known)
    if strangers:
        raise ValueError(
            f"found no layer in the graph for {', '.join(strangers[:4])}, wanted one for each range"
        )
    return with_int8_layers(model, ranges)
