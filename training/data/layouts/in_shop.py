"""In-shop Clothes Retrieval of DeepFashion (Liu et al., "DeepFashion", 2016).

Layout (mmfashion, `docs/dataset/IN_SHOP_DATASET.md`): `Eval/list_eval_partition.txt` with the number of images, a line
of column names, and lines of image name, item id and "train", "query" or "gallery"; pictures in `Img/img`, named from
`img/` on. Whole pictures are taken, as the retrieval benchmark does; items of training and test differ.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find, lines_of, relative

SPLITS = ("train", "query", "gallery")


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: the list or the pictures' folder is missing, or a line is none of it.
    """
    listed = find(source, "Eval/list_eval_partition.txt", "list_eval_partition.txt")
    folder = relative(find(source, "Img/img", "img").parent, source)
    pictures: dict[str, list[Labelled]] = {split: [] for split in SPLITS}
    for number, fields in lines_of(listed):
        if number <= 2:
            continue
        if len(fields) != 3 or fields[2] not in SPLITS:
            raise LayoutRefused(
                f"{listed}:{number}: found {' '.join(fields)[:80]!r}, wanted an image, an item and train, query or"
                " gallery"
            )
        pictures[fields[2]].append(Labelled(folder + fields[0], fields[1]))
    return PublishedSet(pictures=pictures)
