"""Reads lists of labelled pictures: label lists, query and gallery lists, and our folder format.

A label list is a text file in UTF-8, a picture a line: path and label, by a tab or by the line's last space; after a
tab also a box, x1, y1, x2, y2. Empty lines count and are passed over. PaddleClas' lists are of this form.

The folder format (docs/api.md, "Folder format") is products.csv, gallery.csv and query.csv; its classes are SKUs.
"""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data.faults import Faults
from training.data.pictures import ListedPictures, Retrieval, without_small_classes

PRODUCTS_FILE, GALLERY_FILE, QUERY_FILE = "products.csv", "gallery.csv", "query.csv"
BOX_COLUMNS = ("x1", "y1", "x2", "y2")

Box = tuple[float, float, float, float]


class Entry(NamedTuple):
    """One line of a list.

    Attributes:
        line: 1 is the first.
        path: as written.
        name: of the class: the SKU, or the label as a plain number.
        box: None is the whole picture.
    """

    line: int
    path: str
    name: str
    box: Box | None


def read_label_list(
    path: Path,
    root: Path | None = None,
    *,
    relabel: bool = False,
    minimum_pictures: int | None = None,
    crop_margin: float = 0.0,
) -> ListedPictures:
    """Read a label list for training.

    Args:
        path: of the list.
        root: what its paths are relative to; None is the list's own folder.
        relabel: make the labels that are there dense, in their order. Without it they are taken as they are, and a
            number that is left out is an empty class, which `pictures.check` refuses.
        minimum_pictures: classes with fewer are left out, which relabels; None leaves none out.
        crop_margin: share of a box's sides left around it.
    Raises:
        BadData: a line is none, or its label no number of 0 or more.
    """
    faults = Faults()
    entries = list(_label_lines(path, faults))
    faults.raise_if_any()
    labels = {int(entry.name) for entry in entries}
    numbers = sorted(labels) if relabel else range(1 + max(labels, default=-1))
    classes = [str(number) for number in numbers]
    pictures = _listed(entries, classes, path, path.parent if root is None else root, crop_margin)
    return pictures if minimum_pictures is None else without_small_classes(pictures, minimum_pictures)


def read_retrieval_lists(
    query: Path, gallery: Path | None = None, root: Path | None = None, *, crop_margin: float = 0.0
) -> Retrieval:
    """Read label lists for evaluation.

    Args:
        query: the list of queries.
        gallery: the list to search in; None, or the same file: the queries among one another.
        root: what their paths are relative to; None is the lists' own folders.
        crop_margin: share of a box's sides left around it.
    Raises:
        BadData: as `read_label_list`.
    """
    asked = read_label_list(query, root, relabel=True, crop_margin=crop_margin)
    if gallery is None or gallery.resolve() == query.resolve():
        return Retrieval(asked, asked)
    return Retrieval(asked, read_label_list(gallery, root, relabel=True, crop_margin=crop_margin))


def _label_lines(path: Path, faults: Faults) -> Iterator[Entry]:
    try:
        with path.open("rb") as file:  # decoded line by line, so that one that cannot be is named
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    faults.add(f"{path}:{number}", f"cannot be read as a list in UTF-8: {error}")
                    return
                if line:
                    try:
                        yield _label_line(number, line)
                    except ValueError as error:
                        faults.add(f"{path}:{number}", str(error))
    except OSError as error:
        faults.add(str(path), f"cannot be read as a list in UTF-8: {error}")


def _label_line(number: int, line: str) -> Entry:
    fields = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1)
    if len(fields) not in (2, 6):
        raise ValueError(f"found {line[:80]!r}, wanted path and label, and by tabs perhaps x1, y1, x2, y2")
    path, label = fields[:2]
    if not (label.isascii() and label.isdigit()):
        raise ValueError(f"found the label {label[:40]!r}, wanted a number of 0 or more")
    return Entry(number, path, str(int(label)), _box(fields[2:]))


def _box(cells: Sequence[str]) -> Box | None:
    if not any(cells):
        return None
    try:
        x1, y1, x2, y2 = (float(cell) for cell in cells)
    except ValueError as error:
        raise ValueError(f"found the box {', '.join(cells)}, wanted four numbers") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError(f"found the box {', '.join(cells)}, wanted four finite numbers")
    return x1, y1, x2, y2


