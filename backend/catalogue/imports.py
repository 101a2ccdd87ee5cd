"""Importing a folder of products and pictures (docs/api.md, "Folder format"), by command or as a zip over the API.

Each row stands alone: a bad one is refused by file, row and reason, and the rest goes on. Running an import twice
changes nothing more, which is also how a killed import is resumed.
"""

import csv
import io
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import ValidationError

from backend.catalogue.models import BoxSource, Product
from backend.catalogue.services import add_reference_image, save_product
from backend.common.problems import Problem
from backend.common.words import counted
from backend.jobs.models import Job
from backend.jobs.services import Progress
from recognition.errors import ImageRefused

IMPORT_KIND = "catalogue-import"
PRODUCTS_FILE, GALLERY_FILE = "products.csv", "gallery.csv"
TEXT_COLUMNS = ("sku", "gtin", "name", "brand", "category", "price", "currency", "description", "sold_by")
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
MAX_CSV_BYTES = 50_000_000
# A spreadsheet runs a cell that starts so; it would run when the catalogue is exported again.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
COPY_BYTES = 1 << 20
# What spreadsheets of other countries and other menus write between cells.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class RowRefused(Exception):
    """Why one row cannot be taken."""


@dataclass(frozen=True)
class Row:
    """One row of a CSV file; `number` counts as a spreadsheet does, the header being 1.

    `fault` is why no cell of it can be believed: with one cell more or fewer than the header names, each might stand
    under its neighbour's column.
    """

    file: str
    number: int
    cells: dict[str, str]
    fault: str = ""


