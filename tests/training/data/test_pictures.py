"""Pictures in files: crops, and the check before a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.drawing import draw, write_list
from training.data.faults import SHOWN, BadData
from training.data.lists import read_label_list
from training.data.pictures import check, look_at


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "good.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    names = ["good", "missing", "empty", "text", "folder"]
    path = write_list(tmp_path / "t.txt", *(f"{name}.jpg 0" for name in names))
    with pytest.raises(BadData) as refused:
        check(read_label_list(path))
    assert [fault.split(": ")[0] for fault in refused.value.faults] == [
        f"{path}:{line}" for line in (2, 3, 4, 5)
    ]
    assert "missing.jpg: found no file" in refused.value.faults[0]
    assert "good.jpg" not in str(refused.value)


def test_twenty_faults_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = write_list(tmp_path / "t.txt", *(f"{number}.jpg 0" for number in range(SHOWN + 13)))
    with pytest.raises(BadData) as refused:
        check(read_label_list(path))
    assert len(refused.value.faults) == SHOWN == 20
    assert refused.value.count == 33
    assert str(refused.value).startswith("33 faults in the data:\n")
    assert str(refused.value).endswith("... and 13 more")


def test_boxes_without_area_or_outside_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", width=24, height=16)
    lines = [
        "0\t0\t24\t16",
        "5\t5\t5\t9",
        "9\t5\t5\t9",
        "0\t0\t24.9\t16",
        "0\t0\t26\t16",
        "-3\t0\t9\t9",
        "24\t0\t24.5\t9",
    ]
    path = write_list(tmp_path / "t.txt", *(f"a.jpg\t0\t{line}" for line in lines))
    with pytest.raises(BadData) as refused:
        check(read_label_list(path))
    assert [fault.split(": ")[0] for fault in refused.value.faults] == [
        f"{path}:{n}" for n in (2, 3, 5, 6, 7)
    ]
    assert "of no area" in refused.value.faults[0]
    assert "outside the picture of 24 x 16" in refused.value.faults[2]


def test_a_class_with_one_picture_is_named_under_pk(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    path = write_list(tmp_path / "t.txt", "a.jpg 0", "b.jpg 0", "a.jpg 1")
    check(read_label_list(path))
    with pytest.raises(BadData) as refused:
        check(read_label_list(path), pictures_per_class=2)
    (fault,) = refused.value.faults
    assert fault.startswith(f"{path}:3: class 1 has 1 picture, wanted 2 or more for PKSampler")


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="found no picture"):
        check(read_label_list(write_list(tmp_path / "t.txt")))


def test_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert look_at(tmp_path / "turned.jpg", measure=True) == ("", 20, 30)


def test_a_header_beyond_the_first_bytes_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    path = tmp_path / "long.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif, icc_profile=b"x" * 200_000)
    assert look_at(path, measure=True) == ("", 30, 20)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_cut_off_is_named_at_the_start_and_one_with_more_behind_it_is_none(
    tmp_path: Path, file_format: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    for name in ("whole", "padded", "followed", "cut", "almost"):
        Image.fromarray(pixels).save(tmp_path / name, file_format)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "padded").write_bytes(whole + bytes(40))
    (tmp_path / "followed").write_bytes(whole + b"a film of the moment" * 9)
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "almost").write_bytes(whole[: len(whole) * 9 // 10])
    path = write_list(tmp_path / "t.txt", "whole 0", "cut 0", "padded 0", "followed 0", "almost 0")
    with pytest.raises(BadData) as refused:
        check(read_label_list(path))
    assert [fault.split(": ")[0] for fault in refused.value.faults] == [f"{path}:2", f"{path}:5"]


def test_pixels_damaged_between_good_ends_are_named_when_read(tmp_path: Path) -> None:
    draw(tmp_path / "b.jpg")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "a.png").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    path = write_list(tmp_path / "t.txt", "b.jpg 0", "a.png 0")
    pictures = read_label_list(path)
    check(pictures)
    with pytest.raises(BadData, match=r"t\.txt:2: .*a\.png: "):
        pictures.read(1)


def test_a_crop_has_its_margin(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    path = write_list(tmp_path / "t.txt", "a.png\t0\t20\t10\t40\t20")
    assert read_label_list(path).read(0).shape == (10, 20, 3)
    assert read_label_list(path, crop_margin=0.1).read(0).shape == (12, 24, 3)


def test_millions_can_be_checked_for_being_there_alone(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    path = write_list(tmp_path / "t.txt", "text.jpg\t0\t5\t5\t5\t9", "text.jpg 0", "missing.jpg 0")
    with pytest.raises(BadData) as refused:
        check(read_label_list(path), thorough=False)
    assert [fault.split(": ")[0] for fault in refused.value.faults] == [f"{path}:1", f"{path}:3"]
    assert refused.value.faults[1].endswith(f"found no file {tmp_path / 'missing.jpg'}, wanted a picture")
