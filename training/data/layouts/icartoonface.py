"""iCartoonFace (Zheng et al., "Cartoon Face Recognition: A Benchmark Dataset", 2020).

Layout (github.com/luxiangju-PersonAI/iCartoonFace and public readers of its archives):

- `personai_icartoonface_rectrain/icartoonface_rectrain/PERSON/*.jpg` and, in the outer folder,
  `icartoonface_rectrain_det.txt` with lines of PERSON/IMAGE, x1, y1, x2, y2;
- `personai_icartoonface_rectest/icartoonface_rectest/*.jpg` and `icartoonface_rectest_info.txt` with lines of image,
  x1, y1, x2, y2, label, where -1 is nobody that is asked for; lines of two images are pairs of the first protocol;
- `personai_icartoonface_dettrain/icartoonface_dettrain/*.jpg` and, in the outer folder, `icartoonface_dettrain.csv`
  with rows of image, x1, y1, x2, y2 without a header, a row for each face.

Faces are cropped by their boxes. In the test each labelled face is asked for the others of its person among all, nobody
included. Whichever of the three parts is there is read. The detection test's answers came apart from the pictures; it
is not read.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from training.data.published import (
    Box,
    Boxed,
    Labelled,
    LayoutRefused,
    PublishedSet,
    find,
    lines_of,
    relative,
)

NOBODY = "-1"
FACE = "face"


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: none of the parts is there, or a line is none of its file.
    """
    pictures: dict[str, list[Labelled]] = {}
    scenes: dict[str, list[Boxed]] = {}
    train, test, det = (
        source / f"personai_icartoonface_{part}" for part in ("rectrain", "rectest", "dettrain")
    )
    if train.exists():
        folder = relative(find(train, "icartoonface_rectrain"), source)
        pictures["train"] = []
        listed = find(train, "icartoonface_rectrain_det.txt")
        for number, (image, *corners) in lines_of(listed):
            box = _box(corners, f"{listed}:{number}")
            pictures["train"].append(Labelled(folder + image, image.partition("/")[0], box))
    if test.exists():
        folder = relative(find(test, "icartoonface_rectest"), source)
        listed = find(source, "icartoonface_rectest_info.txt", f"{test.name}/icartoonface_rectest_info.txt")
        pictures |= _test_lists(listed, folder)
    if det.exists():
        folder = relative(find(det, "icartoonface_dettrain"), source)
        scenes["train"] = _scenes(find(det, "icartoonface_dettrain.csv"), folder)
    if not pictures and not scenes:
        find(source, train.name, test.name, det.name)
    return PublishedSet(pictures, scenes)


def _test_lists(listed: Path, folder: str) -> dict[str, list[Labelled]]:
    query, gallery = [], []
    for number, fields in lines_of(listed):
        if len(fields) == 2:
            continue
        box = _box(fields[1:5], f"{listed}:{number}")
        name = "nobody" if fields[-1] == NOBODY else f"test-{fields[-1]}"
        gallery.append(Labelled(folder + fields[0], name, box))
        if fields[-1] != NOBODY:
            query.append(gallery[-1])
    return {"query": query, "gallery": gallery}


def _scenes(listed: Path, folder: str) -> list[Boxed]:
    boxes: dict[str, list[Box]] = {}
    with listed.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if row:
                boxes.setdefault(row[0], []).append(_box(row[1:5], f"{listed}:{number}"))
    return [Boxed(folder + image, own, [FACE] * len(own), [False] * len(own)) for image, own in boxes.items()]


def _box(corners: Sequence[str], where: str) -> Box:
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError as error:
        raise LayoutRefused(
            f"{where}: found the box {' '.join(corners)[:80]!r}, wanted x1 y1 x2 y2"
        ) from error
    return x1, y1, x2, y2
