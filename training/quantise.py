"""Make an int8 model folder out of a float one, and say what it costs and what it gains.

    python -m training.quantise FOLDER --out DIR --query QUERY --gallery GALLERY --limit 1.0
    python -m training.quantise FOLDER --out DIR --checkpoint RUN/best.pt

Both methods (`training.quantisation.post_training`) are calibrated on the same pictures and asked the same queries as
the float model; one table shows the three. The one that `--method` names is written, unless a figure of it has fallen
by more points than `--limit` allows: then nothing is. Without pictures of one's own, invented products are drawn. A
run with `quantise = "pact"` that started from the float model comes in by `--checkpoint`, as a fourth line.
"""

import argparse
import dataclasses
import hashlib
import math
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recognition.detector import open_detector
from recognition.embedder import Embeddings, ProductEmbedder, open_embedder
from recognition.errors import ImageRefused, RecognitionError
from recognition.images import DecodedImage, decode
from recognition.model_card import MODEL_FILE, ModelCard, ModelFolder, load_model_folder
from recognition.sessions import SessionSettings, open_session
from training.checkpoint import CheckpointRefused
from training.coco_ap import MAXIMUM_BOXES, NMS_THRESHOLD, SCORE_THRESHOLD, Found, average_precision
from training.config import ConfigRefused
from training.data.coco import Scenes, read_coco
from training.data.datasets import Readable
from training.data.faults import BadData
from training.data.generated import GeneratedPictures, GeneratedScenes
from training.data.lists import read_label_list
from training.data.pictures import Pictures, Retrieval
from training.distributed import Process
from training.export import ExportRefused, folder_aside, write_card
from training.quantisation.calibration import Calibration
from training.quantisation.learned import learned_int8
from training.quantisation.post_training import METHODS
from training.quantisation.qdq import quantisable_layers
from training.retrieval import search_figures
from training.settings import (
    CocoFile,
    GeneratedRetrieval,
    GeneratedScenesSource,
    RetrievalFolder,
    RetrievalLists,
    RetrievalSource,
    SceneSource,
)
from training.sources import evaluation_scenes, retrieval

ALONE = Process(0, 1, torch.device("cpu"))
FLOAT, PACT = "float", "pact"
SETTINGS = SessionSettings(batch_sizes=(1, 8))
PROOF = 8
# Of the speed: runs of each model, taking turns, so that a busy machine is busy for all of them.
TIMED_RUNS, UNTIMED_RUNS = 40, 5
PICTURES, LIMIT = 300, 1.0
READ_AT_ONCE = 64
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# What is drawn where no pictures are given: other products for calibration than for the judgement.
OTHER_SEED = 1
DRAWN_PRODUCTS, VIEWS, DRAWN_SIDE = 100, 5, 256
DRAWN_SCENES = 50

# Says how good an opened model folder is: figures by name, each 0..1.
Judge = Callable[[ModelFolder], Mapping[str, float]]


class QuantisationRefused(Exception):
    """No int8 model was written; the message says which figure fell how far, or what does not fit."""


REFUSALS = (
    QuantisationRefused,
    ExportRefused,
    BadData,
    CheckpointRefused,
    ConfigRefused,
    RecognitionError,
)


@dataclass(frozen=True)
class Candidate:
    """A model of the table.

    Attributes:
        method: how it was made.
        folder: the card and the file, which exists as long as the table is made.
        figures: what the judge says.
        size: of the file, in bytes.
        seconds: of one picture, the median.
    """

    method: str
    folder: ModelFolder
    figures: Mapping[str, float]
    size: int
    seconds: float

    def lost(self, before: "Candidate") -> dict[str, float]:
        """By how many points (hundredths) each figure has fallen; below 0 where it has risen."""
        # Rounded, so that one point of a hundred queries is one point.
        return {name: round(100 * (value - self.figures[name]), 6) for name, value in before.figures.items()}


