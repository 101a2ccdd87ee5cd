"""From a run's checkpoint to the model folder that serving takes.

    python -m training.export --checkpoint RUN/best.pt --out DIR

The folder holds `model.onnx`, for any batch size, and `card.json`, which says how pictures become its input and what
its outputs are: an embedding whose signs are the hash code, or decoded boxes and scores. It is written only when
OpenVINO and ONNX Runtime's own provider give what PyTorch gives on the same pictures.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recognition.errors import RecognitionError
from recognition.model_card import ModelCard
from training.checkpoint import CheckpointRefused, load
from training.config import ConfigRefused
from training.export import ExportRefused, export_folder
from training.export.checkpoints import graph_and_card, takes_raw_pixels
from training.import_paddle import proof_pictures
from training.networks import VERSION


def export(
    path: Path,
    out: Path,
    *,
    raw_pixels: bool = False,
    version: str = VERSION,
    licence: str = "not stated",
    score_threshold: float | None = None,
    antialias: bool = False,
) -> ModelCard:
    """Make the model folder of a checkpoint.

    Args:
        path: of the checkpoint.
        out: the folder to make; it must not be there yet.
        raw_pixels: put the normalisation into the graph, which then takes pixels of 0..255.
        version: of the model.
        licence: of the weights.
        score_threshold: of a detector: from which score on a find is answered.
        antialias: pictures are reduced by averaging when served, whatever training did.
    Raises:
        CheckpointRefused, ConfigRefused: the file is no checkpoint of ours, or one that learned to be int8.
        ValueError: an embedder has no score threshold.
        ExportRefused: `out` exists, or the file does not do what its PyTorch form does; nothing is written.
        ModelRefused: the file does not run as its card says.
    """
    if out.exists():
        raise ExportRefused(f"{out} is there already; remove it or name another folder.")
    checkpoint = load(path)
    if checkpoint.settings.get("quantise"):
        raise CheckpointRefused(
            f"{path}: learned to be int8; python -m training.quantise FLOAT_FOLDER --checkpoint {path.name} exports it "
            "and compares it with the float model."
        )
    command = (
        f"python -m training.train on {checkpoint.settings['name']}; "
        f"python -m training.export --checkpoint {path.name}"
        + " --raw-pixels" * raw_pixels
        + (f" --score-threshold {score_threshold:g}" if score_threshold is not None else "")
        + " --antialias" * antialias
    )
    graph, card = graph_and_card(path, version=version, licence=licence, command=command)
    if raw_pixels:
        graph, card = takes_raw_pixels(graph, card)
    if score_threshold is not None:
        if card.detection is None:
            raise ValueError(f"found an {card.task} and a score threshold, which only a detector has.")
        card = replace(card, detection=replace(card.detection, score_threshold=score_threshold))
    if antialias:
        card = replace(card, resize=replace(card.resize, antialias=True))
    return export_folder(graph, card, proof_pictures(), out)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description="A checkpoint to a model folder."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a file that training.train wrote")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to make")
    parser.add_argument(
        "--raw-pixels", action="store_true", help="put the normalisation of pixels into the graph"
    )
    parser.add_argument("--version", default=VERSION, help="of the model, for its card (%(default)s)")
    parser.add_argument("--licence", default="not stated", help="of the weights, for the card")
    parser.add_argument(
        "--score-threshold",
        type=float,
        help="of a detector: from which score on a find is answered (compare_detectors names the best)",
    )
    parser.add_argument(
        "--antialias",
        action="store_true",
        help="reduce pictures by averaging when served: for photos much larger than those trained on",
    )
    given = parser.parse_args(arguments)
    try:
        card = export(
            given.checkpoint,
            given.out,
            raw_pixels=given.raw_pixels,
            version=given.version,
            licence=given.licence,
            score_threshold=given.score_threshold,
            antialias=given.antialias,
        )
    except (CheckpointRefused, ConfigRefused, ExportRefused, RecognitionError, ValueError) as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    print(f"{given.out}: {card.name} {card.version}, {card.accuracy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
