"""The table of a run's figures survives what happens to runs, and the picture follows it."""

from pathlib import Path

from PIL import Image

from training.curves import append_row, draw_curves, drop_rows_after, read_rows


def test_rows_come_back_and_a_later_column_finds_its_place(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    append_row(table, {"epoch": 1, "loss": 2.5})
    append_row(table, {"epoch": 2, "loss": 2.25, "recall@1": 0.5})
    append_row(table, {"epoch": 3, "loss": 2})
    assert read_rows(table) == [
        {"epoch": 1, "loss": 2.5},
        {"epoch": 2, "loss": 2.25, "recall@1": 0.5},
        {"epoch": 3, "loss": 2},
    ]


def test_a_row_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    append_row(table, {"epoch": 1, "loss": 2.5})
    with table.open("a") as file:
        file.write("2,2.")
    assert read_rows(table) == [{"epoch": 1, "loss": 2.5}]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    for epoch in (1, 2, 3):
        append_row(table, {"epoch": epoch, "loss": 1 / epoch})
    drop_rows_after(table, 2)
    assert [row["epoch"] for row in read_rows(table)] == [1, 2]
    drop_rows_after(tmp_path / "none.csv", 2)


def test_curves_are_a_picture(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "loss": 2.0, "AP": 0.1},
        {"epoch": 2, "loss": 1.0},
        {"epoch": 3, "loss": 0.5, "AP": 0.3},
    ]
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 400
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
