"""Photos labelled by a detector, here one whose finds are known."""

from pathlib import Path

import pytest

from recognition.detector import open_detector
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings
from tests.recognition.toy_models import detector_card, detector_model, write_folder
from tests.training.data.drawing import draw
from training.data.coco import read_coco
from training.data.teacher import label, main

BODY = [1.0, 2.0, 16.0, 20.0]  # of an input of 32 x 24: a third of it
OTHER = [18.0, 2.0, 30.0, 20.0]
SMALL = [20.0, 2.0, 24.0, 6.0]


def teacher(folder: Path, *finds: tuple[list[float], float]) -> Path:
    model = detector_model([box for box, _ in finds], [[score, 0.0] for _, score in finds])
    write_folder(folder, model, detector_card())
    return folder


@pytest.mark.parametrize(
    ("finds", "labelled"),
    [
        ([(BODY, 0.9)], True),
        ([(BODY, 0.9), (SMALL, 0.8)], True),  # small things are ground
        ([(BODY, 0.35)], False),  # nothing that is sure
        ([(BODY, 0.9), (OTHER, 0.35)], False),  # perhaps two
        ([(BODY, 0.9), (OTHER, 0.8)], False),
        ([(SMALL, 0.9)], False),
    ],
)
def test_photos_of_one_main_body_are_labelled(
    tmp_path: Path, finds: list[tuple[list[float], float]], labelled: bool
) -> None:
    draw(tmp_path / "photos/milk/1.jpg", width=320, height=240)
    model = teacher(tmp_path / "model", *finds)
    status = main([str(tmp_path / "photos"), str(tmp_path / "out.json"), "--model", str(model)])
    assert status == (0 if labelled else 1)
    assert (tmp_path / "out.json").exists() == labelled
    if labelled:
        scenes = read_coco(tmp_path / "out.json", tmp_path / "photos")
        assert scenes.truth(0).boxes.tolist() == [[10.0, 20.0, 160.0, 200.0]]
        assert scenes.read(0).shape == (240, 320, 3)


def test_patterns_choose_photos_and_what_is_no_picture_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("milk/1.jpg", "milk/2.jpg", "fruit/1.jpg"):
        draw(tmp_path / name, width=320, height=240)
    (tmp_path / "milk/3.jpg").write_text("no picture")
    arguments = [str(tmp_path), str(tmp_path / "out.json"), "--only", "milk/*", "juice/*"]
    assert main([*arguments, "--model", str(teacher(tmp_path / "model", (BODY, 0.9)))]) == 0
    assert [str(path) for path in read_coco(tmp_path / "out.json").paths] == ["milk/1.jpg", "milk/2.jpg"]
    told = capsys.readouterr()
    assert "2 of 3 photos" in told.out.replace("\n", " ")
    assert "3.jpg: left out" in told.err


def test_a_teacher_that_tells_no_doubtful_finds_is_refused(tmp_path: Path) -> None:
    model = teacher(tmp_path / "model", (BODY, 0.9))  # its card's threshold is 0.3
    with pytest.raises(ValueError, match=r"found score_threshold 0.3, doubtful 0.2"):
        label(tmp_path, open_detector(load_model_folder(model), SessionSettings()), doubtful=0.2)
