"""Preparing the public Grocery Store Dataset as a folder that can be imported and evaluated (docs/evaluation.md).

M. Klasson, C. Zhang, H. Kjellström: A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels,
WACV 2019; github.com/marcusklasson/GroceryStoreDataset, MIT licence.
"""

import csv
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.catalogue.imports import GALLERY_FILE, PRODUCTS_FILE
from recognition import images
from recognition.errors import ImageRefused

NAME, NUMBER = "Class Name (str)", "Class ID (int)"
COARSE_NAME, ICONIC_PICTURE = "Coarse Class Name (str)", "Iconic Image Path (str)"

# The files that each part of the data set is in: iconic and training pictures are what a shop would enrol, both
# together or only those that it has.
FILES_OF_SPLIT = {
    "iconic": (GALLERY_FILE, "iconic.csv"),
    "train": (GALLERY_FILE, "shop.csv"),
    "val": ("query.csv",),
    "test": ("test.csv",),
}
LISTED_SPLITS = ("train", "val", "test")
LICENCE_FILE = "LICENSE"
JPEG_QUALITY = 92


class SourceRefused(Exception):
    """The folder is not the data set's repository; the message says what was looked for."""


@dataclass(frozen=True)
class StoreClass:
    """A row of classes.csv: one product."""

    number: int
    name: str
    category: str
    iconic_picture: str  # below the folder `dataset`

    @property
    def sku(self) -> str:
        return f"GS-{self.number:03d}"


@dataclass(frozen=True)
class Picture:
    """A picture to be taken over; `path` is below the folder `dataset`."""

    split: str
    path: str
    of: StoreClass

    @property
    def target(self) -> str:
        """Where it goes, below the destination."""
        if self.split == "iconic":
            return f"images/iconic/{self.of.name}.jpg"
        return f"images/{self.split}/{self.of.name}/{Path(self.path).name}"


@dataclass(frozen=True)
class PreparedStore:
    """What was written, and what could not be, each with its reason."""

    n_products: int
    n_pictures: dict[str, int]  # by file
    refused: tuple[str, ...]


def prepare_grocery_store(
    source: Path,
    destination: Path,
    *,
    longest_side: int | None = None,
    over: Callable[[list[Picture]], Iterable[Picture]] = iter,
) -> PreparedStore:
    """Write products.csv, the files of FILES_OF_SPLIT and the pictures; what is there already is written again.

    Args:
        source: a clone of the data set's repository.
        longest_side: reduce larger pictures to so many pixels; None takes the files as they are.
        over: walks over the pictures, to show progress.
    Raises:
        SourceRefused: there is no such data set in `source`.
    """
    dataset = source / "dataset"
    classes = _read_classes(dataset / "classes.csv")
    refused: list[str] = []
    pictures = [Picture("iconic", one.iconic_picture, one) for one in classes.values()]
    for split in LISTED_SPLITS:
        pictures += _read_split(dataset, split, classes, refused)
    destination.mkdir(parents=True, exist_ok=True)
    taken: dict[str, list[Picture]] = {file: [] for files in FILES_OF_SPLIT.values() for file in files}
    for picture in over(pictures):
        try:
            _take(dataset / picture.path, destination / picture.target, longest_side)
        except (OSError, ImageRefused) as error:
            refused.append(f"{picture.path}: {error}")
        else:
            for file in FILES_OF_SPLIT[picture.split]:
                taken[file].append(picture)
    # Last, so that a folder that has them is whole.
    for file, found in taken.items():
        _write(destination / file, ("image", "sku", "split"), ((p.target, p.of.sku, p.split) for p in found))
    products = (
        (one.sku, "", one.name.replace("-", " "), "", one.category, "", "", _description(dataset, one))
        for one in classes.values()
    )
    header = ("sku", "gtin", "name", "brand", "category", "price", "currency", "description")
    _write(destination / PRODUCTS_FILE, header, products)
    if (source / LICENCE_FILE).is_file():
        shutil.copyfile(source / LICENCE_FILE, destination / LICENCE_FILE)
    return PreparedStore(len(classes), {file: len(found) for file, found in taken.items()}, tuple(refused))


def _read_classes(path: Path) -> dict[int, StoreClass]:
    if not path.is_file():
        raise SourceRefused(
            f"there is no {path}; a clone of github.com/marcusklasson/GroceryStoreDataset is wanted"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = {NAME, NUMBER, COARSE_NAME, ICONIC_PICTURE} - set(rows.fieldnames or ())
        if missing:
            raise SourceRefused(
                f"{path} lacks the column {', '.join(sorted(missing))}; its header is {rows.fieldnames}"
            )
        return {one.number: one for one in map(_read_class, rows)}


def _read_class(row: dict[str, str]) -> StoreClass:
    iconic_picture = row[ICONIC_PICTURE].strip("/")
    # /iconic-images-and-descriptions/Packages/Juice/...: the second folder is fruit, packages or vegetables.
    kind = iconic_picture.split("/")[1]
    return StoreClass(int(row[NUMBER]), row[NAME], f"{kind}/{row[COARSE_NAME]}", iconic_picture)


def _read_split(
    dataset: Path, split: str, classes: dict[int, StoreClass], refused: list[str]
) -> Iterator[Picture]:
    """The pictures of train.txt, val.txt or test.txt, whose lines are `path, class, coarse class`."""
    path = dataset / f"{split}.txt"
    if not path.is_file():
        raise SourceRefused(
            f"there is no {path}; the data set has one for each of {', '.join(LISTED_SPLITS)}"
        )
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            picture, one, _coarse = line.split(",")
            yield Picture(split, picture.strip(), classes[int(one)])
        except (ValueError, KeyError):
            refused.append(
                f"{path.name}:{number}: {line!r} is no path with a class of classes.csv and a coarse class"
            )


def _take(source: Path, target: Path, longest_side: int | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if longest_side is None:
        shutil.copyfile(source, target)
    else:
        picture = images.decode(source.read_bytes(), longest_side=longest_side)
        target.write_bytes(images.encode_jpeg(picture.pixels, quality=JPEG_QUALITY))


def _description(dataset: Path, one: StoreClass) -> str:
    """The product's text in one line. It lies beside the iconic picture; classes.csv misspells two of the paths."""
    path = (dataset / one.iconic_picture).with_name(f"{one.name}_Description.txt")
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
