"""Split a folder of products so that what a recipe is judged by was never trained on.

    python -m training.data.hold_out FOLDER OUT --model MODEL --products training/configs/held_out_products.txt

Two things are held out. Whole products, for what a product added without training can expect. And of the others whole
sequences: pictures taken in one go of one thing are near copies, and one of them in training answers for the rest.
Sequences are found by likeness, for file names rarely tell.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition.embedder import ProductEmbedder, open_embedder
from recognition.errors import RecognitionError
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings
from training.data.faults import BadData
from training.data.lists import BOX_COLUMNS, PRODUCTS_FILE, read_folder_retrieval
from training.data.pictures import ListedPictures

# Pictures of one product at least as alike as this are of one sequence, and whoever is like one of them too.
LIKENESS = 0.8
READ_AT_ONCE = 32


def sequences(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], likeness: float
) -> NDArray[np.int64]:
    """Chain the pictures of each product that are alike.

    Args:
        embeddings: (N, D), each row of L2 norm 1.
        labels: (N,), of the products.
        likeness: cosine from which two are of one sequence.
    Returns:
        (N,), the index of the first picture of each one's sequence.
    """
    found = np.arange(len(labels))
    for label in np.unique(labels):
        (own,) = np.nonzero(labels == label)
        alike = embeddings[own] @ embeddings[own].T >= likeness
        np.fill_diagonal(alike, val=True)
        first = np.arange(len(own))
        while True:  # each takes the first of all that it is like, until nobody moves
            moved = np.where(alike, first, len(own)).min(axis=1)
            if np.array_equal(moved, first):
                break
            first = moved
        found[own] = own[first]
    return found


def held_out_pictures(
    labels: NDArray[np.int64], sequence: NDArray[np.int64], share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw whole sequences of each product, up to a share of its pictures; one sequence at least always stays.

    Args:
        labels: (N,), of the products.
        sequence: (N,), as `sequences` gives it.
        share: 0 to below 1.
        random: draws.
    Returns:
        (N,), true where the picture is held out.
    """
    out = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = labels == label
        left = share * own.sum()
        drawn = random.permutation(np.unique(sequence[own]))
        for one in drawn[:-1]:
            size = int((sequence == one).sum())
            if size <= left:
                out |= sequence == one
                left -= size
    return out


def embed_all(pictures: ListedPictures, embedder: ProductEmbedder) -> NDArray[np.float32]:
    """Embeddings (N, D) of all pictures."""
    n = len(pictures)
    return np.concatenate(
        [
            embedder.embed([pictures.read(i) for i in range(start, min(start + READ_AT_ONCE, n))]).vectors
            for start in range(0, n, READ_AT_ONCE)
        ]
    )


def hold_out(
    folder: Path, out: Path, embedder: ProductEmbedder, products: Iterable[str], *, share: float, seed: int
) -> dict[str, int]:
    """Write the lists, rows as of a gallery.csv whose paths are relative to `folder`.

    Args:
        folder: of the folder format, with a query.csv of its own.
        out: the folder for the lists: `train.csv`; `query.csv`, sequences held out of the products that are
            trained on, to be asked in `train.csv`; `sequences.csv`, the whole gallery with the sequence that each
            picture is of; and from the folder's own queries `known_query.csv` and `new_query.csv`, of the products
            that are trained on and of those that are not.
        embedder: tells which pictures are alike.
        products: SKUs that are held out whole.
        share: of the other products' pictures that is held out, 0 to below 1.
        seed: of the draw.
    Returns:
        Pictures by list.
    Raises:
        BadData: a file of the folder is missing or wrong, or a product to be held out is not in it.
    """
    own = read_folder_retrieval(folder)
    gallery, query = own.gallery, own.query
    assert isinstance(gallery, ListedPictures)
    assert isinstance(query, ListedPictures)
    left_out = set(products)
    strangers = sorted(left_out - set(gallery.classes))
    if strangers:
        raise BadData(
            f"{folder / PRODUCTS_FILE}: found no pictures of {', '.join(strangers)}, wanted all held-out products"
        )
    skus = np.array(gallery.classes)[gallery.labels]
    kept = ~np.isin(skus, sorted(left_out))
    sequence = sequences(embed_all(gallery, embedder), gallery.labels, LIKENESS)
    asked = kept & held_out_pictures(gallery.labels, sequence, share, np.random.default_rng(seed))
    query_skus = np.array(query.classes)[query.labels]
    is_new = np.isin(query_skus, sorted(left_out))
    out.mkdir(parents=True, exist_ok=True)
    everything = np.ones(len(gallery.labels), np.bool_)
    lists = {
        "sequences.csv": (gallery, everything),
        "train.csv": (gallery, kept & ~asked),
        "query.csv": (gallery, asked),
        "known_query.csv": (query, ~is_new),
        "new_query.csv": (query, is_new),
    }
    for name, (pictures, chosen) in lists.items():
        with (out / name).open("w", encoding="utf-8", newline="") as file:
            of = sequence if name == "sequences.csv" else None
            header = ("image", "sku", *BOX_COLUMNS, *([] if of is None else ["sequence"]))
            csv.writer(file).writerows([header, *_rows(pictures, chosen, of)])
    return {name: int(chosen.sum()) for name, (_, chosen) in lists.items()}


def _rows(
    pictures: ListedPictures, chosen: NDArray[np.bool_], sequence: NDArray[np.int64] | None
) -> Iterator[list[str]]:
    for index in np.flatnonzero(chosen):
        box = [] if pictures.boxes is None else pictures.boxes[index].tolist()
        corners = ["" if math.isnan(corner) else f"{corner:g}" for corner in box or [math.nan] * 4]
        of = [] if sequence is None else [str(sequence[index])]
        yield [str(pictures.paths[index]), pictures.classes[pictures.labels[index]], *corners, *of]


def read_products(path: Path) -> list[str]:
    """The SKUs of a list, one a line; what follows a # is a remark."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [sku for line in lines if (sku := line.partition("#")[0].strip())]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.hold_out",
        description="Split a folder so that what a recipe is judged by was never trained on.",
    )
    parser.add_argument("folder", type=Path, help="of the folder format")
    parser.add_argument("out", type=Path, help="the folder for the lists")
    parser.add_argument(
        "--model", type=Path, required=True, help="an embedder's model folder, to find sequences by"
    )
    parser.add_argument("--products", type=Path, help="a list of SKUs that are held out whole, one a line")
    parser.add_argument("--share", type=float, default=0.2, help="of the other products' pictures (0.2)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    given = parser.parse_args(arguments)
    try:
        if not 0 <= given.share < 1:
            raise ValueError(f"--share: found {given.share}, wanted 0 to below 1.")
        products = [] if given.products is None else read_products(given.products)
        embedder = open_embedder(load_model_folder(given.model), SessionSettings(batch_sizes=(1, 16)))
        counts = hold_out(given.folder, given.out, embedder, products, share=given.share, seed=given.seed)
    except (BadData, OSError, RecognitionError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"{given.out / name}: {count:,} pictures")
    wanted = round(given.share * (counts["query.csv"] + counts["train.csv"]))
    if counts["query.csv"] < wanted / 2:
        print(
            f"query.csv: found {counts['query.csv']:,} pictures to hold out, wanted some {wanted:,}: to {given.model} "
            "nearly all pictures of a product are one sequence. A model that was trained on them finds them so; take "
            "one that was not, such as python -m training.export_efficientnet_lite makes."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
