"""Dropout as the published weights know it; and folding branches and normalisations away changes no result."""

import pytest
import torch
from torch import nn

from training.models.layers import (
    ConvNorm,
    DepthwiseConv2d,
    DownscaleInInferDropout,
    ParallelDepthwise,
    fold_normalisations,
    fuse_branches,
    make_divisible,
)
from training.models.pplcnet_v2 import PPLCNetV2ShiTu


def shake_statistics(module: nn.Module) -> None:
    """As after a training: no normalisation is the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


@pytest.mark.parametrize(
    ("wanted", "rounded"), [(4, 8), (5.6, 8), (11.2, 16), (22.4, 24), (40, 40), (44.8, 48), (179.2, 176)]
)
def test_channels_become_multiples_of_8_of_no_less_than_90_percent(wanted: float, rounded: int) -> None:
    assert make_divisible(wanted) == rounded


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 2, 0), (5, 1, 2)])
def test_mixed_precision_has_the_gradients_of_full_precision(kernel: int, stride: int, padding: int) -> None:
    """To what bfloat16's 8 bits of values and of what comes back from above allow."""
    torch.manual_seed(0)
    ours = DepthwiseConv2d(24, 24, kernel, stride, padding, groups=24, bias=False)
    plain = nn.Conv2d(24, 24, kernel, stride, padding, groups=24, bias=False)
    plain.load_state_dict(ours.state_dict())
    gradients = []
    for layer, mixed in ((plain, False), (ours, False), (ours, True)):
        x = torch.rand(2, 24, 19, 19, generator=torch.Generator().manual_seed(1), requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if mixed else torch.float32)
        weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        layer.zero_grad()
        (y.float() * weights).sum().backward()
        gradients.append((x.grad, layer.weight.grad))
    full, same, mixed_ones = gradients
    for wanted, equal, close in zip(full, same, mixed_ones, strict=True):
        assert torch.equal(wanted, equal)
        assert close.dtype == torch.float32
        assert torch.linalg.vector_norm(close - wanted) <= 0.01 * torch.linalg.vector_norm(wanted)


def test_dropout_zeroes_in_training_and_scales_in_inference() -> None:
    torch.manual_seed(0)
    dropout = DownscaleInInferDropout(0.2)
    ones = torch.ones(100_000)
    trained = dropout.train()(ones)
    assert set(trained.tolist()) == {0.0, 1.0}  # PyTorch's own would give 1.25
    assert trained.mean().item() == pytest.approx(0.8, abs=0.01)
    assert torch.equal(dropout.eval()(ones), ones * 0.8)
    with pytest.raises(ValueError, match="found 1"):
        DownscaleInInferDropout(1)


@pytest.mark.parametrize(("stride", "kernels"), [(1, [5, 3, 1]), (2, [5, 3])])
def test_branches_are_one_convolution_in_inference(stride: int, kernels: list[int]) -> None:
    torch.manual_seed(0)
    parallel = ParallelDepthwise(8, 5, stride=stride).eval()
    shake_statistics(parallel)
    assert [branch.conv.kernel_size[0] for branch in parallel.branches] == kernels
    x = torch.randn(2, 8, 9, 12)
    with torch.inference_mode():
        torch.testing.assert_close(parallel.fused()(x), parallel(x))


def test_a_fused_and_folded_network_gives_the_same_and_leaves_the_original_alone() -> None:
    torch.manual_seed(0)
    network = PPLCNetV2ShiTu(scale=0.25).train()
    shake_statistics(network)
    folded = fold_normalisations(fuse_branches(network))
    assert not any(isinstance(part, ParallelDepthwise | nn.BatchNorm2d) for part in folded.modules())
    assert network.training
    assert any(isinstance(part, ParallelDepthwise) for part in network.modules())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = network.eval()(x)
        torch.testing.assert_close(folded(x), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_one_module_that_is_its_own_branch_is_fused_within_its_parent() -> None:
    holder = nn.Sequential(ParallelDepthwise(8, 3, stride=1), ConvNorm(8, 8))
    assert isinstance(fuse_branches(holder)[0], nn.Conv2d)
