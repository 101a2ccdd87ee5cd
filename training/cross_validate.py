"""A detector's figures on scenes too few to set some aside: each fold is judged by a detector that never saw it.

    python -m training.cross_validate -c CONFIG --set NAME --folds 5 --out DIR [--beside MODEL ...]

The configuration is that of the run which trains on all; `--set` names sets of its `data.train`, of kind "coco". Their
pictures are cut into folds in the order of the numbers in their names, in runs, so that neighbouring frames lie in one
fold. For each fold the configuration is trained without it, and without the picture before and after it (`--apart`),
and exported into DIR; a fold that is there already is not trained again, and one that was cut off goes on.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recognition.model_card import ModelFolder, load_model_folder
from training.checkpoint import LATEST_FILE
from training.compare_detectors import Judgement, judge, judge_each, show
from training.config import ConfigRefused, read_settings, settings_to_dict
from training.data.coco import read_coco
from training.distributed import started
from training.export import ExportRefused
from training.export.__main__ import export
from training.settings import CocoFile, DetectorSettings
from training.train import REFUSALS, train

FOLD_FILE = "fold.json"


def in_shooting_order(names: Sequence[str]) -> list[str]:
    """By the numbers in their names, so that `photo_9` comes before `photo_10`."""
    return sorted(
        names,
        key=lambda name: [
            (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
        ],
    )


def folds_of(names: Sequence[str], n: int) -> list[set[str]]:
    """n runs of about equal length, in shooting order.

    Raises:
        ValueError: fewer pictures than folds.
    """
    if len(names) < n:
        raise ValueError(f"found {len(names)} pictures, wanted at least as many as the {n} folds")
    return [set(run.tolist()) for run in np.array_split(np.array(in_shooting_order(names)), n)]


def with_neighbours(names: Sequence[str], fold: set[str], apart: int) -> set[str]:
    """A fold and so many pictures before and after it, in shooting order: what its detector must not see."""
    order = in_shooting_order(names)
    rows = [row for row, name in enumerate(order) if name in fold]
    return set(order[max(0, min(rows) - apart) : max(rows) + 1 + apart])


def without(source: CocoFile, left_out: set[str], path: Path) -> CocoFile:
    """The same set without some of its pictures, as a file in COCO's format of its own."""
    written = json.loads(source.annotations.read_bytes())
    images = [image for image in written["images"] if image["file_name"] not in left_out]
    kept = {image["id"] for image in images}
    annotations = [one for one in written["annotations"] if one["image_id"] in kept]
    path.write_text(json.dumps(written | {"images": images, "annotations": annotations}), encoding="utf-8")
    return replace(source, annotations=path, root=source.root or source.annotations.parent)


def train_fold(settings: DetectorSettings, sets: dict[str, set[str]], out: Path) -> ModelFolder:
    """Train without the pictures of a fold, unless that was done before.

    Args:
        sets: by the name of a set, its pictures that are left out.
        out: the fold's folder: lists, the run, and the model's folder.
    Raises:
        BadData, CheckpointRefused, ExportRefused, TrainingStopped: as their messages say.
        ValueError: the folder was begun with other settings, photos or folds.
    """
    model = out / "model"
    out.mkdir(parents=True, exist_ok=True)
    _refuse_another(settings, sets, out / FOLD_FILE)
    if not model.exists():
        sources = tuple(
            without(source, sets[source.name], out / f"{source.name}.json")
            if isinstance(source, CocoFile) and source.name in sets
            else source
            for source in settings.data.train
        )
        of_fold = replace(settings, out=out / "run", data=replace(settings.data, train=sources))
        with started(settings.device) as process:
            train(of_fold, process, resume=(of_fold.out / LATEST_FILE).exists())
        export(of_fold.out / LATEST_FILE, model)
    return load_model_folder(model)


def _refuse_another(settings: DetectorSettings, sets: dict[str, set[str]], path: Path) -> None:
    """What a folder was begun with, it goes on with: a detector of other folds may have seen what it is to judge."""
    facts = settings_to_dict(settings) | {
        "out": None,
        "left_out": {name: sorted(left) for name, left in sets.items()},
    }
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{path.parent}: was begun with other settings, photos or folds; name another --out."
        )


def served_from(folder: ModelFolder, score_threshold: float | None) -> ModelFolder:
    """The same detector, heard from another score on; from its card's where that is None."""
    if score_threshold is None:
        return folder
    assert folder.card.detection is not None
    detection = replace(folder.card.detection, score_threshold=score_threshold)
    return replace(folder, card=replace(folder.card, detection=detection))


def cross_validate(
    settings: DetectorSettings,
    names: Sequence[str],
    n_folds: int,
    out: Path,
    beside: Sequence[ModelFolder],
    score_threshold: float | None = None,
    apart: int = 1,
) -> dict[str, dict[str, Judgement]]:
    """Train each fold and judge every picture of the sets by the detector that did not see it.

    Args:
        names: of the sets that are folded.
        beside: detectors that are judged on all pictures.
        score_threshold: from which score on the folds' finds count; their export's unless given.
        apart: so many pictures before and after a fold, which may be frames of its scenes, are neither trained on.
    Returns:
        By model and set.
    Raises:
        ValueError: a name is no set of kind "coco", or a set has fewer pictures than there are folds.
    """
    sources: dict[str, CocoFile] = {
        source.name: source for source in settings.data.train if isinstance(source, CocoFile)
    }
    if missing := [name for name in names if name not in sources]:
        raise ValueError(f'found no set {missing} of kind "coco", wanted of {sorted(sources)}')
    scenes = {
        name: read_coco(sources[name].annotations, sources[name].root, keep_empty=True) for name in names
    }
    pictures = {name: [str(path) for path in scenes[name].paths] for name in names}
    folds = {name: folds_of(pictures[name], n_folds) for name in names}
    unseen = [
        {name: with_neighbours(pictures[name], folds[name][number], apart) for name in names}
        for number in range(n_folds)
    ]
    models = [
        served_from(train_fold(settings, left_out, out / f"fold-{number}"), score_threshold)
        for number, left_out in enumerate(unseen)
    ]
    ours = {
        name: judge_each(
            [
                next(models[number] for number in range(n_folds) if str(path) in folds[name][number])
                for path in scenes[name].paths
            ],
            scenes[name],
        )
        for name in names
    }
    others = {
        f"{folder.card.name} {folder.card.version}": {name: judge(folder, scenes[name]) for name in names}
        for folder in beside
    }
    return {f"{settings.name}, {n_folds} folds": ours} | others


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cross_validate",
        description="A detector's figures on scenes that it did not see, each trained without its fold.",
    )
    parser.add_argument("-c", "--config", type=Path, required=True, help="of the run that trains on all")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--set", dest="sets", action="append", required=True, help="a set to fold; may come again"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--apart", type=int, default=1, help="pictures before and after a fold that it does not train on (1)"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the folds go")
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="model folders to judge on the same"
    )
    parser.add_argument(
        "--score-threshold", type=float, help="of the folds' detectors: from which score on a find counts"
    )
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    given = parser.parse_args(arguments)
    try:
        settings: Any = read_settings(given.config, given.overrides)
        if not isinstance(settings, DetectorSettings):
            raise ConfigRefused(f"{given.config}: found the program {settings.program}, wanted detector.")
        beside = [load_model_folder(path) for path in given.beside]
        found = cross_validate(
            settings, given.sets, given.folds, given.out, beside, given.score_threshold, given.apart
        )
    except (*REFUSALS, ExportRefused) as error:
        print(error, file=sys.stderr)
        return 1
    show(found, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
