"""KL calibration: the range of an activation that loses least of what its values say.

Migacz, "8-bit Inference with TensorRT" (GPU Technology Conference 2017), "Entropy calibration": of all places to cut a
tensor's histogram off, take the one at which the distribution rounded to 8 bits is nearest, by Kullback-Leibler
divergence, to the one that was not. Three details are ours:

- Zeros are not counted. Every scale keeps 0 exactly, and behind a ReLU so many are 0 that they would decide.
- Values that are never negative get 256 levels, since they are stored as uint8; the slides know int8 and 128 levels.
- A cut after which a value that occurs has no probability left counts as infinitely bad, which is the definition; the
  slides smooth it away, each implementation otherwise.

ONNX Runtime has an entropy calibrator too. It is not used: its preset of as many bins as levels never cuts anything
off, its comparison rounds probabilities to whole numbers, and it keeps every map of every picture in memory.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from training.quantisation.calibration import Calibration
from training.quantisation.qdq import Range, quantisable_layers

BINS = 2048
# Places to cut lie so many bins apart, less than a hundredth of the range; the slides try each bin.
CUT_STEP = 8
SIGNED_LEVELS, UNSIGNED_LEVELS = 128, 256


def kl_ranges(model: onnx.ModelProto, calibration: Calibration) -> dict[str, Range]:
    """A range for each activation that a layer of the graph maps.

    The pictures are run through twice: for each tensor's largest value, then for its histogram.

    Args:
        model: float, with one input.
        calibration: the pictures.
    Returns:
        By the name of the layer's weights, for `qdq.with_int8_layers`.
    """
    layers = quantisable_layers(model)
    tensors = list(dict.fromkeys(layer.activation for layer in layers))
    run = _watching(model, tensors)
    largest, is_signed = np.zeros(len(tensors)), np.zeros(len(tensors), bool)
    for batch in calibration.batches():
        values = run(batch)
        largest = np.maximum(largest, [np.abs(value).max(initial=0) for value in values])
        is_signed |= [bool(value.min(initial=0) < 0) for value in values]
    counts = np.zeros((len(tensors), BINS), np.int64)
    for batch in calibration.batches():
        for row, value, top in zip(counts, run(batch), largest, strict=True):
            row += histogram(value, top)
    found = {}
    for tensor, row, top, signed in zip(tensors, counts, largest, is_signed.tolist(), strict=True):
        kept = kl_cut(row, SIGNED_LEVELS if signed else UNSIGNED_LEVELS)
        found[tensor] = Range(float(top) * kept / BINS, signed)
    return {layer.weight: found[layer.activation] for layer in layers}


def _watching(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[NDArray[np.generic]], list[NDArray[np.float32]]]:
    """Runs the float graph on a batch and gives the values of inner tensors."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    own = {output.name for output in model.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        for tensor in tensors
        if tensor not in own
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = model.graph.input[0].name

    def run(batch: NDArray[np.generic]) -> list[NDArray[np.float32]]:
        values: list[NDArray[np.float32]] = session.run(list(tensors), {name: batch})
        return values

    return run


def histogram(values: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    """How many magnitudes fall into each of BINS equal bins from 0 to `largest`, zeros left out; (BINS,)."""
    magnitudes = np.abs(values[values != 0])
    if not magnitudes.size:
        return np.zeros(BINS, np.int64)
    places = np.minimum((magnitudes * np.float32(BINS / largest)).astype(np.int32), BINS - 1)
    counted: NDArray[np.int64] = np.bincount(places, minlength=BINS)
    return counted


def kl_cut(counts: NDArray[np.int64], levels: int) -> int:
    """Where to cut a histogram off.

    Args:
        counts: of magnitudes, (BINS,).
        levels: that the magnitudes are rounded to.
    Returns:
        How many bins are kept, `levels` to BINS; all of an empty histogram.
    """
    best, least = len(counts), np.inf
    for kept in range(len(counts), levels - 1, -CUT_STEP):
        divergence = _divergence(counts, kept, levels)
        if divergence < least:  # of equally good cuts the one that cuts least
            best, least = kept, divergence
    return best


def _divergence(counts: NDArray[np.int64], kept: int, levels: int) -> float:
    """Of the rounded distribution to the one that is not, with all but `kept` bins moved into the last that is kept."""
    inside = counts[:kept].astype(np.float64)
    total_inside, total = inside.sum(), float(counts.sum())
    if not total_inside:
        return float(np.inf)
    true = inside.copy()
    true[-1] += total - total_inside
    # Each level takes an equal run of bins, and spreads what it took evenly over those of them that hold something.
    starts = np.arange(levels) * kept // levels
    holds = inside > 0
    sums = np.add.reduceat(inside, starts)
    holding = np.add.reduceat(holds.astype(np.float64), starts)
    lengths = np.diff(starts, append=kept)
    rounded = np.repeat(sums / np.maximum(holding, 1), lengths) * holds
    occurs = true > 0
    if not rounded[occurs].all():
        return float(np.inf)
    p, q = true[occurs] / total, rounded[occurs] / total_inside
    return float((p * np.log(p / q)).sum())
