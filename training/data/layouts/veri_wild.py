"""VeRI-Wild (Lou et al., "VERI-Wild: A Large Dataset and a New Method for Vehicle Re-Identification", CVPR 2019).

Layout (github.com/PKU-IMRE/VERI-Wild, as fast-reid's `veriwild.py` reads it): pictures at images/VEHICLE/IMAGE.jpg; in
`train_test_split` the lists `train_list.txt`, and `test_3000.txt` (gallery) with `test_3000_query.txt`, likewise 5000
and 10000, lines of VEHICLE/IMAGE without the suffix.

Vehicles of training and test differ. The published protocol also leaves out gallery pictures of the query's own
camera; ours leaves out the query alone, as PaddleClas' `VeriWild` reader does when it is given no cameras.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find, lines_of

SIZES = (3000, 5000, 10000)


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: the training list or the pictures are missing, or a line is none of a list.
    """
    find(source, "images")
    pictures = {"train": _list(find(source, "train_test_split/train_list.txt"))}
    for size in SIZES:
        gallery = source / f"train_test_split/test_{size}.txt"
        if gallery.exists():
            pictures[f"gallery_{size}"] = _list(gallery)
            pictures[f"query_{size}"] = _list(find(source, f"train_test_split/test_{size}_query.txt"))
    return PublishedSet(pictures=pictures)


def _list(path: Path) -> list[Labelled]:
    pictures = []
    for number, fields in lines_of(path):
        vehicle, _, image = fields[0].partition("/")
        if not image or len(fields) > 1:
            raise LayoutRefused(f"{path}:{number}: found {' '.join(fields)[:80]!r}, wanted VEHICLE/IMAGE")
        pictures.append(Labelled(f"images/{vehicle}/{image.removesuffix('.jpg')}.jpg", vehicle))
    return pictures
