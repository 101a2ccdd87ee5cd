"""Labelled pictures of embedder training: where they lie, what they show, and the check before a run.

Whatever gives crops and labels is `Pictures`: lists of files here, drawn ones in `generated`, several of them as one
in `mixing`. Labels are dense, 0 to classes - 1.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from recognition.errors import ImageRefused
from recognition.images import DEFAULT_LIMITS, SIDEWAYS, check_header, decode
from training.data.faults import Faults, watched

# Enough of a file for its header; a JPEG with more EXIF than this is read whole.
HEAD_BYTES = 1 << 16
TAIL_BYTES = 64
# JPEG's end of image; PNG's last chunk with its checksum. Cameras fill up behind them.
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
PADDING = b"\0\r\n "
READERS = 8
JOBS_AT_ONCE = 4096
# Published boxes are rounded: one that leaves the picture by less than this is cut off without a word.
ROUNDING_PIXELS = 1.0


class Pictures(Protocol):
    """Crops with labels."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), dense: 0 to len(classes) - 1."""

    @property
    def classes(self) -> Sequence[str]:
        """What each label stands for."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """One crop, (h, w, 3) RGB of any size."""

    def where(self, index: int) -> str:
        """Where the picture is listed, for messages."""

    def identity(self, index: int) -> object:
        """What is equal for two entries that show the same crop."""

    def check(self, faults: Faults, *, pictures_per_class: int = 1, thorough: bool = True) -> None:
        """Look at every class, and at every picture without decoding it, and note what is wrong.

        Args:
            faults: takes them.
            pictures_per_class: wanted at least: 1, or 2 under PKSampler, where a picture alone has no partner.
            thorough: read headers, a quarter of a millisecond each; False asks only whether the files are there.
        """


@dataclass(frozen=True)
class ListedPictures:
    """Pictures in files, as a list names them.

    Paths are one array and not a list of texts: loader processes share it, and millions of texts would be copied
    into each of them by and by, since counting a reference writes to it.

    Attributes:
        root: the folder that paths are relative to.
        paths: (N,) of texts.
        labels: (N,) int64, dense.
        classes: what each label stands for.
        source: the file that lists them.
        lines: (N,) of `source`, 1 is the first.
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the upright picture; NaN where the whole picture is the
            crop. None: no picture has a box.
        crop_margin: share of the box's sides that is left around it, as the model's card will say.
    """

    root: Path
    paths: NDArray[Any]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    source: Path
    lines: NDArray[np.int32]
    boxes: NDArray[np.float32] | None = None
    crop_margin: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        return self.root / str(self.paths[index])

    def box(self, index: int) -> tuple[float, float, float, float] | None:
        if self.boxes is None or np.isnan(self.boxes[index]).any():
            return None
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return x1, y1, x2, y2

    def where(self, index: int) -> str:
        return f"{self.source}:{self.lines[index]}"

    def identity(self, index: int) -> object:
        return self.path(index).resolve(), self.box(index)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The crop of one picture.

        Raises:
            BadData: the file went, or its pixels are damaged, which its header does not show.
        """
        try:
            image = decode(self.path(index).read_bytes())
        except (OSError, ImageRefused) as error:
            faults = Faults()
            faults.add(self.where(index), f"{self.path(index)}: {error}")
            faults.raise_if_any()
            raise
        box = self.box(index)
        return image.pixels if box is None else image.crop(box, self.crop_margin)

    def check(self, faults: Faults, *, pictures_per_class: int = 1, thorough: bool = True) -> None:
        """Note each class with too few pictures, each missing or unusable picture, and each box without area or
        outside its picture.
        """
        if not len(self):
            faults.add(
                str(self.source), "found no picture (behind minimum_pictures, if given), wanted one or more"
            )
        check_classes(self, str(self.source), faults, pictures_per_class=pictures_per_class)
        boxed: NDArray[np.bool_] = np.zeros(len(self), bool)
        if self.boxes is not None:
            boxed[:] = ~np.isnan(self.boxes).any(axis=1)
        jobs = ((self.path(index), bool(boxed[index])) for index in range(len(self)))
        headers = headers_of(jobs, thorough=thorough)
        for index, header in enumerate(watched(headers, f"checking {self.source.name}", len(self))):
            if header.fault:
                faults.add(self.where(index), f"{self.paths[index]}: {header.fault}")
            elif boxed[index]:
                assert self.boxes is not None
                fault = box_fault(self.boxes[index], header.width, header.height)
                if fault:
                    faults.add(self.where(index), f"{self.paths[index]}: {fault}")


