"""CompCars (Yang et al., "A Large-Scale Car Dataset for Fine-Grained Categorization and Verification", 2015).

Layout (the set's README): `data/image/MAKE/MODEL/YEAR/*.jpg` and `data/train_test_split/classification/train.txt` and
`test.txt`, lines of MAKE/MODEL/YEAR/IMAGE. A class is a model. The training list's 16,016 pictures of 431 models are
the numbers of PP-ShiTuV2's table, whose link is to another set. The test pictures are of the training classes and are
asked among one another.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find, lines_of, relative


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: a list or the pictures are missing, or a line is none of a list.
    """
    root = find(source, "data", ".")
    folder = relative(find(root, "image"), source)
    pictures: dict[str, list[Labelled]] = {}
    for split in ("train", "test"):
        listed = find(root, f"train_test_split/classification/{split}.txt")
        pictures[split] = []
        for number, fields in lines_of(listed):
            parts = fields[0].split("/")
            if len(parts) != 4:
                raise LayoutRefused(
                    f"{listed}:{number}: found {fields[0][:80]!r}, wanted MAKE/MODEL/YEAR/IMAGE"
                )
            pictures[split].append(Labelled(folder + fields[0], "/".join(parts[:2])))
    return PublishedSet(pictures=pictures)
