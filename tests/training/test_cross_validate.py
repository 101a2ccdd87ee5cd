"""Folds of scenes: runs of neighbours, each judged by a detector that did not see it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.recognition.toy_models import detector_card, detector_model, write_folder
from tests.training.test_compare_detectors import scenes_file
from training.cross_validate import folds_of, in_shooting_order, main, served_from, with_neighbours, without
from training.settings import CocoFile

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def test_folds_are_runs_of_neighbours_by_number() -> None:
    names = [f"photo_{number}.jpg" for number in (10, 2, 1, 9, 3, 30)]
    assert in_shooting_order(names) == [f"photo_{number}.jpg" for number in (1, 2, 3, 9, 10, 30)]
    assert folds_of(names, 3) == [
        {"photo_1.jpg", "photo_2.jpg"},
        {"photo_3.jpg", "photo_9.jpg"},
        {"photo_10.jpg", "photo_30.jpg"},
    ]
    with pytest.raises(ValueError, match="found 6 pictures, wanted at least as many as the 7 folds"):
        folds_of(names, 7)


def test_a_folds_neighbours_are_not_trained_on() -> None:
    names = [f"photo_{number}.jpg" for number in (4, 2, 1, 9, 3, 30)]
    assert with_neighbours(names, {"photo_3.jpg", "photo_4.jpg"}, 1) == {
        "photo_2.jpg", "photo_3.jpg", "photo_4.jpg", "photo_9.jpg",
    }  # fmt: skip
    assert with_neighbours(names, {"photo_1.jpg"}, 2) == {"photo_1.jpg", "photo_2.jpg", "photo_3.jpg"}
    assert with_neighbours(names, {"photo_30.jpg"}, 0) == {"photo_30.jpg"}


def test_what_is_left_out_is_neither_listed_nor_boxed(tmp_path: Path) -> None:
    source = CocoFile(kind="coco", annotations=scenes_file(tmp_path, 3), name="photos")
    left = without(source, {"1.jpg"}, tmp_path / "left.json")
    written = json.loads(left.annotations.read_text())
    assert [image["file_name"] for image in written["images"]] == ["0.jpg", "2.jpg"]
    assert len(written["annotations"]) == 4
    assert left.root == tmp_path


def test_a_fold_can_be_judged_from_another_score_on(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", detector_model([(0, 0, 1, 1)], [(0.5, 0.1)]), detector_card())
    assert served_from(folder, None) is folder
    before, after = folder.card, served_from(folder, 0.75).card
    assert before.detection is not None
    assert after == replace(before, detection=replace(before.detection, score_threshold=0.75))


def test_each_picture_is_judged_by_the_detector_that_did_not_see_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    scenes_file(tmp_path / "photos", 4)
    config = tmp_path / "config.toml"
    text = (CONFIGS / "smoke_detector.toml").read_text()
    start = text.index("train = [")
    photos = f'{{ kind = "coco", name = "photos", annotations = "{tmp_path}/photos/scenes.json" }}'
    text = text[:start] + f"train = [{photos}]" + text[text.index("\ncrop = false") :]
    config.write_text(text)
    command = [
        "-c", str(config), "--set", "photos", "--folds", "2", "--apart", "0", "--out", str(tmp_path / "out"),
        "-o", "epochs=1", "-o", "batch_size=2", "-o", "model.neck_channels=8", "-o", "evaluation.every_epochs=9",
        "-o", "evaluation.source.scenes=1", "--json", str(tmp_path / "found.json"),
    ]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    seen = [
        {image["file_name"] for image in json.loads(path.read_text())["images"]}
        for path in sorted((tmp_path / "out").glob("fold-*/photos.json"))
    ]
    assert seen == [{"2.jpg", "3.jpg"}, {"0.jpg", "1.jpg"}]
    [figures] = json.loads((tmp_path / "found.json").read_text()).values()
    assert figures["photos"]["products"] == 8
    trained = [path.stat().st_mtime_ns for path in (tmp_path / "out").glob("fold-*/model/model.onnx")]
    assert main(command) == 0  # nothing is trained again
    assert trained == [path.stat().st_mtime_ns for path in (tmp_path / "out").glob("fold-*/model/model.onnx")]
    assert main([*command, "--folds", "4"]) == 1
    assert "was begun with other settings, photos or folds" in capsys.readouterr().err
    assert main([*command, "--set", "strangers"]) == 1
    assert "found no set ['strangers']" in capsys.readouterr().err