def _listed(
    entries: Sequence[Entry], classes: Sequence[str], source: Path, root: Path, crop_margin: float
) -> ListedPictures:
    numbers = {name: number for number, name in enumerate(classes)}
    boxes = None
    if any(entry.box is not None for entry in entries):
        whole = (math.nan,) * 4
        boxes = np.array([entry.box or whole for entry in entries], np.float32)
    return ListedPictures(
        root=root,
        paths=np.array([entry.path for entry in entries], np.dtypes.StringDType()),
        labels=np.array([numbers[entry.name] for entry in entries], np.int64),
        classes=tuple(classes),
        source=source,
        lines=np.array([entry.line for entry in entries], np.int32),
        boxes=boxes,
        crop_margin=crop_margin,
    )


def read_folder(
    folder: Path,
    *,
    gallery: str = GALLERY_FILE,
    minimum_pictures: int | None = None,
    crop_margin: float = 0.0,
) -> ListedPictures:
    """Read products.csv and gallery.csv of a folder as a training set.

    Args:
        folder: of the folder format.
        gallery: a file in it, or anywhere, that lists the pictures.
        minimum_pictures: products with fewer are left out; None leaves none out, and a product without a picture
            is an empty class, which `pictures.check` refuses.
        crop_margin: share of a box's sides left around it.
    Raises:
        BadData: a file or column is missing, or a row's SKU is no product or its box no four numbers.
    """
    faults = Faults()
    products = list(_rows(folder / PRODUCTS_FILE, ("sku",), faults))
    skus = list(dict.fromkeys(cells["sku"] for _, cells in products))
    entries = list(_picture_rows(folder / gallery, faults, set(skus)))
    faults.raise_if_any()
    pictures = _listed(entries, skus, folder / gallery, folder, crop_margin)
    return pictures if minimum_pictures is None else without_small_classes(pictures, minimum_pictures)


def read_folder_retrieval(
    folder: Path, *, gallery: str = GALLERY_FILE, query: str = QUERY_FILE, crop_margin: float = 0.0
) -> Retrieval:
    """Read a folder's queries and gallery; classes are the SKUs that the two files name.

    Args:
        folder: of the folder format.
        gallery: file in it.
        query: file in it; the gallery's own file asks its pictures among one another.
        crop_margin: share of a box's sides left around it.
    Raises:
        BadData: a file or column is missing, or a box is no four numbers.
    """
    faults = Faults()
    sides = []
    for name in dict.fromkeys((query, gallery)):
        entries = list(_picture_rows(folder / name, faults))
        skus = list(dict.fromkeys(entry.name for entry in entries))
        sides.append(_listed(entries, skus, folder / name, folder, crop_margin))
    faults.raise_if_any()
    return Retrieval(sides[0], sides[-1])


def _picture_rows(path: Path, faults: Faults, known: set[str] | None = None) -> Iterator[Entry]:
    for number, cells in _rows(path, ("image", "sku"), faults):
        try:
            box = _box([cells.get(column, "") for column in BOX_COLUMNS])
        except ValueError as error:
            faults.add(f"{path}:{number}", str(error))
            continue
        if known is not None and cells["sku"] not in known:
            faults.add(
                f"{path}:{number}", f"found the SKU {cells['sku']!r}, wanted one out of {PRODUCTS_FILE}"
            )
            continue
        yield Entry(number, cells["image"], cells["sku"], box)


def _rows(path: Path, wanted: Iterable[str], faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a CSV file; a file that cannot be read gives a fault and no rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            header = [(column or "").strip().lower() for column in reader.fieldnames or []]
            missing = [column for column in wanted if column not in header]
            if missing:
                faults.add(
                    f"{path}:1", f"found the columns {', '.join(header)}, wanted also {', '.join(missing)}"
                )
                return
            reader.fieldnames = header
            for cells in reader:
                row = {column: (cell or "").strip() for column, cell in cells.items() if column}
                empty = [column for column in wanted if not row[column]]
                if empty:
                    faults.add(f"{path}:{reader.line_num}", f"found no {' and no '.join(empty)}")
                else:
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.add(str(path), f"cannot be read as CSV in UTF-8: {error}")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text of lines aside and rename it: a file that is there is whole."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(aside, path)