def read_rows(folder: Path, name: str, wanted: tuple[str, ...]) -> list[Row]:
    """The rows of a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        Problem: 400, the file is not UTF-8, too large, or its header lacks a wanted column or has one twice.
    """
    path = folder / name
    size = path.stat().st_size
    if size > MAX_CSV_BYTES:
        raise _refused(f"{name} has {size:,} bytes, at most {MAX_CSV_BYTES:,} are taken; split it")
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        header = [column.strip().lower() for column in next(reader, [])]
        _check_header(name, header, wanted)
        return [_row(name, number, header, cells) for number, cells in enumerate(reader, start=2) if cells]
    except UnicodeDecodeError as error:
        raise _refused(f"{name} is not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise _refused(f"{name}: {error}") from error


def _check_header(name: str, header: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in header]
    if missing:
        separator = next((words for mark, words in OTHER_SEPARATORS.items() if mark in "".join(header)), None)
        if separator:
            raise _refused(
                f"{name} has {separator} between its cells, commas are wanted; save it as 'CSV UTF-8'"
            )
        raise _refused(
            f"{name} lacks the column {', '.join(missing)}; its header is {', '.join(header) or 'empty'}"
        )
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise _refused(f"{name} has the column {', '.join(twice)} twice; keep one of each")


def _row(file: str, number: int, header: Sequence[str], cells: Sequence[str]) -> Row:
    named = {column: cell.strip() for column, cell in zip(header, cells, strict=False) if column}
    if len(cells) == len(header):
        return Row(file, number, named)
    advice = 'a text with a comma in it stands in quotes: "a, b"'
    if len(cells) < len(header):
        advice = "an empty cell keeps its comma"
    found = counted(len(cells), "cell")
    return Row(file, number, named, f"the row has {found}, the header names {len(header)} columns; {advice}")


def _refuse_repeated_skus(rows: Sequence[Row]) -> list[Row]:
    """Rows of products.csv, each that has an earlier row's SKU at fault: nobody knows which of them is meant."""
    first: dict[str, int] = {}
    checked = []
    for row in rows:
        sku = row.cells.get("sku", "")
        earlier = first.setdefault(sku, row.number)
        if sku and earlier != row.number and not row.fault:
            row = replace(
                row, fault=f"sku: {sku!r} stands in row {earlier} already; keep one row for each SKU"
            )
        checked.append(row)
    return checked


def _refused(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "import-refused", detail)


def import_product(row: Row) -> Product:
    """Create the row's product, or update the one that has its SKU. Columns that the file lacks stay as they are.

    Raises:
        RowRefused: naming the cell and what is wrong with it.
    """
    changes: dict[str, Any] = {column: row.cells[column] for column in TEXT_COLUMNS if column in row.cells}
    for column, cell in changes.items():
        if cell.startswith(FORMULA_STARTS):
            raise RowRefused(f"{column}: {cell[:40]!r} starts like a spreadsheet formula")
        if "\0" in cell:
            raise RowRefused(f"{column}: holds a NUL character")
    if "price" in changes:
        changes["price"] = _price(changes["price"])
    if not changes.get("sold_by", "unit"):
        changes["sold_by"] = "unit"
    product = Product.objects.filter(sku=changes["sku"]).first() or Product()
    try:
        return save_product(product, changes)
    except ValidationError as error:
        raise RowRefused(
            "; ".join(f"{field}: {' '.join(found)}" for field, found in error.message_dict.items())
        ) from error


def _price(cell: str) -> Decimal | None:
    if not cell:
        return None
    try:
        price = Decimal(cell)
    except InvalidOperation as error:
        raise RowRefused(
            f"price: {cell!r} is no number; one with a decimal point is wanted, e.g. 1.99"
        ) from error
    if not price.is_finite():
        raise RowRefused(f"price: {cell!r} is no price")
    return price


def import_picture(folder: Path, row: Row) -> bool:
    """Add the row's picture to its product.

    Returns:
        False when the product has it already.
    Raises:
        RowRefused: unknown SKU, a path outside the folder, no picture, a bad box.
    """
    product = Product.objects.filter(sku=row.cells["sku"]).first()
    if product is None:
        raise RowRefused(f"sku: {row.cells['sku']!r} is not in the catalogue")
    path = (folder / row.cells["image"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RowRefused(f"image: {row.cells['image']!r} lies outside the folder")
    if not path.is_file():
        raise RowRefused(f"image: there is no file {row.cells['image']!r}")
    if path.stat().st_size > settings.IMAGE_MAX_BYTES:
        raise RowRefused(
            f"image: {path.stat().st_size:,} bytes, at most {settings.IMAGE_MAX_BYTES:,} are taken"
        )
    try:
        add_reference_image(product=product, data=path.read_bytes(), box=_box(row), box_source=BoxSource.FILE)
    except ImageRefused as error:
        raise RowRefused(f"image: {row.cells['image']}: {error.detail}") from error
    except ValidationError as error:
        raise RowRefused(" ".join(error.messages)) from error
    except Problem as problem:
        if problem.code != "duplicate-picture":
            raise
        return False
    return True


def _box(row: Row) -> list[float] | None:
    cells = [row.cells.get(column, "") for column in BOX_COLUMNS]
    if not any(cells):
        return None
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise RowRefused(f"box: {', '.join(cells)} are not four numbers") from error


def import_folder(folder: Path, progress: Progress) -> None:
    """Import products.csv and, where there is one, gallery.csv, counting into `progress`.

    Raises:
        Problem: 400, a file as a whole cannot be read.
    """
    if not (folder / PRODUCTS_FILE).is_file():
        raise _refused(f"there is no {PRODUCTS_FILE} in the folder")
    rows = _refuse_repeated_skus(read_rows(folder, PRODUCTS_FILE, ("sku", "name")))
    if (folder / GALLERY_FILE).is_file():
        rows += read_rows(folder, GALLERY_FILE, ("image", "sku"))
    counts = {"products": 0, "pictures": 0, "pictures_already_there": 0} | progress.job.result
    progress.job.result = counts
    for row in progress.over(rows):
        try:
            if row.fault:
                raise RowRefused(row.fault)
            if row.file == PRODUCTS_FILE:
                import_product(row)
                counts["products"] += 1
            elif import_picture(folder, row):
                counts["pictures"] += 1
            else:
                counts["pictures_already_there"] += 1
        except RowRefused as refusal:
            progress.fail(str(refusal), file=row.file, row=row.number)


def run_import_job(job: Job, progress: Progress) -> None:
    """The job's runner: its zip is unpacked aside, imported, and both are removed at the end."""
    if not job.file:
        raise _refused("this import ran from a folder, by command: run manage.py import_catalogue again")
    with unpacked(job.file.open("rb"), str(job.pk)) as folder:
        import_folder(folder, progress)


class unpacked:
    """A zip's content in a folder of its own, for a `with` block.

    What a killed worker left of an earlier turn under the same name is removed first.

    Refuses paths that lead outside (zip slip), links, more files or bytes than the limits: bytes are counted while
    they are unpacked, for the sizes that a zip bomb states are lies.

    Raises:
        Problem: 400, naming the entry.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._prefix = f"checklane-import-{name}-"

    def __enter__(self) -> Path:
        for left in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(prefix=self._prefix))
        try:
            with self._file as file, zipfile.ZipFile(file) as archive:
                self._unpack(archive)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            self.__exit__()
            raise _refused(f"this is no zip file that can be read: {error}") from error
        except BaseException:
            self.__exit__()
            raise
        return _root_of(self._folder)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unpack(self, archive: zipfile.ZipFile) -> None:
        entries = archive.infolist()
        if len(entries) > settings.IMPORT_MAX_FILES:
            raise _refused(
                f"the zip has {len(entries):,} entries, at most {settings.IMPORT_MAX_FILES:,} are taken"
            )
        left = settings.IMPORT_MAX_UNPACKED_BYTES
        for entry in entries:
            target = (self._folder / entry.filename).resolve()
            if not target.is_relative_to(self._folder.resolve()):
                raise _refused(f"the entry {entry.filename!r} leads outside the zip")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise _refused(f"the entry {entry.filename!r} is a link")
            if entry.is_dir():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                for block in _blocks(source):
                    left -= len(block)
                    if left < 0:
                        raise _refused(
                            f"unpacked, the zip has more than {settings.IMPORT_MAX_UNPACKED_BYTES:,} bytes"
                            f" (reached in {entry.filename!r})"
                        )
                    sink.write(block)


def _blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(COPY_BYTES):
        yield block


def _root_of(folder: Path) -> Path:
    """The folder that holds products.csv: many programs zip a folder as one entry above its files."""
    if (folder / PRODUCTS_FILE).is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.is_dir()]
    return inner[0] if len(inner) == 1 and (inner[0] / PRODUCTS_FILE).is_file() else folder