def quantise(
    folder: ModelFolder,
    out: Path,
    *,
    method: str,
    calibration: Sequence[NDArray[np.uint8]],
    judge: Judge,
    limit: float,
    facts: Mapping[str, str],
    checkpoint: Path | None = None,
    keep_float: Sequence[str] = (),
) -> list[Candidate]:
    """Quantise a model by each method, compare, and write the chosen one.

    Args:
        folder: of a float model.
        out: the model folder to make; it must not be there yet.
        method: a key of METHODS, or pact: the one to write.
        calibration: RGB, each (h, w, 3).
        judge: asked for the float model and for each int8 one.
        limit: no figure may fall by more points than this; a point is a hundredth.
        facts: what goes into the card beside the accuracy: `command`, and in words `judged_on` and `calibrated_on`.
        checkpoint: of a run that learned to be int8, for the method pact, which is compared too.
        keep_float: parts of the network whose layers stay float, as they are called in it: "neck", "head.towers".
    Returns:
        The float model and the int8 ones, the table's rows.
    Raises:
        QuantisationRefused: the model is no float one or has no such part, or a figure fell by more than the limit;
            nothing is written.
        ExportRefused: `out` exists.
        ModelRefused: an int8 model does not run as int8 on this machine.
        CheckpointRefused: the checkpoint is of another model or did not learn to be int8.
    """
    if folder.card.precision != "fp32":
        raise QuantisationRefused(
            f"{folder.card.name}: found {folder.card.precision}, wanted a float model (fp32); nothing is written."
        )
    if (method == PACT) != (checkpoint is not None):
        raise QuantisationRefused(
            "wanted --checkpoint with --method pact, and with no other; nothing is written."
        )
    model = onnx.load(folder.model_path)
    learned = None if checkpoint is None else learned_int8(checkpoint, folder.card, calibration[:PROOF])
    prepared = Calibration(calibration, folder.card)
    float_weights = _weights_of(model, keep_float)
    with folder_aside(out) as made, tempfile.TemporaryDirectory() as others:
        folders = {FLOAT: folder}
        for name, quantised in METHODS.items():
            path = made / MODEL_FILE if name == method else Path(others) / f"{name}.onnx"
            print(f"quantising by {name} on {len(prepared)} pictures ...", flush=True)
            onnx.save(quantised(model, prepared, float_weights), path)
            folders[name] = ModelFolder(_card(folder.card, path, name, facts), path)
        if learned is not None:
            int8, own = learned
            onnx.save(int8, made / MODEL_FILE)
            card = _learned_card(folder.card, own, made / MODEL_FILE, facts)
            folders[PACT] = ModelFolder(card, made / MODEL_FILE)
        seconds = _seconds_taking_turns(folders, prepared.first(1))
        candidates = [
            Candidate(name, one, judge(one), one.model_path.stat().st_size, seconds[name])
            for name, one in folders.items()
        ]
        before, chosen = candidates[0], next(one for one in candidates if one.method == method)
        show(candidates)
        _refuse_loss(before, chosen, limit)
        accuracy = f"{described(before, chosen)}; {facts['judged_on']}"
        write_card(dataclasses.replace(chosen.folder.card, accuracy=accuracy), made)
        written = load_model_folder(made)
        (open_embedder if written.card.task == "embedder" else open_detector)(written, SETTINGS)
    return candidates


def _weights_of(model: onnx.ModelProto, parts: Sequence[str]) -> set[str]:
    """Names of the weights of some parts' layers; a name has the path of its module, with dots."""
    known = [layer.weight for layer in quantisable_layers(model)]
    found: set[str] = set()
    for part in parts:
        own = {name for name in known if f".{part}." in f".{name}"}
        if not own:
            raise QuantisationRefused(
                f"--keep-float {part}: found no such part; layers are called {known[0]} to {known[-1]}, for example. "
                "Nothing is written."
            )
        found |= own
    return found


def _card(card: ModelCard, path: Path, method: str, facts: Mapping[str, str]) -> ModelCard:
    how = f"NNCF {version('nncf')}" if method == "nncf" else "KL calibration by Checklane"
    return dataclasses.replace(
        card,
        name=f"{card.name}-int8",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        provider="openvino",
        precision="int8",
        origin=f"{card.origin}; {card.name} {card.version} quantised to int8 with {how}",
        trained_on=f"{card.trained_on}; int8 ranges from {facts['calibrated_on']}",
        command=facts["command"],
        accuracy="not measured",
    )


