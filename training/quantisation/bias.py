"""Bias correction: takes out what quantisation shifts each layer's outputs by, in the mean.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2 and appendix
D (the empirical form): layer by layer from the input on, the mean of each output channel over some pictures is
compared with the float network's, and the bias moved by the difference. What the layers before have been corrected by
is seen by those behind. Rounding weights shifts means most in depthwise convolutions, with their few weights a channel.

NNCF has this too, but cuts the graph at each layer, and its cuts fail where a detector's maps are joined (3.4.0:
"Duplicate definition-site"). Here the int8 graph is run once, node by node.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

LAYERS = ("Conv", "Gemm")

Values = NDArray[np.generic]
# Sees a layer's node and what it gave, and says what it shall have given.
Visit = Callable[[NodeProto, Values], Values]


def with_corrected_biases(
    quantised: onnx.ModelProto, original: onnx.ModelProto, batch: Values
) -> onnx.ModelProto:
    """A copy of an int8 graph whose layers give the float graph's channel means.

    Args:
        quantised: made from `original`, its layers' outputs under the same names.
        original: float, with one input.
        batch: prepared pictures, (N, 3, H, W); each layer's outputs for all N are held in memory at once.
    """
    wanted: dict[str, NDArray[np.float32]] = {}

    def note(node: NodeProto, output: Values) -> Values:
        wanted[node.output[0]] = _channel_means(output)
        return output

    _run(original, batch, note)
    corrected = onnx.ModelProto()
    corrected.CopyFrom(quantised)
    biases = {one.name: one for one in corrected.graph.initializer}

    def correct(node: NodeProto, output: Values) -> Values:
        if node.output[0] not in wanted:
            return output
        shift = wanted[node.output[0]] - _channel_means(output)  # (C,)
        if len(node.input) == 3:
            before = numpy_helper.to_array(biases[node.input[2]])
        else:
            before = np.zeros_like(shift)
            node.input.append("")
        # A name of its own: two layers may share one bias.
        node.input[2] = f"{node.output[0]}_bias"
        corrected.graph.initializer.append(numpy_helper.from_array(before + shift, node.input[2]))
        moved: Values = np.add(output, shift.reshape(-1, *[1] * (output.ndim - 2)))
        return moved

    _run(corrected, batch, correct)
    used = {name for node in corrected.graph.node for name in node.input}
    kept = [one for one in corrected.graph.initializer if one.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(kept)
    return corrected


def _channel_means(output: Values) -> NDArray[np.float32]:
    """Over pictures and places: (N, C, ...) to (C,)."""
    axes = tuple(axis for axis in range(output.ndim) if axis != 1)
    means: NDArray[np.float32] = output.mean(axis=axes, dtype=np.float64).astype(np.float32)
    return means


def _run(model: onnx.ModelProto, batch: Values, visit: Visit) -> None:
    """Run a graph node by node, each value held for as long as a node needs it."""
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    values = {graph.input[0].name: batch}
    last_use = {name: place for place, node in enumerate(graph.node) for name in node.input}
    for place, node in enumerate(list(graph.node)):
        outputs = _run_node(node, constants, values, model)
        if node.op_type in LAYERS:
            outputs[0] = visit(node, outputs[0])
        values |= zip(node.output, outputs, strict=True)
        for name in [name for name in values if last_use.get(name, -1) <= place]:
            del values[name]


def _run_node(
    node: NodeProto, constants: dict[str, onnx.TensorProto], values: dict[str, Values], model: onnx.ModelProto
) -> list[Values]:
    inputs = {name: values[name] for name in node.input if name in values}
    described = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    held = [constants[name] for name in dict.fromkeys(node.input) if name in constants]
    alone = helper.make_model(
        helper.make_graph([node], "node", described, results, held),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Values] = session.run(None, inputs)
    return outputs