class Header(NamedTuple):
    """What a picture's first bytes say.

    Attributes:
        fault: why it cannot be used; empty where it can.
        width: of the upright picture; infinite where it was not asked for.
        height: likewise.
    """

    fault: str
    width: float = math.inf
    height: float = math.inf


def headers_of(jobs: Iterable[tuple[Path, bool]], *, thorough: bool = True) -> Iterator[Header]:
    """Look at many pictures, several at a time, since that waits for the disk and not for the processor.

    Args:
        jobs: path, and whether width and height are wanted.
        thorough: read headers; False asks only whether the files are there.
    Returns:
        A header for each, in order.
    """
    jobs = iter(jobs)
    with ThreadPoolExecutor(READERS) as readers:
        # In blocks: the pool takes in all that it is given, and millions of jobs would fill the memory.
        while block := list(islice(jobs, JOBS_AT_ONCE)):
            if thorough:
                yield from readers.map(lambda job: look_at(*job), block)
            else:
                yield from readers.map(
                    lambda job: Header("" if job[0].is_file() else _no_file(job[0])), block
                )


def _no_file(path: Path) -> str:
    return f"found no file {path}, wanted a picture"


def look_at(path: Path, measure: bool) -> Header:
    """Judge a picture by its header and its end; only one that ends otherwise than its format does is decoded.

    Args:
        path: of the file.
        measure: whether width and height are wanted.
    """
    try:
        size = path.stat().st_size
        if size > DEFAULT_LIMITS.max_bytes:
            return Header(f"found {size:,} bytes, wanted at most {DEFAULT_LIMITS.max_bytes:,}")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            try:
                file_format = check_header(head)
            except ImageRefused:
                file_format = check_header(head + file.read())
            file.seek(-min(size, TAIL_BYTES), os.SEEK_END)
            tail = file.read()
        if not _ends(file_format, head, tail, size):
            decode(path.read_bytes())  # cut off, or with something behind it
        if not measure:
            return Header("")
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS:
                width, height = height, width
        return Header("", width, height)
    except FileNotFoundError:
        return Header(_no_file(path))
    except ImageRefused as error:
        return Header(error.detail)
    except (OSError, SyntaxError, ValueError) as error:
        return Header(f"cannot be read: {error}")


