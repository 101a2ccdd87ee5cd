"""From a network in PyTorch to a model folder: write the graph, prove it, describe it, give it its name.

Every script that makes a model folder comes through here, so that none is written that computes something else than
its PyTorch form, and none half.
"""

import dataclasses
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recognition.detector import open_detector
from recognition.embedder import open_embedder
from recognition.images import model_input
from recognition.model_card import (
    CARD_FILE,
    MODEL_FILE,
    DecodedOutputs,
    EmbedderOutputs,
    ModelCard,
    ModelFolder,
    ModelInput,
    Provider,
    load_model_folder,
)
from recognition.sessions import SessionSettings, open_session
from training.models.embedder import EmbedderModel, Normalisation
from training.models.layers import fold_normalisations, fuse_branches
from training.models.picodet import PicoDet, decode

OPSET = 18
INPUT_NAME = "pixels"
EXPORTER_LOG = "torch.onnx._internal.exporter._registration"
BATCH = 16
PROVIDERS: tuple[Provider, ...] = ("openvino", "cpu")
# Two batch sizes show that the graph takes any; each more costs OpenVINO a compilation.
PROOF_SETTINGS = SessionSettings(batch_sizes=(1, 2), allow_cpu_fallback=False)
# A card's SHA-256 before there is a file.
NO_DIGEST = "0" * 64

LEAST_COSINE = 0.9999
MOST_BOX_DIFFERENCE_PIXELS = 0.5
MOST_SCORE_DIFFERENCE = 1e-3


class ExportRefused(Exception):
    """The exported file does not do what its PyTorch form does, or may not be written; nothing was."""


class EmbedderGraph(nn.Module):
    """What an embedder's file computes: pixels to the embedding, and to hash values where the card names them."""

    def __init__(self, embedder: EmbedderModel) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map normalised crops (N, 3, H, W) to embeddings (N, D) before L2 normalisation, and hash values (N, bits)."""
        embedding = self.embedder.embed(pixels)
        if self.embedder.hash_branch is None:
            return embedding
        return embedding, self.embedder.hash_values(embedding)


class DetectorGraph(nn.Module):
    """What a detector's file computes: pixels to decoded boxes and scores."""

    def __init__(self, detector: PicoDet) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised pictures (N, 3, H, W) to boxes (N, P, 4) in input pixels and scores (N, P, C)."""
        return decode(self.detector(pixels))


class NormalisingGraph(nn.Module):
    """A graph that takes the pixels as they are, uint8 in RGB, for a card with `normalisation_in_graph`."""

    factor: Tensor
    shift: Tensor

    def __init__(self, graph: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.inner = graph  # torch keeps the name `graph` for itself
        scale, mean, std = normalisation
        self.register_buffer("factor", torch.tensor([scale / value for value in std]).reshape(1, 3, 1, 1))
        shift = [one / other for one, other in zip(mean, std, strict=True)]
        self.register_buffer("shift", torch.tensor(shift).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        given: Tensor | tuple[Tensor, ...] = self.inner(pixels.float() * self.factor - self.shift)
        return given


def normalised_input(width: int, height: int, normalisation: Normalisation) -> ModelInput:
    """The card's input for a graph that wants normalised pixels."""
    return ModelInput(
        INPUT_NAME,
        width,
        height,
        "NCHW",
        "float32",
        "RGB",
        normalisation_in_graph=False,
        **normalisation._asdict(),
    )


def output_names(card: ModelCard) -> list[str]:
    """The outputs of a card's graph, in the order in which its PyTorch form gives them.

    Raises:
        ExportRefused: the card is of a detector that leaves its distributions to be decoded; we export none.
    """
    if isinstance(card.outputs, EmbedderOutputs):
        names = [card.outputs.embedding]
        return names if card.outputs.hash in (None, *names) else [*names, str(card.outputs.hash)]
    if isinstance(card.outputs, DecodedOutputs):
        return [card.outputs.boxes, card.outputs.scores]
    raise ExportRefused(f"{card.name}: found raw outputs in its card, wanted decoded boxes and scores.")


