"""From a run that trained with `quantise = "pact"` to the int8 graph, proved against the network that was trained."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recognition.images import model_input
from recognition.model_card import MODEL_FILE, ModelCard, ModelFolder
from recognition.sessions import SessionSettings, open_session
from training.checkpoint import CheckpointRefused
from training.export import cosines, output_names, write_onnx
from training.export.checkpoints import graph_and_card, takes_raw_pixels
from training.quantisation.pact import with_learned_ranges, without_pact

# The pairs computed as they are written differ from PyTorch where a sum's last digit falls to the other side of a step.
LEAST_LITERAL_COSINE = 0.999
# ONNX Runtime also rounds biases, to steps of the sums: a few thousandths of an activation's step. In a network with
# little to say that moves embeddings as much as int8 itself does (0.975 in the mean, 0.931 at worst, after twelve
# epochs on 480 pictures), in a trained one hardly. What it does to recall is for the judge to say; this sees gross
# faults.
LEAST_INT8_COSINE = 0.9

Outputs = list[NDArray[np.float32]]


def learned_int8(
    path: Path, card: ModelCard, pictures: Sequence[NDArray[np.uint8]]
) -> tuple[onnx.ModelProto, ModelCard]:
    """The int8 graph of a checkpoint.

    Args:
        path: of the checkpoint.
        card: of the float model that the run started from, or of another float form of the same network.
        pictures: for the proof.
    Returns:
        The graph; and the card of its float form, which says whence it comes.
    Raises:
        CheckpointRefused: the run did not learn to be int8, is of another model than the card, or the graph does not
            compute what the network does.
    """
    graph, own = graph_and_card(path)
    if card.input.normalisation_in_graph:
        graph, own = takes_raw_pixels(graph, own)
    plain, ranges = without_pact(graph)
    if not ranges:
        raise CheckpointRefused(f'{path}: is of a float run, wanted one with quantise = "pact".')
    for key in ("task", "input", "resize", "outputs", "dimension", "crop_margin"):
        found, wanted = getattr(own, key), getattr(card, key)
        if found != wanted:
            raise CheckpointRefused(
                f"{path}: its {key} is {found}, that of {card.name} is {wanted}; wanted the float model of this run."
            )
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / MODEL_FILE
        write_onnx(plain, file, own)
        int8 = with_learned_ranges(onnx.load(file), ranges)
        onnx.save(int8, file)
        _prove(graph, file, own, pictures)
    return int8, own


def _prove(graph: nn.Module, file: Path, card: ModelCard, pictures: Sequence[NDArray[np.uint8]]) -> None:
    batch = np.stack([model_input(picture, card) for picture in pictures])
    with torch.inference_mode():
        given: Tensor | tuple[Tensor, ...] = graph(torch.from_numpy(batch))
    wanted = [one.numpy() for one in (given if isinstance(given, tuple) else (given,))]
    literal = cosine_to(wanted, literally(onnx.load(file), batch))
    folder = ModelFolder(dataclasses.replace(card, provider="openvino", precision="int8"), file)
    outputs = open_session(folder, SessionSettings(batch_sizes=(len(batch),))).run({card.input.name: batch})
    served = cosine_to(wanted, [outputs[name] for name in output_names(card)])
    if not (literal >= LEAST_LITERAL_COSINE and served >= LEAST_INT8_COSINE):
        raise CheckpointRefused(
            f"{card.name}: the int8 file gives a cosine of {literal:.6f} as it is written and {served:.6f} under "
            f"OpenVINO to the trained network, wanted {LEAST_LITERAL_COSINE} and {LEAST_INT8_COSINE}."
        )


def literally(model: onnx.ModelProto, batch: NDArray[np.generic]) -> Outputs:
    """Outputs with each pair computed as it is written, in float."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: Outputs = session.run(None, {model.graph.input[0].name: batch})
    return outputs


def cosine_to(wanted: Outputs, found: Outputs) -> float:
    """The least cosine between a picture's outputs and the wanted ones, each as one long row."""
    return min(
        float(cosines(one.reshape(len(one), -1), other.reshape(len(other), -1)).min())
        for one, other in zip(wanted, found, strict=True)
    )
