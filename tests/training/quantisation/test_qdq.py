"""A graph with pairs computes what the plain arithmetic of int8 says."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.quantisation.qdq import Range, quantisable_layers, quantised_weight, with_int8_layers

CHANNELS = 4


def graph() -> onnx.ModelProto:
    """x -> 1 x 1 convolution a -> ReLU -> two convolutions b and c, whose sum is pooled -> linear map."""
    random = np.random.default_rng(0)

    def constant(name: str, shape: tuple[int, ...]) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    square = (CHANNELS, CHANNELS, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "a", "a_bias"], ["a_out"], "conv_a"),
        helper.make_node("Relu", ["a_out"], ["relu"], "relu"),
        helper.make_node("Conv", ["relu", "b"], ["b_out"], "conv_b"),
        helper.make_node("Conv", ["relu", "c"], ["c_out"], "conv_c"),
        helper.make_node("Add", ["b_out", "c_out"], ["sum"], "add"),
        helper.make_node("ReduceMean", ["sum", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("Gemm", ["mean", "d", "d_bias"], ["y"], "linear", transB=1),
    ]
    initializers = [
        *(constant(name, square) for name in "abc"),
        constant("a_bias", (CHANNELS,)),
        constant("d", (2, CHANNELS)),
        constant("d_bias", (2,)),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    made = helper.make_graph(nodes, "small", [x], [y], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return found


def rounded(values: NDArray[np.float32], found: Range) -> NDArray[np.float32]:
    """Rounded one by one, as the scheme says it."""
    lowest, highest = (-128, 127) if found.signed else (0, 255)
    step = found.largest / highest
    # Python rounds halves to even, as ONNX does.
    plain = [step * min(max(round(float(value) / step), lowest), highest) for value in values.ravel()]
    return np.array(plain, np.float32).reshape(values.shape)


def test_every_layer_is_computed_from_rounded_weights_and_rounded_input() -> None:
    model = graph()
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    ranges = {
        "a": Range(2.0, signed=True),
        "b": Range(3.0, signed=False),
        "c": Range(2.5, signed=True),  # of the same activation
        "d": Range(4.0, signed=True),
    }
    # Some of it beyond the ranges.
    x = np.random.default_rng(1).normal(0, 1.5, (2, CHANNELS, 3, 3)).astype(np.float32)

    def weight(name: str) -> NDArray[np.float32]:
        rows = [rounded(row, Range(float(np.abs(row).max()), signed=True)) for row in weights[name]]
        return np.stack(rows).reshape(len(rows), -1)

    a = np.einsum("oi,nihw->nohw", weight("a"), rounded(x, ranges["a"]))
    a = np.maximum(a + weights["a_bias"].reshape(1, -1, 1, 1), 0)
    b, c = (np.einsum("oi,nihw->nohw", weight(name), rounded(a, ranges[name])) for name in "bc")
    mean = rounded((b + c).mean(axis=(2, 3)), ranges["d"])
    wanted = mean @ weight("d").T + weights["d_bias"]

    quantised = with_int8_layers(model, ranges)
    onnx.checker.check_model(quantised, full_check=True)
    np.testing.assert_allclose(run(quantised, x), wanted, atol=1e-5)
    assert run(model, x).shape == wanted.shape, "the float graph stays as it was"


def test_weights_lie_in_the_file_once_and_as_int8() -> None:
    quantised = with_int8_layers(graph(), dict.fromkeys("bc", Range(3.0, signed=False)))
    stored = {one.name: one.data_type for one in quantised.graph.initializer}
    assert stored["b_quantised"] == stored["c_quantised"] == TensorProto.INT8
    assert "b" not in stored
    assert stored["a"] == stored["d"] == TensorProto.FLOAT, "layers without a range stay float"
    pairs = [node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert pairs == ["relu"], "two layers of one activation share its pair"


def test_layers_are_those_with_constant_weights_output_channels_first() -> None:
    assert [layer.weight for layer in quantisable_layers(graph())] == ["a", "b", "c", "d"]
    other = graph()
    del other.graph.node[-1].attribute[:]  # input channels first
    assert [layer.weight for layer in quantisable_layers(other)] == ["a", "b", "c"]


def test_a_channel_of_zeros_stays_zeros() -> None:
    values, scales = quantised_weight(np.array([[0.0, 0.0], [-2.0, 1.0]], np.float32))
    np.testing.assert_array_equal(values, [[0, 0], [-127, 64]])
    assert (scales > 0).all()
    assert scales[1] == pytest.approx(2 / 127)
