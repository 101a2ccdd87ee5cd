"""iNaturalist of the competitions 2017 to 2019 (Van Horn et al., "The iNaturalist Species Classification and Detection
Dataset", 2018).

Layout (github.com/visipedia/inat_comp): `train2019.json` and `val2019.json`, likewise of other years, with `images`
(id, file_name) and `annotations` (image_id, category_id) as in COCO's format, and pictures in `train_val2019`, which
file_name begins with. The validation pictures are of the training classes and are asked among one another.
"""

import json
from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet

SPLITS = {"train": "train", "val": "test"}


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: there is not one training list, or a list is not of this form.
    """
    pictures = {}
    for prefix, split in SPLITS.items():
        found = sorted(source.glob(f"{prefix}20[0-9][0-9].json"))
        if len(found) > 1 or (prefix == "train" and not found):
            there = ", ".join(path.name for path in found) or "none"
            raise LayoutRefused(
                f"{source}: found {there} of {prefix}2017.json to {prefix}2019.json, wanted one"
            )
        if found:
            pictures[split] = _list(found[0])
    return PublishedSet(pictures=pictures)


def _list(path: Path) -> list[Labelled]:
    try:
        written = json.loads(path.read_bytes())
        files = {image["id"]: str(image["file_name"]) for image in written["images"]}
        return [
            Labelled(files[annotation["image_id"]], str(annotation["category_id"]))
            for annotation in written["annotations"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LayoutRefused(
            f"{path}: cannot be read as iNaturalist's list: {type(error).__name__}: {error}"
        ) from error
