"""Detectors side by side, on models whose finds are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from recognition.model_card import ModelFolder
from tests.recognition.toy_models import detector_card, detector_model, write_folder
from tests.training.data.drawing import draw
from training.compare_detectors import judge, lies_on, main
from training.data.coco import read_coco, write_coco
from training.data.published import Boxed

# Of a picture of 320 x 240, ten times the toy's input: two products, the second never found.
FIRST, SECOND = (10.0, 10.0, 110.0, 110.0), (200.0, 100.0, 300.0, 200.0)


def boxes(*listed: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(listed, np.float32).reshape(-1, 4)


def scenes_file(folder: Path, n: int = 2) -> Path:
    scenes = []
    for number in range(n):
        name = f"{number}.jpg"
        draw(folder / name, width=320, height=240)
        scenes.append(Boxed(name, [FIRST, SECOND], ["thing", "thing"], [False, False]))
    path = folder / "scenes.json"
    write_coco(path, scenes, {scene.path: (320, 240) for scene in scenes})
    return path


def folder_that_finds(
    path: Path, finds: list[tuple[tuple[float, float, float, float], float]]
) -> ModelFolder:
    """A detector that finds the same in every picture; boxes in pixels of 320 x 240."""
    model = detector_model(
        [[side / 10 for side in box] for box, _ in finds], [[score, 0.0] for _, score in finds]
    )
    return write_folder(path, model, detector_card())


def test_a_find_lies_on_the_product_that_it_overlaps_most_or_is_a_part_of() -> None:
    truth = boxes(FIRST, SECOND)
    finds = boxes(
        (12, 12, 112, 112),  # on the first
        (20, 20, 60, 60),  # a part of it
        (0, 0, 320, 240),  # over both, on neither
        (205, 100, 300, 205),  # on the second
        (120, 20, 180, 80),  # beside
    )
    assert lies_on(finds, truth).tolist() == [0, 0, -1, 1, -1]
    assert lies_on(finds, boxes()).tolist() == [-1] * 5
    assert lies_on(boxes(), truth).tolist() == []


def test_judgement_by_hand(tmp_path: Path) -> None:
    folder = folder_that_finds(
        tmp_path / "model",
        [
            (FIRST, 0.9),
            ((20.0, 20.0, 60.0, 60.0), 0.6),  # doubled: a part
            ((120.0, 20.0, 180.0, 80.0), 0.5),  # on nothing
            (SECOND, 0.1),  # below the card's threshold of 0.3: for AP alone
        ],
    )
    found = judge(folder, read_coco(scenes_file(tmp_path)))
    assert found.products == 4
    assert found.recall == 0.5
    assert found.precision == pytest.approx(1 / 3)
    assert found.doubled == 50  # one in each picture, of two products
    # F1 from 0.9 on: 2 * 2 / (2 + 4) in both pictures together; further finds are wrong, and the last no gain.
    assert found.best_threshold == pytest.approx(0.9)
    # Ranked by score: right, wrong, wrong, right. COCO samples precision at 101 recalls: 1 up to 0.5, then 0.5.
    assert found.ap50 == pytest.approx((51 * 1 + 50 * 0.5) / 101, abs=1e-6)
    assert found.ap == pytest.approx(found.ap50, abs=1e-6)  # boxes are exact, so at every overlap


def test_the_program_prints_each_model_on_each_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes_file(tmp_path)
    folder_that_finds(tmp_path / "model", [(FIRST, 0.9)])
    sets = tmp_path / "sets.toml"
    sets.write_text(
        f'[[sets]]\nname = "photos"\nkind = "coco"\nannotations = "{tmp_path}/scenes.json"\n'
        '[[sets]]\nname = "drawn"\nkind = "generated"\nscenes = 2\n'
    )
    figures = tmp_path / "figures.json"
    assert main([str(sets), str(tmp_path / "model"), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "photos: " in printed
    assert "drawn: " in printed
    assert "precision" in printed  # nothing is cut off at the 80 columns of a pipe
    (of_model,) = json.loads(figures.read_text()).values()
    assert of_model["photos"]["recall"] == 0.5


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[[sets]]\nkind = "generated"\nscenes = 2\n', "wanted one of its own for each"),
        ('[[sets]]\nname = "a"\nkind = "generated"\nscenes = 2\nsize = 3\n', "size"),
        ("sets = []\n", "sets"),
        ("sets = [", "cannot be read as TOML"),
    ],
)
def test_bad_sets_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, said: str
) -> None:
    folder_that_finds(tmp_path / "model", [(FIRST, 0.9)])
    (tmp_path / "sets.toml").write_text(written)
    assert main([str(tmp_path / "sets.toml"), str(tmp_path / "model")]) == 1
    assert said in capsys.readouterr().err
