"""Writes int8 into an ONNX graph: pairs of QuantizeLinear and DequantizeLinear (QDQ) around what is to be quantised.

The scheme is that of PP-ShiTu's quantised models (PaddleClas, `ppcls/arch/slim/quant.py`): each convolution and each
linear map gets its weights by output channel, symmetric, from the channel's largest value, and its input as one tensor
with a range that somebody else has found. All else stays float, a detector's decoded boxes among it. A runtime that
knows int8 computes a layer between such pairs as one int8 layer; one that does not computes what the pairs say.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

# Symmetric: a value and its negative are equally exact. Weights leave -128 out; activations below their range take it.
LARGEST_SIGNED, LARGEST_UNSIGNED = 127, 255
# A tensor or channel of zeros alone has some scale.
LEAST_SCALE = 1e-8


@dataclass(frozen=True)
class Range:
    """What an activation may be, symmetric about 0 or from 0 on; what lies outside is cut off.

    Attributes:
        largest: the largest magnitude, above 0.
        signed: whether there are values below 0: int8, `largest` being 127; else uint8, 255.
    """

    largest: float
    signed: bool

    @property
    def scale(self) -> float:
        """What one step is worth."""
        return max(self.largest / (LARGEST_SIGNED if self.signed else LARGEST_UNSIGNED), LEAST_SCALE)


@dataclass(frozen=True)
class Layer:
    """A convolution or linear map of a graph.

    Attributes:
        node: of the graph.
        activation: name of the tensor that it maps.
        weight: name of its weights' initialiser.
    """

    node: NodeProto
    activation: str
    weight: str


def quantisable_layers(model: onnx.ModelProto) -> list[Layer]:
    """The convolutions and linear maps with constant weights, output channels first, in the graph's order."""
    constants = {initializer.name for initializer in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        transposed = [attribute.i for attribute in node.attribute if attribute.name == "transB"]
        is_layer = node.op_type == "Conv" or (node.op_type == "Gemm" and transposed == [1])
        if is_layer and node.input[1] in constants and node.input[0] not in constants:
            layers.append(Layer(node, node.input[0], node.input[1]))
    return layers


def quantised_weight(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 by output channel.

    Args:
        weight: (out_channels, ...).
    Returns:
        Of the same shape, -127..127; and the scales (out_channels,), what one step is worth.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scales = np.maximum(largest / LARGEST_SIGNED, LEAST_SCALE).astype(np.float32)
    by_channel = scales.reshape(-1, *[1] * (weight.ndim - 1))
    rounded = np.clip(np.rint(weight / by_channel), -LARGEST_SIGNED, LARGEST_SIGNED)
    return rounded.astype(np.int8), scales


def with_int8_layers(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """A copy of a float graph whose layers are quantised.

    Args:
        model: float, opset 13 or later.
        ranges: of the activations that layers map, by the name of the layer's weights. Layers that are not among them
            stay float.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    constants = {one.name: one for one in graph.initializer}
    layers = {
        layer.node.output[0]: layer for layer in quantisable_layers(quantised) if layer.weight in ranges
    }
    nodes: list[NodeProto] = []
    pairs: dict[
        tuple[str, Range], str
    ] = {}  # what the pair of an activation gives; layers of one range share it
    restored: dict[str, str] = {}  # likewise of weights
    for node in graph.node:
        layer = layers.get(node.output[0])
        if layer is not None:
            key = layer.activation, ranges[layer.weight]
            if key not in pairs:
                nodes += _activation_pair(graph, *key, number=len(pairs))
                pairs[key] = nodes[-1].output[0]
            if layer.weight not in restored:
                nodes += _weight_half(graph, constants[layer.weight])
                restored[layer.weight] = nodes[-1].output[0]
            node.input[0], node.input[1] = pairs[key], restored[layer.weight]
        nodes.append(node)
    unused = set(restored) - {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name not in unused]
    for held, new in ((graph.node, nodes), (graph.initializer, kept)):
        copies = [type(one).FromString(one.SerializeToString()) for one in new]
        del held[:]
        held.extend(copies)
    return quantised


def _activation_pair(graph: onnx.GraphProto, tensor: str, found: Range, *, number: int) -> list[NodeProto]:
    name = f"{tensor}_{number}"
    zero = np.array(0, np.int8 if found.signed else np.uint8)
    scale, zero_point = _constants(graph, name, np.array(found.scale, np.float32), zero)
    quantised, restored = f"{name}_quantised", f"{name}_restored"
    return [
        helper.make_node("QuantizeLinear", [tensor, scale, zero_point], [quantised], quantised),
        helper.make_node("DequantizeLinear", [quantised, scale, zero_point], [restored], restored),
    ]


def _weight_half(graph: onnx.GraphProto, weight: onnx.TensorProto) -> list[NodeProto]:
    """Weights lie in the file as int8, a quarter of the bytes, so that only the pair's second half is a node."""
    rounded, scales = quantised_weight(np.asarray(numpy_helper.to_array(weight), np.float32))
    scale, zero_point = _constants(graph, weight.name, scales, np.zeros(len(scales), np.int8))
    stored, restored = f"{weight.name}_quantised", f"{weight.name}_restored"
    graph.initializer.append(numpy_helper.from_array(rounded, stored))
    return [helper.make_node("DequantizeLinear", [stored, scale, zero_point], [restored], restored, axis=0)]


def _constants(
    graph: onnx.GraphProto, tensor: str, scale: NDArray[np.float32], zero_point: NDArray[np.integer]
) -> tuple[str, str]:
    names = f"{tensor}_scale", f"{tensor}_zero_point"
    for name, value in zip(names, (scale, zero_point), strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    return names