def _learned_card(card: ModelCard, own: ModelCard, path: Path, facts: Mapping[str, str]) -> ModelCard:
    """Of the network that a run with `quantise` made: its own origin and data."""
    return dataclasses.replace(
        _card(card, path, PACT, facts),
        origin=f"{own.origin}, learned to be int8 (PACT) beside {card.name} {card.version}",
        trained_on=own.trained_on,
        seed=own.seed,
    )


def _refuse_loss(before: Candidate, after: Candidate, limit: float) -> None:
    passed = {name: points for name, points in after.lost(before).items() if not points <= limit}
    if passed:
        fallen = ", ".join(
            f"{name} fell by {points:.2f} points, {before.figures[name]:.4f} to {after.figures[name]:.4f}"
            for name, points in passed.items()
        )
        raise QuantisationRefused(
            f"int8 by {after.method} passes the limit of {limit:g} points: {fallen}. Nothing is written; try the "
            'other --method, more or other --calibration pictures, or a run with quantise = "pact".'
        )


def described(before: Candidate, after: Candidate) -> str:
    """Both models' figures, for the card."""
    pairs = (
        f"{name} {value:.4f} float, {after.figures[name]:.4f} int8" for name, value in before.figures.items()
    )
    return "; ".join(pairs)


def _seconds_taking_turns(
    folders: Mapping[str, ModelFolder], picture: NDArray[np.generic]
) -> dict[str, float]:
    """The median time of one picture through each model, one after the other in every round."""
    sessions = {name: open_session(one, SessionSettings(batch_sizes=(1,))) for name, one in folders.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for round_ in range(UNTIMED_RUNS + TIMED_RUNS):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run({folders[name].card.input.name: picture})
            if round_ >= UNTIMED_RUNS:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(measured) for name, measured in times.items()}


def show(candidates: Sequence[Candidate]) -> None:
    """Print the table: figures, file size, and speed as a ratio to the float model's."""
    before = candidates[0]
    table = Table("model", *before.figures, "file", "speed", title=before.folder.card.name)
    for one in candidates:
        table.add_row(
            one.method,
            *(f"{value:.4f}" for value in one.figures.values()),
            f"{one.size / 1e6:.1f} MB",
            f"x {before.seconds / one.seconds:.2f}",
        )
    Console(highlight=False).print(table)


def embedder_judge(judged: Retrieval) -> Judge:
    """Recall@1 and mAP by exact search, and recall@1 by the hash codes."""

    def judge(folder: ModelFolder) -> Mapping[str, float]:
        embedder = open_embedder(folder, SETTINGS)
        asked = _embedded(embedder, judged.query)
        known = asked if judged.gallery is judged.query else _embedded(embedder, judged.gallery)
        codes = (asked.hash_codes, known.hash_codes)
        found = search_figures(asked.vectors, known.vectors, judged, ALONE, codes=codes)
        return {name: found[name] for name in ("recall@1", "mAP", "hash_recall@1")}

    return judge


def detector_judge(scenes: Scenes) -> Judge:
    """COCO's AP and AP50 of what serving's own detector finds, asked for all that COCO counts."""

    def judge(folder: ModelFolder) -> Mapping[str, float]:
        assert folder.card.detection is not None
        asked = dataclasses.replace(
            folder.card.detection,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            maximum_items=MAXIMUM_BOXES,
        )
        card = dataclasses.replace(folder.card, detection=asked)
        detector = open_detector(ModelFolder(card, folder.model_path), SETTINGS)
        found = []
        for number in range(len(scenes)):
            pixels = scenes.read(number)
            height, width = pixels.shape[:2]
            one = detector.detect(DecodedImage(pixels, width, height, "PNG"))
            found.append(Found(one.boxes, one.scores, np.zeros(len(one), np.int64)))
        figures = average_precision(found, scenes)
        return {name: figures[name] for name in ("AP", "AP50")}

    return judge


