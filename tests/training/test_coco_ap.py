"""AP of detections whose worth is known, and which boxes count."""

import tomllib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.runs import DETECTOR
from training.coco_ap import Found, average_precision, select
from training.config import settings_from_dict
from training.data.coco import Truth
from training.data.faults import Faults
from training.networks import build_detector, detector_card
from training.settings import DetectorSettings

CARD_SIDE = 64


class Bare:
    """Scenes of which only the boxes count."""

    classes = ("foreground",)

    def __init__(self, *boxes: list[list[float]], crowds: dict[int, list[list[float]]] | None = None) -> None:
        self.boxes = [np.array(of_scene, np.float32).reshape(-1, 4) for of_scene in boxes]
        self.crowd_boxes = crowds or {}

    def __len__(self) -> int:
        return len(self.boxes)

    def read(self, index: int) -> NDArray[np.uint8]:
        raise NotImplementedError

    def truth(self, index: int) -> Truth:
        return Truth(self.boxes[index], np.zeros(len(self.boxes[index]), np.int64))

    def crowds(self, index: int) -> Truth:
        boxes = np.array(self.crowd_boxes.get(index, []), np.float32).reshape(-1, 4)
        return Truth(boxes, np.zeros(len(boxes), np.int64))

    def check(self, faults: Faults) -> None: ...


def found(boxes: list[list[float]], scores: list[float]) -> Found:
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.zeros(len(scores), np.int64),
    )


SCENES = Bare([[10, 10, 50, 50], [60, 10, 100, 90]], [], [[0, 0, 20, 20]])


def test_the_truth_itself_is_perfect() -> None:
    perfect = [found(SCENES.boxes[number].tolist(), [0.9] * len(SCENES.boxes[number])) for number in range(3)]
    assert average_precision(perfect, SCENES) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


def test_what_is_missed_and_what_is_made_up_costs() -> None:
    half = [found([[10, 10, 50, 50]], [0.9]), found([[5, 5, 30, 30]], [0.95]), found([], [])]
    # One of three, behind a box of nothing: precision 1/2 up to recall 1/3, the first 34 of COCO's 101 recalls.
    figures = average_precision(half, SCENES)
    assert figures["AP50"] == pytest.approx(0.5 * 34 / 101)


def test_a_box_that_is_off_counts_at_the_lower_overlap_alone() -> None:
    off = [found([[10, 10, 50, 42]], [0.9]), found([], []), found([], [])]  # IoU 0.8 with its box
    figures = average_precision(off, Bare([[10, 10, 50, 50]], [], []))
    assert figures["AP50"] == pytest.approx(1)
    assert figures["AP"] == pytest.approx(0.7)  # right at 0.5, 0.55, ... 0.8


def test_what_is_found_in_a_crowd_costs_nothing_and_a_crowd_need_not_be_found() -> None:
    in_crowd = [[60, 60, 70, 70], [70, 60, 80, 72], [60, 60, 90, 90]]
    said = [found([*in_crowd, [10, 10, 50, 50]], [0.9, 0.8, 0.7, 0.6])]
    crowd = {0: [[55, 55, 95, 95]]}
    assert average_precision(said, Bare([[10, 10, 50, 50]], crowds=crowd))["AP"] == pytest.approx(1)
    # Without the mark three finds of nothing stand before the right one.
    assert average_precision(said, Bare([[10, 10, 50, 50]]))["AP"] == pytest.approx(0.25)
    # A box of its own comes before the crowd about it.
    assert average_precision(said, Bare(in_crowd, crowds=crowd))["AP"] == pytest.approx(1)
    assert average_precision([found([], [])], Bare([], crowds=crowd)) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_nothing_found_is_zero() -> None:
    assert average_precision([found([], [])] * 3, SCENES) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_boxes_come_into_the_pictures_pixels_and_heaps_are_thinned() -> None:
    settings = settings_from_dict(tomllib.loads(DETECTOR.format(out="run")), "the test")
    assert isinstance(settings, DetectorSettings)
    boxes = torch.tensor([[0.0, 0, 32, 32], [0, 0, 32, 31], [-8, 40, 80, 64], [1, 1, 2, 2], [5, 5, 5, 9]])
    scores = torch.tensor([[0.8], [0.9], [0.5], [0.01], [0.7]])
    kept = select(boxes, scores, 128, 64, detector_card(settings, build_detector(settings.model)))
    assert kept.boxes.tolist() == [[0, 0, 64, 31], [0, 40, 128, 64]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
