"""Products-10K (Bai et al., "Products-10K: A Large-scale Product Recognition Dataset", 2020).

Layout (kaggle.com/competitions/products-10k): `train.csv` with name, class, group and pictures in `train`; after the
competition `test_kaggletest.csv` with name, class, group, Usage, pictures in `test`. The test pictures are of the
training classes; they are asked among one another.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find, rows_of


def read(source: Path) -> PublishedSet:
    """The training pictures, and the test pictures where their answers are there.

    Raises:
        LayoutRefused: `train.csv` or the folder of its pictures is missing.
    """
    find(source, "train")
    pictures = {"train": _list(find(source, "train.csv"), "train")}
    try:
        pictures["test"] = _list(find(source, "test_kaggletest.csv", "test.csv"), "test")
    except LayoutRefused:
        return PublishedSet(pictures=pictures)
    return PublishedSet(pictures=pictures)


def _list(path: Path, folder: str) -> list[Labelled]:
    return [Labelled(f"{folder}/{row['name']}", row["class"]) for row in rows_of(path, "name", "class")]