def _embedded(embedder: ProductEmbedder, side: Pictures) -> Embeddings:
    n = len(side.labels)
    return Embeddings.concatenate(
        [
            embedder.embed([side.read(index) for index in range(start, min(start + READ_AT_ONCE, n))])
            for start in range(0, n, READ_AT_ONCE)
        ]
    )


def read_calibration(path: Path, count: int, seed: int, crop_margin: float) -> list[NDArray[np.uint8]]:
    """Pictures to find ranges on.

    Args:
        path: a label list, a file in COCO's format (.json), or a folder of pictures.
        count: how many at most, drawn without replacement.
        seed: of the draw.
        crop_margin: around a list's boxes.
    Raises:
        BadData: a picture is missing or damaged, the list is none, or there is no picture.
    """
    source = _source(path, crop_margin)
    if not len(source):
        raise BadData([f"{path}: found no picture, wanted some to calibrate on"])
    chosen = np.random.default_rng(seed).permutation(len(source))[:count]
    return [source.read(index) for index in sorted(chosen.tolist())]


@dataclass(frozen=True)
class FolderOfPictures:
    """All pictures below a folder.

    Attributes:
        files: in order.
    """

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> NDArray[np.uint8]:
        """
        Raises:
            BadData: the picture is damaged.
        """
        try:
            return decode(self.files[index].read_bytes()).pixels
        except (OSError, ImageRefused) as error:
            raise BadData([f"{self.files[index]}: {error}"]) from error


def _source(path: Path, crop_margin: float) -> Readable:
    if path.is_dir():
        found = (one for one in path.rglob("*") if one.suffix.lower() in PICTURE_SUFFIXES)
        return FolderOfPictures(tuple(sorted(found)))
    if path.suffix.lower() == ".json":
        return read_coco(path, keep_empty=True)
    return read_label_list(path, relabel=True, crop_margin=crop_margin)