def write_onnx(graph: nn.Module, path: Path, card: ModelCard) -> None:
    """Write the ONNX graph, for any batch size, with the names that the card gives.

    Args:
        graph: takes one tensor, gives the outputs of `output_names`. Branches and normalisations are folded here.
        path: of the file.
        card: of the model.
    """
    shape = (2, 3, card.input.height, card.input.width)
    sample = torch.zeros(shape, dtype=torch.uint8 if card.input.dtype == "uint8" else torch.float32)
    with _exporter_quiet():
        torch.onnx.export(
            fold_normalisations(fuse_branches(graph)),
            (sample,),
            path,
            input_names=[card.input.name],
            output_names=output_names(card),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    scrub(path)


@contextmanager
def _exporter_quiet() -> Iterator[None]:
    """torch's exporter speaks of itself, of packages that it could know and of its own deprecated calls, as if ours."""
    log = logging.getLogger(EXPORTER_LOG)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def scrub(path: Path) -> None:
    """Take out what the exporter notes at every node: the line of source it came from, with this machine's paths."""
    written = onnx.load(path)
    graph = written.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del noted.metadata_props[:]
    onnx.save(written, path)


def prepared_batches(pictures: Sequence[NDArray[np.uint8]], card: ModelCard) -> Iterator[Tensor]:
    """Prepare pictures by the code that serving uses; yields (at most BATCH, 3, height, width) in the card's dtype."""
    for start in range(0, len(pictures), BATCH):
        prepared = [model_input(picture, card) for picture in pictures[start : start + BATCH]]
        yield torch.from_numpy(np.stack(prepared))


def check_against_pytorch(
    graph: nn.Module, folder: ModelFolder, pictures: Sequence[NDArray[np.uint8]]
) -> float:
    """Run the same pictures through PyTorch, OpenVINO and ONNX Runtime's own provider.

    Args:
        graph: as given to `write_onnx`.
        folder: what was written.
        pictures: RGB, each (h, w, 3); one or more.
    Returns:
        For an embedder the least cosine between an output of the file and that of PyTorch; for a detector the
        largest distance between box sides, in input pixels.
    Raises:
        ExportRefused: the cosine is below 0.9999; or a side differs by more than half a pixel or a score by more
            than 0.001.
        ModelRefused: the file does not run as its card says.
    """
    card = folder.card
    names = output_names(card)
    batches = list(prepared_batches(pictures, card))
    wanted = _outputs_of_pytorch(graph, batches, names)
    judge = _check_embeddings if card.task == "embedder" else _check_detections
    figures = []
    for provider in PROVIDERS:
        twin = ModelFolder(dataclasses.replace(card, provider=provider), folder.model_path)
        session = open_session(twin, PROOF_SETTINGS)
        runs = [session.run({card.input.name: batch.numpy()}) for batch in batches]
        found = {name: np.concatenate([run[name] for run in runs]) for name in names}
        figures.append(judge(provider, card, found, wanted))
    return min(figures) if card.task == "embedder" else max(figures)


def _outputs_of_pytorch(
    graph: nn.Module, batches: Sequence[Tensor], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    was_training = graph.training
    graph.eval()
    with torch.inference_mode():
        runs = [graph(batch) for batch in batches]
    graph.train(was_training)
    runs = [run if isinstance(run, tuple) else (run,) for run in runs]
    return {name: torch.cat([run[index] for run in runs]).numpy() for index, name in enumerate(names)}


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines (N,) between the rows of a and b, both (N, D)."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result: NDArray[np.float64] = (left * right).sum(axis=1) / lengths
    return result


def _check_embeddings(
    provider: Provider,
    card: ModelCard,
    found: dict[str, NDArray[np.float32]],
    wanted: dict[str, NDArray[np.float32]],
) -> float:
    least = min(float(cosines(found[name], wanted[name]).min()) for name in wanted)
    if not least >= LEAST_COSINE:
        raise ExportRefused(
            f"{card.name}: {provider} gives a cosine of {least:.6f} to PyTorch, wanted {LEAST_COSINE}; "
            "nothing is written."
        )
    return least


def _check_detections(
    provider: Provider,
    card: ModelCard,
    found: dict[str, NDArray[np.float32]],
    wanted: dict[str, NDArray[np.float32]],
) -> float:
    boxes, scores = output_names(card)
    apart = float(np.abs(found[boxes] - wanted[boxes]).max())
    off = float(np.abs(found[scores] - wanted[scores]).max())
    if not (apart <= MOST_BOX_DIFFERENCE_PIXELS and off <= MOST_SCORE_DIFFERENCE):
        raise ExportRefused(
            f"{card.name}: {provider} differs from PyTorch by {apart:.4f} pixels and {off:.6f} in scores, wanted "
            f"at most {MOST_BOX_DIFFERENCE_PIXELS} and {MOST_SCORE_DIFFERENCE}; nothing is written."
        )
    return apart


@contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which gets the name `out` when all went well and is gone when not.

    Raises:
        ExportRefused: `out` exists.
    """
    if out.exists():
        raise ExportRefused(f"{out} is there already; remove it or name another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        made = Path(aside) / out.name
        made.mkdir()
        yield made
        made.rename(out)


def export_folder(
    graph: nn.Module,
    card: ModelCard,
    pictures: Sequence[NDArray[np.uint8]],
    out: Path,
    *,
    measure: Callable[[ModelFolder], str] | None = None,
) -> ModelCard:
    """Write, prove and only then give the folder its name.

    Args:
        graph: takes one tensor as the card's input says, gives the outputs of `output_names`.
        card: but for its SHA-256.
        pictures: RGB, each (h, w, 3), for the proof; one or more.
        out: the model folder to make; it must not be there yet.
        measure: says what stands in the card as accuracy, from the proved file; without it the card's own stays.
    Returns:
        The card as written.
    Raises:
        ExportRefused: `out` exists, or the file does not do what its PyTorch form does.
        ModelRefused: the file does not run as its card says.
    """
    with folder_aside(out) as made:
        write_onnx(graph, made / MODEL_FILE, card)
        digest = hashlib.sha256((made / MODEL_FILE).read_bytes()).hexdigest()
        card = dataclasses.replace(card, sha256=digest)
        folder = ModelFolder(card, made / MODEL_FILE)
        figure = check_against_pytorch(graph, folder, pictures)
        is_embedder = card.task == "embedder"
        print(
            f"least cosine to PyTorch: {figure:.7f}" if is_embedder else f"off PyTorch by {figure:.5f} pixels"
        )
        if measure is not None:
            card = dataclasses.replace(card, accuracy=measure(folder))
        write_card(card, made)
        (open_embedder if is_embedder else open_detector)(load_model_folder(made), PROOF_SETTINGS)
    return card


def write_card(card: ModelCard, folder: Path) -> None:
    """Write `card.json` into a folder."""
    (folder / CARD_FILE).write_text(json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n")
