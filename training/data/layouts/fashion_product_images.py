"""Fashion Product Images (kaggle.com/datasets/paramaggarwal/fashion-product-images-dataset).

Layout: `styles.csv` with id, gender, masterCategory, subCategory, articleType and others, and pictures at
images/ID.jpg. The class is subCategory, whose number is nearest to the 47 of PP-ShiTuV2's table; what its authors took
is not said.
"""

from pathlib import Path

from training.data.published import Labelled, PublishedSet, find, rows_of


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: `styles.csv` or `images` is missing.
    """
    root = find(source, "fashion-dataset", ".")
    folder = "" if root == source / "." else f"{root.name}/"
    find(root, "images")
    return PublishedSet(
        pictures={
            "train": [
                Labelled(f"{folder}images/{row['id']}.jpg", row["subCategory"])
                for row in rows_of(find(root, "styles.csv"), "id", "subCategory")
            ]
        }
    )
