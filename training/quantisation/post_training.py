"""Post-training quantisation: a float graph and some pictures in, an int8 graph out.

Two methods that differ in how they find ranges, where they quantise, and whether they make up for it:

- nncf: Intel's NNCF, ranges from the pictures' extremes, activations of depthwise convolutions by channel; and each
  bias is moved by what quantisation shifts its layer's mean (Finkelstein et al., "Fighting Quantization Bias With
  Bias", 2019).
- kl: PP-ShiTu's way (PaddleClas, `deploy/slim/quant_post_static.py`): ranges by `quantisation.kl`, and nothing else.

Both expect a graph with branches and batch normalisations folded, as `training.export` writes it.
"""

import logging
import os
from collections.abc import Callable

import numpy as np
import onnx

# NNCF reports each use to its makers unless this is set before it is imported. Nothing here speaks to strangers.
os.environ["NNCF_CI"] = "1"
import nncf

from training.quantisation.kl import Batches, kl_ranges
from training.quantisation.qdq import with_int8_layers

LAYERS = ("Conv", "Gemm")

PostTraining = Callable[[onnx.ModelProto, Batches], onnx.ModelProto]


def with_nncf(model: onnx.ModelProto, batches: Batches) -> onnx.ModelProto:
    """Quantise a graph with NNCF, all but what lies behind its last layers: a detector's boxes would be rounded too.

    The bias correction is the slow one, layer by layer with what the layers before it have done: the fast one leaves
    EfficientNet-lite's embeddings at a cosine of 0.957 to the float ones, the slow one at 0.986, for seconds more.

    Args:
        model: float, with one input.
        batches: the calibration's pictures, prepared.
    """
    nncf.set_log_level(logging.ERROR)
    name = model.graph.input[0].name
    pictures = [picture[None] for batch in batches() for picture in np.asarray(batch)]
    quantised: onnx.ModelProto = nncf.quantize(
        model,
        nncf.Dataset(pictures, lambda picture: {name: picture}),
        subset_size=len(pictures),
        target_device=nncf.TargetDevice.CPU,
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=behind_the_last_layers(model), validate=False),
    )
    return quantised


def with_kl(model: onnx.ModelProto, batches: Batches) -> onnx.ModelProto:
    """Quantise a graph's convolutions and linear maps with ranges by KL calibration; arguments as `with_nncf`."""
    return with_int8_layers(model, kl_ranges(model, batches))


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
