"""Detectors side by side: what each one's model folder finds in the same scenes, as serving would run it.

    python -m training.compare_detectors training/configs/scenes/unseen_products.toml MODEL [MODEL ...]

The configuration names the sets of scenes. A detector is judged with its card's classes and suppression: AP and AP50 by
all that it finds, recall and doubled boxes by what reaches its card's threshold, which is what a till sees.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Printed

from recognition.boxes import containment, pairwise_iou
from recognition.detector import Detections, MainBodyDetector, open_detector
from recognition.errors import RecognitionError
from recognition.images import DecodedImage
from recognition.model_card import ModelFolder, load_model_folder
from recognition.sessions import SessionSettings
from training.choices import CHECKED, Table
from training.coco_ap import MAXIMUM_BOXES, SCORE_THRESHOLD, Found, average_precision
from training.config import ConfigRefused, read_table
from training.data.coco import Scenes
from training.data.faults import BadData, watched
from training.distributed import started
from training.settings import SceneSource
from training.sources import evaluation_scenes

# A find lies on a product when they overlap by this much, or when so much of the find lies inside of it.
ON_IOU = 0.5
ON_CONTAINMENT = 0.8
WORTH_A_BAR = 50


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class ScenesToCompare(Table):
    """The sets of scenes.

    Attributes:
        sets: each with a name.
    """

    sets: Annotated[tuple[SceneSource, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Judgement:
    """How good a detector is on a set of scenes.

    Attributes:
        ap, ap50: COCO's, 0..1.
        recall: share of the products that a find overlaps by an IoU of 0.5, at the card's threshold.
        precision: share of the finds that lie on a product and are the first there, at the card's threshold.
        doubled: finds beyond the first on a product, a hundred products, at the card's threshold.
        best_threshold: the score from which on finds would have the highest F1, 0..1; 0 where nothing is found.
        products: true boxes.
    """

    ap: float
    ap50: float
    recall: float
    precision: float
    doubled: float
    best_threshold: float
    products: int


def judge(folder: ModelFolder, scenes: Scenes) -> Judgement:
    """Judge a detector's folder on scenes.

    Raises:
        ModelRefused: it does not run as its card says.
    """
    return judge_each([folder] * len(scenes), scenes)


def judge_each(folders: Sequence[ModelFolder], scenes: Scenes) -> Judgement:
    """Judge detectors of which each sees some of the scenes as if they were one, as cross-validation has them.

    Args:
        folders: of each scene, which detector is asked.
    Raises:
        ModelRefused: one does not run as its card says.
    """
    detectors: dict[Path, MainBodyDetector] = {}
    found, on_products, n_overlapped, n_finds, n_first, n_products = [], 0, 0, 0, 0, 0
    firsts: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
    name = folders[0].card.name
    for number in watched(range(len(scenes)), name, len(scenes), WORTH_A_BAR):
        folder = folders[number]
        if folder.model_path not in detectors:
            detectors[folder.model_path] = _open_for_judging(folder)
        served = folder.card.detection
        assert served is not None
        finds = _detect(detectors[folder.model_path], scenes.read(number))
        found.append(Found(finds.boxes, finds.scores, np.zeros(len(finds), np.int64)))
        truth = scenes.truth(number).boxes
        on = lies_on(finds.boxes, truth)
        first = first_on(on)
        firsts.append((finds.scores, first))
        # The best scores come first, so what a till sees is a beginning of it.
        n_served = min(int((finds.scores >= served.score_threshold).sum()), served.maximum_items)
        at_the_till = finds.boxes[:n_served]
        n_finds += n_served
        on_products += int((on[:n_served] >= 0).sum())
        n_first += int(first[:n_served].sum())
        n_products += len(truth)
        if len(truth) and len(at_the_till):
            n_overlapped += int((pairwise_iou(at_the_till, truth).max(axis=0) >= ON_IOU).sum())
    figures = average_precision(found, scenes)
    return Judgement(
        ap=figures["AP"],
        ap50=figures["AP50"],
        recall=n_overlapped / max(1, n_products),
        precision=n_first / max(1, n_finds),
        doubled=100 * (on_products - n_first) / max(1, n_products),
        best_threshold=best_threshold(
            np.concatenate([scores for scores, _ in firsts]),
            np.concatenate([first for _, first in firsts]),
            n_products,
        ),
        products=n_products,
    )


def _open_for_judging(folder: ModelFolder) -> MainBodyDetector:
    """More than a till sees: AP wants the doubtful finds too, ranked below the others."""
    served = folder.card.detection
    assert served is not None
    all_found = replace(
        served,
        score_threshold=min(SCORE_THRESHOLD, served.score_threshold),
        maximum_items=max(MAXIMUM_BOXES, served.maximum_items),
    )
    return open_detector(replace(folder, card=replace(folder.card, detection=all_found)), SessionSettings())


def _detect(detector: MainBodyDetector, picture: NDArray[np.uint8]) -> Detections:
    height, width = picture.shape[:2]
    return detector.detect(DecodedImage(picture, width, height, "PNG"))


def first_on(on: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which finds are the first on a product.

    Args:
        on: (N,), the product of each, as `lies_on` gives it, the best scores first.
    Returns:
        (N,).
    """
    first = np.zeros(len(on), np.bool_)
    first[np.unique(on, return_index=True)[1]] = True
    return first & (on >= 0)


