"""What a reader of a published set gives: its pictures and scenes by split, in the words of the set itself.

The readers are in `training.data.layouts`, one a module; `training.data.prepare` checks what they give and writes it.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]


class LayoutRefused(Exception):
    """The folder is not of this layout; the message says what is missing, and what the folder should be."""


class Labelled(NamedTuple):
    """A picture with a class.

    Attributes:
        path: relative to the set's folder, with "/".
        name: of the class.
        box: x1, y1, x2, y2 in pixels of what shows the class; None is the whole picture.
    """

    path: str
    name: str
    box: Box | None = None


class Boxed(NamedTuple):
    """A picture with boxes.

    Attributes:
        path: relative to the set's folder, with "/".
        boxes: x1, y1, x2, y2 in pixels.
        names: of the boxes' classes.
        is_crowd: which of the boxes hold many things and stand for none.
    """

    path: str
    boxes: Sequence[Box]
    names: Sequence[str]
    is_crowd: Sequence[bool]


@dataclass(frozen=True)
class PublishedSet:
    """A set as it was published.

    Attributes:
        pictures: by list: "train", and for evaluation "test" (its pictures asked among one another) or "query" and
            "gallery", perhaps with a suffix.
        scenes: by split.
    """

    pictures: dict[str, list[Labelled]] = field(default_factory=dict)
    scenes: dict[str, list[Boxed]] = field(default_factory=dict)


def find(source: Path, *names: str) -> Path:
    """The first of these files or folders that is there.

    Args:
        source: the set's folder.
        names: relative to it, the usual one first.
    Raises:
        LayoutRefused: none is.
    """
    for name in names:
        if (source / name).exists():
            return source / name
    there = ", ".join(sorted(path.name for path in source.iterdir())[:10]) if source.is_dir() else "no folder"
    raise LayoutRefused(f"{source}: found {there or 'an empty folder'}, wanted {' or '.join(names)}")


def relative(path: Path, source: Path) -> str:
    """The path below the set's folder, with "/"; nothing for the folder itself."""
    below = path.relative_to(source).as_posix()
    return "" if below == "." else f"{below}/"


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields, split at white space, of each line that is not empty."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if fields := line.split():
                yield number, fields


def rows_of(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        LayoutRefused: a column is missing, or empty in a row.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise LayoutRefused(
                f"{path}:1: found the columns {', '.join(reader.fieldnames or [])}, wanted {', '.join(columns)}"
            )
        for row in reader:
            if not all(row[column] for column in columns):
                raise LayoutRefused(f"{path}:{reader.line_num}: found no {' or no '.join(columns)}")
            yield row


def coco_scenes(path: Path, where: str = "") -> list[Boxed]:
    """The pictures and boxes of a file in COCO's format.

    Args:
        path: of the file.
        where: goes before each `file_name`.
    Raises:
        LayoutRefused: the file is not of this format.
    """
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
        names = {category["id"]: str(category["name"]) for category in written["categories"]}
        boxes: dict[Any, list[tuple[Box, str, bool]]] = {image["id"]: [] for image in written["images"]}
        for annotation in written["annotations"]:
            x, y, width, height = map(float, annotation["bbox"])
            box, is_crowd = (x, y, x + width, y + height), bool(annotation.get("iscrowd"))
            boxes[annotation["image_id"]].append((box, names[annotation["category_id"]], is_crowd))
        return [
            Boxed(
                f"{where}{image['file_name']}",
                [box for box, _, _ in boxes[image["id"]]],
                [name for _, name, _ in boxes[image["id"]]],
                [is_crowd for _, _, is_crowd in boxes[image["id"]]],
            )
            for image in written["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LayoutRefused(
            f"{path}: cannot be read as COCO's format: {type(error).__name__}: {error}"
        ) from error
