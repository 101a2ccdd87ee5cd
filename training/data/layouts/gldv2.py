"""Google Landmarks v2 (Weyand et al., "Google Landmarks Dataset v2", 2020).

Layout, as the README of github.com/cvdfoundation/google-landmark has it: `train.csv` with id, url, landmark_id;
`train_clean.csv` with landmark_id and images, ids with spaces between; pictures at a/b/c/ID.jpg, a, b and c the first
three letters of the id, below the folder that the archives were unpacked in, usually `train`.

The clean list is what PP-ShiTu trains on: its 1,580,470 pictures and 81,313 classes are the paper's numbers. It is
taken where it is there. The index and test sets judge landmarks by lists of right pictures instead of by classes; they
are not read.
"""

from pathlib import Path

from training.data.published import Labelled, PublishedSet, find, relative, rows_of


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: there is neither list.
    """
    listed = find(source, "train_clean.csv", "train.csv", "metadata/train_clean.csv", "metadata/train.csv")
    folder = relative(find(source, "train", "."), source)
    if listed.name == "train_clean.csv":
        ids = [
            (number, row["landmark_id"])
            for row in rows_of(listed, "landmark_id", "images")
            for number in row["images"].split()
        ]
    else:
        ids = [(row["id"], row["landmark_id"]) for row in rows_of(listed, "id", "landmark_id")]
    return PublishedSet(
        pictures={
            "train": [Labelled(f"{folder}{'/'.join(number[:3])}/{number}.jpg", name) for number, name in ids]
        }
    )
