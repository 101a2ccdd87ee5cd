"""AliProducts (Cheng et al., "Weakly Supervised Learning with Side Information for Noisy Labeled Images", 2020).

Layout: the ten archives `train_val.part*.tar.gz` of the Tianchi competition 231780 unpack to `train/CLASS/*.jpg` and
`val/CLASS/*.jpg`, classes 00001 to 50030, beside `train.json`, `val.json` and `product_tree.json` (seen in public
readers of the set, among them one that downloads those files by name). The folders say all that we need.

The published networks are measured on `val`, its pictures asked among one another.
"""

from pathlib import Path

from training.data.layouts.class_folders import list_classes
from training.data.published import PublishedSet, find


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: `train` or `val` is missing, or a class is empty.
    """
    return PublishedSet(
        pictures={
            "train": list_classes(find(source, "train"), source),
            "test": list_classes(find(source, "val"), source),
        }
    )