def _ends(file_format: str, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file ends as one of its format does that is whole; `head` and `tail` are its ends."""
    if file_format == "WEBP":  # a RIFF, which says its length
        return size >= 8 + int.from_bytes(head[4:8], "little")
    return tail.rstrip(PADDING).endswith(END_MARKERS[file_format])


def box_fault(box: NDArray[np.float32], width: float, height: float) -> str:
    """What is wrong with a box x1, y1, x2, y2 in a picture of this size; empty where nothing is."""
    x1, y1, x2, y2 = box.tolist()
    if not (x1 < x2 and y1 < y2):
        return f"found the box {x1:g}, {y1:g}, {x2:g}, {y2:g} of no area, wanted x1 < x2 and y1 < y2"
    slack = ROUNDING_PIXELS
    if x1 < -slack or y1 < -slack or x2 > width + slack or y2 > height + slack:
        return f"found the box {x1:g}, {y1:g}, {x2:g}, {y2:g} outside the picture of {width:g} x {height:g}"
    if min(x2, width) - max(x1, 0.0) <= 0 or min(y2, height) - max(y1, 0.0) <= 0:
        return f"found the box {x1:g}, {y1:g}, {x2:g}, {y2:g} at the very border of {width:g} x {height:g}"
    return ""


def check_classes(pictures: Pictures, source: str, faults: Faults, *, pictures_per_class: int) -> None:
    """Note each class with too few pictures.

    Args:
        pictures: whose classes.
        source: where they are listed, for messages.
        faults: takes them.
        pictures_per_class: as for `Pictures.check`.
    """
    labels = pictures.labels
    counts = np.bincount(labels, minlength=len(pictures.classes))
    first = np.full(len(counts), -1, np.int64)
    first[labels[::-1]] = np.arange(len(labels))[::-1]
    for label in np.flatnonzero(counts < pictures_per_class).tolist():
        known = "" if pictures.classes[label] == str(label) else f" ({pictures.classes[label]})"
        if counts[label] == 0:
            faults.add(
                source,
                f"class {label}{known} is empty: give it pictures, or leave it out (relabel, or minimum_pictures)",
            )
        else:
            faults.add(
                pictures.where(int(first[label])),
                f"class {label}{known} has {counts[label]} picture, wanted {pictures_per_class} or more for"
                " PKSampler: give it another, or leave small classes out (minimum_pictures)",
            )


def check(pictures: Pictures, *, pictures_per_class: int = 1, thorough: bool = True) -> None:
    """Look through a training set before the run.

    Args:
        pictures: the set.
        pictures_per_class: as for `Pictures.check`.
        thorough: as for `Pictures.check`; lists that `prepare` wrote had their headers read then.
    Raises:
        BadData: naming file and line of what is wrong.
    """
    faults = Faults()
    pictures.check(faults, pictures_per_class=pictures_per_class, thorough=thorough)
    faults.raise_if_any()


def without_small_classes(pictures: ListedPictures, minimum_pictures: int) -> ListedPictures:
    """The pictures without those of classes that have too few; labels are made dense again.

    Args:
        pictures: a list.
        minimum_pictures: a class with fewer goes.
    """
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    kept_classes = np.flatnonzero(counts >= minimum_pictures)
    new_label = np.full(len(counts), -1, np.int64)
    new_label[kept_classes] = np.arange(len(kept_classes))
    kept = new_label[pictures.labels] >= 0
    return replace(
        pictures,
        paths=pictures.paths[kept],
        labels=new_label[pictures.labels[kept]],
        classes=tuple(pictures.classes[label] for label in kept_classes.tolist()),
        lines=pictures.lines[kept],
        boxes=None if pictures.boxes is None else pictures.boxes[kept],
    )


@dataclass(frozen=True)
class Retrieval:
    """What recall is measured on: each query against the whole gallery.

    Attributes:
        query: pictures to ask with.
        gallery: pictures to find.
        query_labels: (Q,), of one numbering with `gallery_labels`.
        gallery_labels: (G,).
        own: (Q,), the gallery's row that is the query itself, -1 where it is not in it; a query never finds itself.
    """

    query: Pictures
    gallery: Pictures
    query_labels: NDArray[np.int64] = field(init=False)
    gallery_labels: NDArray[np.int64] = field(init=False)
    own: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        numbers = {name: number for number, name in enumerate(self.gallery.classes)}
        for name in self.query.classes:
            numbers.setdefault(name, len(numbers))
        for side, pictures in (("query", self.query), ("gallery", self.gallery)):
            renumbered = np.array([numbers[name] for name in pictures.classes], np.int64)
            object.__setattr__(self, f"{side}_labels", renumbered[pictures.labels])
        object.__setattr__(self, "own", self._rows_of_queries())

    def _rows_of_queries(self) -> NDArray[np.intp]:
        if self.query is self.gallery:
            return np.arange(len(self.query.labels))
        rows = {self.gallery.identity(row): row for row in range(len(self.gallery.labels))}
        return np.array(
            [rows.get(self.query.identity(index), -1) for index in range(len(self.query.labels))], np.intp
        )


def check_retrieval(retrieval: Retrieval) -> None:
    """Look through queries and gallery before the run.

    Raises:
        BadData: naming each query that nothing in the gallery but itself could answer, each picture that the gallery
            lists twice (a query would find itself in its copy), and what `Pictures.check` notes.
    """
    faults = Faults()
    query, gallery = retrieval.query, retrieval.gallery
    size = 1 + int(np.concatenate([retrieval.gallery_labels, retrieval.query_labels]).max(initial=-1))
    answers = np.bincount(retrieval.gallery_labels, minlength=size)[retrieval.query_labels]
    own_label = np.append(retrieval.gallery_labels, -1)[retrieval.own]
    answers = answers - ((retrieval.own >= 0) & (own_label == retrieval.query_labels))
    for index in np.flatnonzero(answers == 0).tolist():
        name = query.classes[int(query.labels[index])]
        faults.add(query.where(index), f"a query of class {name} with no other picture of it in the gallery")
    seen: dict[object, int] = {}
    for row in range(len(gallery.labels)):
        first = seen.setdefault(gallery.identity(row), row)
        if first != row:
            faults.add(gallery.where(row), f"the gallery has this picture already ({gallery.where(first)})")
    gallery.check(faults)
    if query is not gallery:
        query.check(faults)
    faults.raise_if_any()