def drawn_calibration(card: ModelCard, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """Crops of invented products for an embedder, checkout scenes of them for a detector."""
    if card.task == "detector":
        scenes = GeneratedScenes(count, seed=seed)
        scenes.draw_all()
        return [scenes.read(index) for index in range(count)]
    drawn = GeneratedPictures(
        math.ceil(count / VIEWS), range(VIEWS), seed=seed, side=DRAWN_SIDE, crop_margin=card.crop_margin
    )
    drawn.draw_all()
    return [drawn.read(index) for index in range(count)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.quantise", description=__doc__)
    parser.add_argument("model", type=Path, help="the float model folder")
    parser.add_argument("--out", type=Path, required=True, help="the int8 model folder to make")
    parser.add_argument("--method", choices=METHODS, help="which to write; both are compared (nncf)")
    parser.add_argument(
        "--checkpoint", type=Path, help='of a run with quantise = "pact", to write and compare with both'
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="points by which no figure may fall (default %(default)s)"
    )
    parser.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="PART",
        help="a part of the network whose layers stay float, such as a detector's neck; may come again",
    )
    parser.add_argument("--query", type=Path, help="an embedder's queries: a label list")
    parser.add_argument("--gallery", type=Path, help="what they are asked of; without it each other")
    parser.add_argument("--folder", type=Path, help="or a folder with query.csv and gallery.csv")
    parser.add_argument("--annotations", type=Path, help="a detector's scenes: a file in COCO's format")
    parser.add_argument("--root", type=Path, help="what paths in lists and annotations are relative to")
    parser.add_argument(
        "--calibration", type=Path, help="a label list, a file in COCO's format, or a folder of pictures"
    )
    parser.add_argument("--pictures", type=int, default=PICTURES, help="to calibrate on, at most")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    options = parser.parse_args(arguments)
    if options.pictures < 1:
        parser.error(f"--pictures: found {options.pictures}, wanted 1 or more")
    if options.checkpoint and options.method:
        parser.error("--method chooses among what needs no --checkpoint; give one of the two")
    options.method = PACT if options.checkpoint else options.method or "nncf"
    try:
        folder = load_model_folder(options.model)
        if options.out.exists():
            raise ExportRefused(f"{options.out} is there already; remove it or name another folder.")
        judge, judged_on = _judge(options, folder.card)
        facts = {
            "command": _command(options),
            "judged_on": judged_on,
        }
        calibration, facts["calibrated_on"] = _calibration(options, folder.card)
        quantise(
            folder,
            options.out,
            method=options.method,
            calibration=calibration,
            judge=judge,
            limit=options.limit,
            facts=facts,
            checkpoint=options.checkpoint,
            keep_float=options.keep_float,
        )
    except REFUSALS as refused:
        sys.exit(f"refused: {refused}")
    print(f"{options.out}: int8 by {options.method}, every figure within {options.limit:g} points")


def _command(options: argparse.Namespace) -> str:
    """The command for the card: files by their names, since other machines keep them elsewhere."""
    words = ["python", "-m", "training.quantise", options.model.resolve().name, "--method", options.method]
    if options.checkpoint:
        words = [*words[:-2], "--checkpoint", options.checkpoint.name]
    for part in options.keep_float:
        words += ["--keep-float", part]
    for key in ("query", "gallery", "folder", "annotations", "calibration"):
        if getattr(options, key):
            words += [f"--{key}", getattr(options, key).resolve().name]
    words += ["--pictures", str(options.pictures), "--seed", str(options.seed)]
    return shlex.join([*words, "--limit", f"{options.limit:g}"])


def _judge(options: argparse.Namespace, card: ModelCard) -> tuple[Judge, str]:
    """The judge and, in words, what it judges on."""
    lists, folder, scenes = options.query, options.folder, options.annotations
    if card.task == "detector":
        if lists or folder or options.gallery:
            raise QuantisationRefused(
                "found --query, --gallery or --folder, wanted --annotations for a detector."
            )
        chosen: SceneSource
        if scenes:
            chosen, name = CocoFile(kind="coco", annotations=scenes, root=options.root), scenes.name
        else:
            chosen = GeneratedScenesSource(kind="generated", scenes=DRAWN_SCENES, seed=options.seed)
            name = f"generated scenes of seed {options.seed}"
        found = evaluation_scenes(chosen, ALONE)
        return detector_judge(found), f"{name}: {len(found):,} scenes"
    if scenes or (lists and folder) or (options.gallery and not lists):
        raise QuantisationRefused(
            "wanted for an embedder --query with or without --gallery, or --folder, or none of them."
        )
    source: RetrievalSource
    if lists:
        source = RetrievalLists(kind="lists", query=lists, gallery=options.gallery, root=options.root)
        name = f"{lists.name} against {(options.gallery or lists).name}"
    elif folder:
        source = RetrievalFolder(kind="folder", folder=folder)
        name = f"{folder.name}, its query.csv against its gallery.csv"
    else:
        source = GeneratedRetrieval(
            kind="generated", products=DRAWN_PRODUCTS, seed=options.seed, side=DRAWN_SIDE
        )
        name = f"{DRAWN_PRODUCTS} invented products of seed {options.seed}"
    judged = retrieval(source, card.crop_margin, ALONE)
    counts = f"{len(judged.query.labels):,} queries, {len(judged.gallery.labels):,} gallery pictures"
    return embedder_judge(judged), f"{name}: {counts}"


def _calibration(options: argparse.Namespace, card: ModelCard) -> tuple[list[NDArray[np.uint8]], str]:
    """The pictures and, in words, what they are."""
    if options.calibration:
        found = read_calibration(options.calibration, options.pictures, options.seed, card.crop_margin)
        return found, f"{len(found):,} pictures of {options.calibration.name}, seed {options.seed}"
    seed = options.seed + OTHER_SEED
    drawn = drawn_calibration(card, options.pictures, seed)
    kind = "scenes" if card.task == "detector" else "pictures of invented products"
    return drawn, f"{len(drawn):,} generated {kind}, seed {seed}"


if __name__ == "__main__":
    main(sys.argv[1:])