def best_threshold(scores: NDArray[np.float32], right: NDArray[np.bool_], n_products: int) -> float:
    """The score from which on finds have the highest F1: the harmonic mean of precision and recall.

    Args:
        scores: (N,).
        right: (N,), which finds are the first on a product.
        n_products: to be found.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + n_products)
    return float(scores[order][f1.argmax()])


def lies_on(finds: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which product each find lies on.

    Args:
        finds: (N, 4).
        truth: (G, 4).
    Returns:
        (N,), the product of those that it lies on which it overlaps most by IoU; -1 where it lies on none.
    """
    if not len(finds) or not len(truth):
        return np.full(len(finds), -1, np.intp)
    overlaps = pairwise_iou(finds, truth)  # (N, G)
    on = (overlaps >= ON_IOU) | (containment(truth, finds).T >= ON_CONTAINMENT)
    best: NDArray[np.intp] = np.where(on, overlaps, -1).argmax(axis=1)
    return np.where(on.any(axis=1), best, -1)


def compare(folders: Sequence[ModelFolder], sets: Mapping[str, Scenes]) -> dict[str, dict[str, Judgement]]:
    """Each detector's judgement on each set, by model and set."""
    return {
        f"{folder.card.name} {folder.card.version}": {
            name: judge(folder, scenes) for name, scenes in sets.items()
        }
        for folder in folders
    }


def read_sets(path: Path) -> dict[str, Scenes]:
    """The sets that a configuration names.

    Raises:
        ConfigRefused, BadData: as their messages say.
    """
    sources = read_table(path, ScenesToCompare).sets
    names = [source.name for source in sources]
    if "" in names or len(set(names)) < len(names):
        raise ConfigRefused(f"{path}: sets: found the names {names}, wanted one of its own for each.")
    with started("cpu") as process:
        return {source.name: evaluation_scenes(source, process) for source in sources}


def show(found: Mapping[str, Mapping[str, Judgement]], path: Path | None) -> None:
    """Print a table for each set, and write the figures by model and set into a JSON file, if one is named."""
    Console().print(*_tables_of(found), sep="\n")
    if path is not None:
        plain = {
            model: {name: asdict(one) for name, one in judgements.items()}
            for model, judgements in found.items()
        }
        path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def _tables_of(found: Mapping[str, Mapping[str, Judgement]]) -> Iterator[Printed]:
    """A table for each set, a row for each model."""
    for name, first in next(iter(found.values())).items():
        title = f"{name}: {first.products:,} products"
        table = Printed(
            title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        table.add_column("model", no_wrap=True)
        for heading in ("AP50", "AP", "recall", "precision", "doubled\na hundred", "best\nfrom"):
            table.add_column(heading, justify="right")
        for model, judgements in found.items():
            one = judgements[name]
            table.add_row(
                model,
                *(f"{share:.3f}" for share in (one.ap50, one.ap, one.recall, one.precision)),
                f"{one.doubled:.1f}",
                f"{one.best_threshold:.2f}",
            )
        yield table


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare_detectors",
        description="What detectors find in the same scenes: AP, recall, doubled boxes.",
    )
    parser.add_argument("scenes", type=Path, help="a configuration that names the sets of scenes, in TOML")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="detectors' model folders")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    given = parser.parse_args(arguments)
    try:
        folders = [load_model_folder(path) for path in given.models]
        for folder in folders:
            if folder.card.detection is None:
                raise ValueError(
                    f"{folder.card.name}: found an {folder.card.task}'s folder, wanted a detector's."
                )
        found = compare(folders, read_sets(given.scenes))
    except (BadData, ConfigRefused, OSError, RecognitionError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    show(found, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
