"""What a run measured, epoch by epoch: a table that survives a crash, and a picture of it."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

METRICS_FILE, CURVES_FILE = "metrics.csv", "curves.png"
EPOCH = "epoch"
PANEL_INCHES = (4.5, 3.2)
PANELS_A_ROW = 3

Row = Mapping[str, float]


def append_row(path: Path, row: Row) -> None:
    """Add a row to the table and see it onto the disk.

    Args:
        path: of the CSV file, made with its header where it is missing.
        row: figures by column. Columns that the table has and the row has not are left empty; one that the table
            has not yet, such as the first evaluation's, is added to it.
    """
    columns = _header(path)
    if any(column not in columns for column in row):
        _write(path, list(dict.fromkeys([*columns, *row])), [*read_rows(path), row])
        return
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, columns, lineterminator="\n").writerow(_cells(row))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, float]]:
    """The table's rows; a cell that is empty is not in its row. A row that a crash cut off is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines)
    return [{column: float(cell) for column, cell in row.items() if cell} for row in rows]


def drop_rows_after(path: Path, epoch: int) -> None:
    """Forget what was written after an epoch, as a run does that goes on from there."""
    if path.exists():
        _write(path, _header(path), [row for row in read_rows(path) if row[EPOCH] <= epoch])


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows([_cells(row) for row in rows])
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _cells(row: Row) -> dict[str, str]:
    return {column: f"{value:.10g}" for column, value in row.items()}


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw each column over the epochs, a panel a column, and put the picture at `path` in one move."""
    columns = [column for column in dict.fromkeys(name for row in rows for name in row) if column != EPOCH]
    n_rows = max(1, math.ceil(len(columns) / PANELS_A_ROW))
    figure = Figure(figsize=(PANEL_INCHES[0] * PANELS_A_ROW, PANEL_INCHES[1] * n_rows), layout="constrained")
    for number, column in enumerate(columns, start=1):
        panel = figure.add_subplot(n_rows, PANELS_A_ROW, number)
        measured = [(row[EPOCH], row[column]) for row in rows if column in row]
        panel.plot(*zip(*measured, strict=True), marker="." if len(measured) < 30 else "")
        panel.set_title(column)
        panel.set_xlabel(EPOCH)
        panel.grid(alpha=0.3)
    aside = path.with_name(f".{path.name}")
    figure.savefig(aside, format="png", dpi=100)
    aside.replace(path)
