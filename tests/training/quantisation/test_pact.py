"""PACT against its formulas, and the int8 file against the network that was trained."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from recognition.model_card import ModelFolder
from recognition.sessions import SessionSettings, open_session
from tests.training.folders import detector_card, embedder_card, patches, small_detector, small_embedder
from training.export import DetectorGraph, EmbedderGraph, cosines, write_onnx
from training.models.embedder import EmbedderModel
from training.models.heads import FCHead
from training.quantisation.pact import (
    ActivationQuantiser,
    PactConv2d,
    PactLinear,
    clipped,
    fake_quantised,
    fake_quantised_weight,
    with_learned_ranges,
    with_pact,
    without_pact,
)
from training.quantisation.qdq import Range, quantised_weight


def test_clipping_and_its_gradient_are_the_papers_on_either_side_of_zero() -> None:
    x = torch.tensor([-3.0, -1.5, -0.4, 0.0, 0.7, 1.4, 1.6, 9.0], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(1.0, 9.0, dtype=torch.float64)  # a gradient from behind, another for each value
    cut = clipped(x, alpha)
    cut.backward(upstream)
    for index, value in enumerate(x.tolist()):
        # Equation 1, for values above 0 and mirrored: 0.5 (|x| - |x - alpha| + alpha).
        size = abs(value)
        wanted = 0.5 * (size - abs(size - 1.5) + 1.5) * (1 if value >= 0 else -1)
        assert cut[index].item() == pytest.approx(wanted)
        assert x.grad is not None
        assert x.grad[index].item() == (upstream[index].item() if size <= 1.5 else 0.0)
    # Section 3.1: 1 where x >= alpha, 0 below; mirrored below -alpha.
    assert alpha.grad is not None
    assert alpha.grad.item() == pytest.approx(7 + 8 - 1)


def test_fake_quantisation_rounds_as_int8_does_and_passes_the_gradient() -> None:
    x = torch.tensor([-9.0, -1.26, -0.26, 0.0, 0.13, 0.24, 3.0], requires_grad=True)
    step = 0.25
    found = fake_quantised(x, torch.tensor(step), -4, 3)
    # Python's round goes to even halves, as ONNX' QuantizeLinear does.
    wanted = [min(max(round(value / step), -4), 3) * step for value in x.tolist()]
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-6)
    found.backward(torch.arange(7.0))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.arange(7.0))


def test_weights_are_rounded_as_the_file_stores_them() -> None:
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    stored, scales = quantised_weight(weight.numpy())
    np.testing.assert_allclose(
        fake_quantised_weight(weight).numpy(), stored * scales.reshape(-1, 1, 1, 1), atol=1e-7
    )


def test_the_range_is_a_moving_mean_of_each_batchs_largest_value_within_alpha() -> None:
    quantiser = ActivationQuantiser().train()
    batches = [[1.0, -4.0], [2.0, 6.0], [-1.0, 0.5]]
    total, weight = 0.0, 0.0
    for values in batches:
        quantiser(torch.tensor(values))
        largest = min(4.0, max(map(abs, values)))  # alpha starts at the first batch's
        total, weight = 0.9 * total + largest, 0.9 * weight + 1
    assert quantiser.alpha.item() == 4.0
    assert quantiser.largest.item() == pytest.approx(total / weight)
    # In inference alpha does nothing and nothing is noted; what lies beyond the range is still cut, as int8 does.
    quantiser.eval()
    quantiser.alpha.data.fill_(0.1)
    top = quantiser(torch.tensor([100.0])).item()
    assert top == pytest.approx(total / weight, rel=1e-5)
    assert quantiser.largest.item() == pytest.approx(total / weight)


def test_branches_are_fused_and_all_layers_but_the_heads_are_exchanged() -> None:
    plain = small_embedder()
    network = EmbedderModel(plain.backbone, plain.neck, FCHead(plain.dimension, n_classes=3))
    learning = with_pact(network)
    kinds = [type(one) for one in learning.modules()]
    assert not [
        one for one in learning.modules() if isinstance(one, nn.Conv2d) and type(one) is not PactConv2d
    ]
    assert kinds.count(nn.Linear) == 1, "the head's"
    assert PactConv2d in kinds
    assert PactLinear in kinds
    assert not [name for name, _ in learning.named_modules() if "branches" in name]
    assert [name for name, _ in network.named_modules() if "branches" in name], "the given one stays"


def test_alpha_and_weights_learn() -> None:
    learning = with_pact(small_embedder()).train()
    optimiser = torch.optim.SGD(learning.parameters(), lr=0.1)
    learning(patches(0))
    layers = [one for one in learning.modules() if isinstance(one, ActivationQuantiser)]
    before = [one.alpha.item() for one in layers]
    for seed in range(1, 3):
        loss = learning(patches(seed)).embedding.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    moved = [one.alpha.item() != start for one, start in zip(layers, before, strict=True)]
    assert any(moved)


def trained(network: nn.Module) -> nn.Module:
    """Has seen a few batches, so that it has ranges."""
    learning = with_pact(network).train()
    with torch.no_grad():
        for seed in range(4):
            learning(patches(seed))
    return learning.eval()


@pytest.mark.parametrize("task", ["embedder", "detector"])
def test_the_file_computes_what_the_trained_network_computes(task: str, tmp_path: Path) -> None:
    is_embedder = task == "embedder"
    network = trained(small_embedder() if is_embedder else small_detector())
    graph = EmbedderGraph(network) if is_embedder else DetectorGraph(network)  # type: ignore[arg-type]
    card = embedder_card() if is_embedder else detector_card()
    plain, ranges = without_pact(graph)
    path = tmp_path / "model.onnx"
    write_onnx(plain, path, card)
    int8 = with_learned_ranges(onnx.load(path), ranges)
    onnx.save(int8, path)
    pixels = patches(9)
    with torch.no_grad():
        wanted = [value.numpy() for value in _tuple(graph(pixels))]
        float_ = [value.numpy() for value in _tuple(plain(pixels))]

    # The pairs computed as they are written: the same numbers, but for a rare value on the edge of a step.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = onnxruntime.InferenceSession(
        int8.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for found, value, plain_value in zip(
        literal.run(None, {"pixels": pixels.numpy()}), wanted, float_, strict=True
    ):
        off = np.abs(found - value).mean()
        assert off < 0.05 * np.abs(plain_value - value).mean(), "far nearer than the float form"

    # OpenVINO rounds once where the pairs round twice: a cosine of 0.99 to what was trained. A CPU without VNNI adds
    # the products of bytes two by two in 16 bits, where large ones are cut off: 0.98 there.
    least = 0.99 if "vnni" in Path("/proc/cpuinfo").read_text() else 0.97
    folder = ModelFolder(dataclasses.replace(card, precision="int8"), path)
    session = open_session(folder, SessionSettings(batch_sizes=(8,)))
    assert session.provider == "openvino"
    outputs = session.run({"pixels": pixels.numpy()})
    for found, value in zip(outputs.values(), wanted, strict=True):
        flat = (one.reshape(len(pixels), -1).astype(np.float32) for one in (found, value))
        assert cosines(*flat).min() > least


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_ranges_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer in the graph for strange\.weight"):
        with_learned_ranges(onnx.ModelProto(), {"strange.weight": Range(1.0, signed=True)})
