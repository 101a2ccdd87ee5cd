"""Post-training quantisation: a float graph and some pictures in, an int8 graph out.

Two methods, which differ in where they round and how they find ranges:

- nncf: Intel's NNCF, ranges from the pictures' extremes, activations of depthwise convolutions by channel, sums and
  concatenations rounded too where that saves a conversion; weights for which no CPU's sums overflow.
- kl: the scheme of PP-ShiTu's (PaddleClas, `deploy/slim/quant_post_static.py`) with ranges by `quantisation.kl`.

Behind either, biases are corrected (`quantisation.bias`), which upstream leaves out. Both expect a graph with branches
and batch normalisations folded, as `training.export` writes it.
"""

import logging
import os
from collections.abc import Callable, Collection

import numpy as np
import onnx
from numpy.typing import NDArray

# NNCF reports each use to its makers unless this is set before it is imported. Nothing here speaks to strangers.
os.environ["NNCF_CI"] = "1"
import nncf

from training.quantisation.bias import LAYERS, with_corrected_biases
from training.quantisation.calibration import Calibration
from training.quantisation.kl import kl_ranges
from training.quantisation.qdq import quantisable_layers, with_int8_layers

# Biases are corrected on so many of the first pictures' pixels: a detector's large ones fill the memory sooner.
CORRECTION_PIXELS = 32 * 224 * 224

# A float graph, the pictures, and the weights of the layers that stay float.
PostTraining = Callable[[onnx.ModelProto, Calibration, Collection[str]], onnx.ModelProto]


def with_nncf(
    model: onnx.ModelProto, calibration: Calibration, float_weights: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph with NNCF, all but what lies behind its last layers: a detector's boxes would be rounded too.

    Args:
        model: float, with one input.
        calibration: the pictures.
        float_weights: names of the weights whose layers stay float.
    """
    kept = [layer.node.name for layer in quantisable_layers(model) if layer.weight in float_weights]
    nncf.set_log_level(logging.ERROR)
    name = model.graph.input[0].name
    quantised: onnx.ModelProto = nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda picture: {name: picture}),
        subset_size=len(calibration),
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=nncf.IgnoredScope(names=[*behind_the_last_layers(model), *kept], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            disable_bias_correction=True,
            # Weights of seven bits: without VNNI two products of eight bits overflow the 16 that they are added up in.
            overflow_fix=nncf.OverflowFix.ENABLE,
        ),
    )
    return with_corrected_biases(quantised, model, _for_correction(calibration))


def with_kl(
    model: onnx.ModelProto, calibration: Calibration, float_weights: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph's convolutions and linear maps with ranges by KL calibration; arguments as `with_nncf`."""
    ranges = kl_ranges(model, calibration)
    quantised = with_int8_layers(
        model, {name: one for name, one in ranges.items() if name not in float_weights}
    )
    return with_corrected_biases(quantised, model, _for_correction(calibration))


def _for_correction(calibration: Calibration) -> NDArray[np.generic]:
    given = calibration.card.input
    return calibration.first(max(1, CORRECTION_PIXELS // (given.height * given.width)))


METHODS: dict[str, PostTraining] = {"nncf": with_nncf, "kl": with_kl}


def behind_the_last_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose results reach no convolution or linear map any more."""
    reaching: set[str] = set()  # tensors that reach a layer
    behind = []
    for node in reversed(model.graph.node):  # a graph's nodes are in the order in which they can be computed
        is_layer = node.op_type in LAYERS
        if is_layer or any(output in reaching for output in node.output):
            reaching.update(node.input)
        else:
            behind.append(node.name)
    return behind
