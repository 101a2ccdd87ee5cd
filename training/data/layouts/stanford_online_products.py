"""Stanford Online Products (Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", 2016).

Layout: `Stanford_Online_Products.zip` holds `Ebay_train.txt` and `Ebay_test.txt`, lines of image_id, class_id,
super_class_id and path below a header of these words, and a folder of pictures for each of the 12 super classes, such
as `bicycle_final` (so read by pytorch-metric-learning and open-metric-learning). Classes of the two lists differ; the
test pictures are asked among one another.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find, lines_of

HEADER = ["image_id", "class_id", "super_class_id", "path"]


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: a list is missing or has other columns.
    """
    return PublishedSet(
        pictures={
            "train": _list(find(source, "Ebay_train.txt")),
            "test": _list(find(source, "Ebay_test.txt")),
        }
    )


def _list(path: Path) -> list[Labelled]:
    pictures = []
    for number, fields in lines_of(path):
        if (number == 1 and fields != HEADER) or len(fields) != len(HEADER):
            raise LayoutRefused(
                f"{path}:{number}: found {' '.join(fields)[:80]!r}, wanted {' '.join(HEADER)}"
            )
        if number > 1:
            pictures.append(Labelled(fields[3], fields[1]))
    return pictures
