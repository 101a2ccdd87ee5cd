"""The few layers that PP-ShiTu's networks share, and how branches and normalisations are folded away for serving."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

CHANNEL_STEP = 8
# Paddle's default of 1e-5 is PyTorch's too; its momentum of 0.9 (share of the old value) is PyTorch's 0.1.
NORM_EPS = 1e-5
NORM_MOMENTUM = 0.1
# Squeeze-and-excitation narrows its channels by this.
REDUCTION = 4


def make_divisible(channels: float) -> int:
    """Round a channel count to a multiple of 8, never to less than 90 % of the wanted value."""
    rounded = max(CHANNEL_STEP, int(channels + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded if rounded >= 0.9 * channels else rounded + CHANNEL_STEP


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself; in bfloat16 on a CPU its gradients are computed in float32.

    For there PyTorch has no fast kernel for them: of a mixed step of a detector with EfficientNet-lite0 at 384 pixels
    they took three fifths, and take a third of that in float32, the copies counted.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        half = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            convolved: Tensor = _Float32Gradients.apply(  # type: ignore[no-untyped-call]
                x.to(half), self.weight.to(half), self.stride, self.padding, self.groups
            )
        return convolved


class _Float32Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, (1, 1), False, (0, 0), groups
        return functional.conv2d(x, weight, None, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(), x.float(), weight.float(), None, *ctx.how, (*ctx.needs_input_grad[:2], False)
        )
        return (
            None if of_x is None else of_x.to(x.dtype),
            None if of_weight is None else of_weight.to(weight.dtype),
            None, None, None,
        )  # fmt: skip


class ConvNorm(nn.Module):
    """Convolution without bias, padded by (kernel - 1) // 2 on all sides, batch normalisation, activation.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). Unlike the layer of
    `efficientnet_lite`, which pads as TensorFlow does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        layer = DepthwiseConv2d if groups > 1 else nn.Conv2d
        self.conv = layer(
            in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.activation = activation()
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.activation(self.norm(self.conv(x)))
        return normed


class DepthwiseSeparable(nn.Module):
    """A depthwise and a pointwise convolution, each normalised and activated: PicoDet's DPModule.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        activation: Callable[[], nn.Module] = nn.Hardswish,
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            in_channels, in_channels, kernel, stride=stride, groups=in_channels, activation=activation
        )
        self.pointwise = ConvNorm(in_channels, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what all channels' means say (Hu et al., "Squeeze-and-Excitation Networks", 2018).

    Maps (N, channels, H, W) to the same shape. PP-LCNet gates by a hard sigmoid (x / 6 + 1 / 2, cut to 0..1),
    PP-LCNetV2 by the true one.
    """

    def __init__(self, channels: int, *, gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.expand = nn.Conv2d(channels // REDUCTION, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = torch.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True)))  # (N, channels // 4, 1, 1)
        weights: Tensor = self.gate(self.expand(squeezed))
        return x * weights


class DownscaleInInferDropout(nn.Module):
    """Dropout as PP-LCNet's published weights know it: plain zeros in training, times 1 - p in inference.

    PyTorch's own dropout divides by 1 - p in training and does nothing in inference. Both leave the expectation
    alike; but weights made under one of them are out by the factor 1 - p under the other.
    """

    def __init__(self, p: float) -> None:
        """
        Args:
            p: share of the values that training zeroes, 0 to below 1.
        Raises:
            ValueError: p is out of range.
        """
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout: found {p}, wanted 0 to below 1.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x * torch.empty_like(x).bernoulli_(1 - self.p)
        return x * (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ParallelDepthwise(nn.Module):
    """Depthwise convolutions of several kernels over the same input, each normalised, and summed.

    Trained as branches and served as one (Ding et al., "RepVGG", 2021, section 3.3); PP-LCNetV2 has the kernels
    k, k - 2, ... 1 and, unlike RepVGG, no branch that is the input itself. Maps (N, channels, H, W) to
    (N, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: int, kernel: int, *, stride: int) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, kernel, stride
        # A 1 x 1 kernel at stride 2 would see every fourth pixel only: upstream leaves it away.
        kernels = [k for k in range(kernel, 0, -2) if k > 1 or stride == 1]
        self.branches = nn.ModuleList(
            ConvNorm(channels, channels, k, stride=stride, groups=channels) for k in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        summed: Tensor = first(x)
        for branch in others:
            summed = summed + branch(x)
        return summed

    def fused(self) -> nn.Conv2d:
        """The one convolution with bias that gives what all branches give together in inference."""
        one = nn.Conv2d(
            self.channels,
            self.channels,
            self.kernel,
            self.stride,
            (self.kernel - 1) // 2,
            groups=self.channels,
        )
        weight, bias = torch.zeros_like(one.weight), torch.zeros(self.channels)
        for branch in self.branches:
            assert isinstance(branch, ConvNorm)
            folded = _folded(branch.conv, branch.norm)
            assert folded.bias is not None
            margin = (self.kernel - folded.kernel_size[0]) // 2
            weight += nn.functional.pad(folded.weight, (margin,) * 4)
            bias += folded.bias
        with torch.no_grad():
            one.weight.copy_(weight)
            assert one.bias is not None
            one.bias.copy_(bias)
        return one


def fuse_branches(module: nn.Module) -> nn.Module:
    """A copy in inference mode whose parallel branches are one convolution each; for export and quantisation."""
    fused = copy.deepcopy(module).eval()
    for parent in list(fused.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ParallelDepthwise):
                setattr(parent, name, child.fused())
    return fused


def fold_normalisations(module: nn.Module) -> nn.Module:
    """A copy in inference mode whose batch normalisations behind convolutions are folded into them.

    It folds in every module that has a `conv` and a `norm`; the results stay the same up to rounding.
    """
    folded = copy.deepcopy(module).eval()
    for parent in folded.modules():
        conv, norm = getattr(parent, "conv", None), getattr(parent, "norm", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            parent.conv = _folded(conv, norm)
            parent.norm = nn.Identity()
    return folded


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return fuse_conv_bn_eval(copy.deepcopy(conv).eval(), copy.deepcopy(norm).eval())
