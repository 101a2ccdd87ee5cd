"""Rows of a folder that name no picture are told, and the rest is read."""

from pathlib import Path

import pytest

from backend.common.problems import Problem
from backend.evaluation.pictures import Refusal, list_folder_pictures
from backend.evaluation.task import OpenSet


def test_a_name_that_no_file_can_have_is_refused_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "query.csv").write_bytes(b"image,sku\na\0b.jpg,P1\nc.jpg,P2\n")
    refused: list[Refusal] = []
    assert [picture.name for picture in list_folder_pictures(tmp_path, "query.csv", refused)] == ["c.jpg"]
    assert [(one.row, one.reason) for one in refused] == [(2, "the image's name holds a NUL character")]


def test_a_seed_below_zero_is_told(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="--seed is -1; wanted 0 or more"):
        OpenSet(0.2, -1)
