"""Which pictures are evaluated: the rows of a folder, or the live catalogue's reference images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from backend.catalogue.imports import BOX_COLUMNS, Row, read_rows
from backend.catalogue.models import ProductState, ReferenceImage
from backend.common.problems import Problem
from recognition.images import Box, as_box

LIVE_CATALOGUE = "live catalogue"


@dataclass(frozen=True)
class Picture:
    """A picture of a known product.

    Attributes:
        file: that names it: a CSV file, or LIVE_CATALOGUE.
        row: in that file, as a spreadsheet counts; or the reference image's id.
        name: its path in the folder or storage.
        sku: of the product it shows.
        read: gives its bytes; may raise OSError.
        box: its main body in pixels of the upright picture, where one is given.
        sequence: names the pictures of the product that were taken in one go with it; empty where that is not known.
    """

    file: str
    row: int
    name: str
    sku: str
    read: Callable[[], bytes]
    box: Box | None
    sequence: str = ""


@dataclass(frozen=True)
class Refusal:
    """A picture or row that is left out, and why."""

    file: str
    row: int
    picture: str
    reason: str

    @classmethod
    def of(cls, picture: Picture, reason: str) -> "Refusal":
        return cls(picture.file, picture.row, picture.name, reason)


def list_folder_pictures(folder: Path, file: str, refused: list[Refusal]) -> list[Picture]:
    """The pictures of gallery.csv, query.csv or a file like them; bad rows are added to `refused`.

    Raises:
        Problem: 400, the file is missing or cannot be read as a whole.
    """
    if not (folder / file).is_file():
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "file-missing",
            f"there is no {folder / file}; name the files with --gallery and --query. The gallery's own file as"
            " --query leaves one picture out at a time",
        )
    pictures = []
    for row in read_rows(folder, file, ("image", "sku")):
        name, sku = row.cells.get("image", ""), row.cells.get("sku", "")
        try:
            if row.fault:
                raise ValueError(row.fault)
            if not name or not sku:
                raise ValueError("image and sku are both wanted, found an empty cell")
            if "\0" in name:
                raise ValueError("the image's name holds a NUL character")
            sequence = row.cells.get("sequence", "")
            pictures.append(
                Picture(file, row.number, name, sku, (folder / name).read_bytes, _box(row), sequence)
            )
        except ValueError as error:
            refused.append(Refusal(file, row.number, name, str(error)))
    return pictures


def _box(row: Row) -> Box | None:
    cells = [row.cells.get(column, "") for column in BOX_COLUMNS]
    if not any(cells):
        return None
    return as_box([float(cell) for cell in cells])


def list_live_pictures() -> list[Picture]:
    """The reference images of all active products."""
    images = ReferenceImage.objects.filter(product__state=ProductState.ACTIVE).select_related("product")
    return [
        Picture(
            LIVE_CATALOGUE,
            image.pk,
            str(image.image.name),
            image.product.sku,
            partial(_read, image),
            None if image.box is None else as_box(image.box),
        )
        for image in images.order_by("pk")
    ]


def _read(image: ReferenceImage) -> bytes:
    with image.image.open("rb") as file:
        data: bytes = file.read()
    return data


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a gallery and queries against it.

    Attributes:
        name: the folder, or LIVE_CATALOGUE.
        query: None where each picture of the gallery is the query in turn, itself left out.
        refused: rows that could not be read; what cannot be embedded joins them.
    """

    name: str
    gallery_file: str
    gallery: list[Picture]
    query_file: str
    query: list[Picture] | None
    refused: list[Refusal]


def folder_subject(folder: Path, gallery_file: str, query_file: str) -> Subject:
    """A folder's pictures; one and the same file for both leaves one picture out at a time.

    Raises:
        Problem: 400, a file is missing or cannot be read as a whole.
    """
    refused: list[Refusal] = []
    gallery = list_folder_pictures(folder, gallery_file, refused)
    query = None if query_file == gallery_file else list_folder_pictures(folder, query_file, refused)
    return Subject(folder.resolve().name, gallery_file, gallery, query_file, query, refused)


def live_subject() -> Subject:
    """The live catalogue, leaving one picture out at a time."""
    return Subject(LIVE_CATALOGUE, LIVE_CATALOGUE, list_live_pictures(), LIVE_CATALOGUE, None, [])
