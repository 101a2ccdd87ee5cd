"""How good a trained model is, on the data that the run was judged by or on other.

    python -m training.evaluate --checkpoint C
    python -m training.evaluate --checkpoint C --query query.txt --gallery gallery.txt --root PICTURES
    python -m training.evaluate --checkpoint C --folder CATALOGUE
    python -m training.evaluate --checkpoint C --annotations instances.json --root PICTURES

Embedders: recall@1 and recall@5 among the nearest products and mAP over the whole gallery, by exact search
(`recognition.metrics`); a query never finds itself. Detectors: COCO's AP. Under `torchrun` processes share the work,
and the figures stay the same to the last bit.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from training.checkpoint import Checkpoint, CheckpointRefused, load
from training.coco_ap import evaluate_detector
from training.config import ConfigRefused
from training.data.faults import BadData
from training.distributed import Process, started
from training.networks import (
    detector_card,
    embedder_card,
    open_detector_checkpoint,
    open_embedder_checkpoint,
)
from training.retrieval import evaluate_embedder
from training.settings import CocoFile, RetrievalFolder, RetrievalLists, RetrievalSource
from training.sources import evaluation_scenes, retrieval

REFUSALS = (BadData, CheckpointRefused, ConfigRefused, OSError, ValueError)
OF_EMBEDDERS = ("query", "gallery", "folder")
OF_DETECTORS = ("annotations",)


def evaluate(path: Path, given: argparse.Namespace, process: Process) -> dict[str, float]:
    """The figures of a checkpoint.

    Args:
        path: of the checkpoint.
        given: the command line's other arguments.
        process: this one; every process has to call it.
    Raises:
        BadData, CheckpointRefused, ConfigRefused: as their messages say.
    """
    if load(path).program == "detector":
        _refuse(given, OF_EMBEDDERS, f"{path} is a detector's, judged by --annotations")
        return _evaluate_detector(path, given, process)
    _refuse(given, OF_DETECTORS, f"{path} is an embedder's, judged by --query and --gallery, or --folder")
    network, settings, checkpoint = open_embedder_checkpoint(path)
    source: RetrievalSource = settings.evaluation.source
    if given.folder is not None:
        source = RetrievalFolder(kind="folder", folder=given.folder)
    elif given.query is not None:
        source = RetrievalLists(kind="lists", query=given.query, gallery=given.gallery, root=given.root)
    elif given.gallery is not None:
        raise CheckpointRefused(
            "--gallery: found no --query, wanted both, or --query alone for its own gallery."
        )
    judged = retrieval(source, settings.data.crop_margin, process)
    _say(process, path, checkpoint, f"{len(judged.query):,} queries in a gallery of {len(judged.gallery):,}")
    return evaluate_embedder(
        network.to(process.device),
        judged,
        embedder_card(settings, network),
        process,
        batch_size=given.batch_size,
        workers=given.workers,
        hashes=settings.model.has_codes,
    )


def _evaluate_detector(path: Path, given: argparse.Namespace, process: Process) -> dict[str, float]:
    network, settings, checkpoint = open_detector_checkpoint(path)
    source = settings.evaluation.source
    if given.annotations is not None:
        source = CocoFile(kind="coco", annotations=given.annotations, root=given.root)
    scenes = evaluation_scenes(source, process)
    _say(process, path, checkpoint, f"{len(scenes):,} scenes")
    return evaluate_detector(
        network.to(process.device),
        scenes,
        detector_card(settings, network),
        process,
        batch_size=given.batch_size,
        workers=given.workers,
    )


def _refuse(given: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(given, name) is not None:
            raise CheckpointRefused(f"--{name}: {reason}.")


def _say(process: Process, path: Path, checkpoint: Checkpoint, on_what: str) -> None:
    if process.is_first:
        print(f"{path}: epoch {checkpoint.epoch}, trained on {checkpoint.trained_on}; judged by {on_what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description="Recall and mAP of an embedder, AP of a detector."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a file that training.train wrote")
    parser.add_argument(
        "--query", type=Path, help="label list of the queries; without any, the run's own data"
    )
    parser.add_argument(
        "--gallery", type=Path, help="label list to search in; without it, the queries themselves"
    )
    parser.add_argument("--folder", type=Path, help="a catalogue's folder, with query.csv and gallery.csv")
    parser.add_argument("--annotations", type=Path, help="scenes and boxes, a file in COCO's format")
    parser.add_argument("--root", type=Path, help="what paths in lists and annotations are relative to")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at a time (64)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each process (0)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    given = parser.parse_args(arguments)
    if given.batch_size < 1:
        parser.error(f"--batch-size: found {given.batch_size}, wanted 1 or more")
    if given.workers < 0:
        parser.error(f"--workers: found {given.workers}, wanted 0 or more")
    if given.json is not None and not given.json.parent.is_dir():
        parser.error(f"--json: found no folder {given.json.parent}")
    try:
        with started(given.device) as process:
            figures = evaluate(given.checkpoint, given, process)
            if process.is_first:
                for name, value in figures.items():
                    print(f"{name:>16}  {value:.4f}")
                if given.json is not None:
                    given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
