"""The detector's boxes lie where its model's outputs say, in pixels of the full picture."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition.boxes import as_boxes
from recognition.detector import Detections, MainBodyDetector, decode_distributions, main_body, open_detector
from recognition.errors import ModelRefused
from recognition.images import DecodedImage
from recognition.model_card import ModelCard, Provider, RawOutputs
from recognition.sessions import SessionSettings
from tests.recognition.toy_models import detector_card, detector_model, embedder_card, write_folder

REPOSITORY = Path(__file__).parents[2]
BINS = 8


class GivenOutputs:
    """A session that gives what it was told."""

    provider: Provider = "cpu"

    def __init__(self, outputs: dict[str, NDArray[np.float32]]) -> None:
        self.outputs = outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.outputs


def picture(width: int, height: int) -> DecodedImage:
    return DecodedImage(np.zeros((height, width, 3), np.uint8), width, height, "PNG")


def decoded_detector(
    boxes: list[list[float]], scores: list[list[float]], *, keep_aspect: bool = False, **detection: Any
) -> MainBodyDetector:
    """A detector of input 32 x 24 whose classes are thing and table, table being ignored."""
    written = detector_card()
    written["detection"] |= detection
    written["resize"]["keep_aspect"] = keep_aspect
    outputs = {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}
    return MainBodyDetector(ModelCard.from_dict(written), GivenOutputs(outputs))


class TestDecodedOutputs:
    def test_boxes_come_back_in_pixels_of_the_full_picture(self) -> None:
        detector = decoded_detector([[8, 6, 16, 12]], [[0.9, 0.0]])
        # Decoded to 64 x 48 of a picture of 640 x 480.
        image = DecodedImage(np.zeros((48, 64, 3), np.uint8), 640, 480, "JPEG")
        assert detector.detect(image).boxes.tolist() == [[160, 120, 320, 240]]

    def test_where_the_aspect_is_kept_the_padding_does_not_count(self) -> None:
        detector = decoded_detector([[8, 4, 16, 8]], [[0.9, 0.0]], keep_aspect=True)
        # 320 x 80 takes the upper 8 of 24 rows.
        assert detector.detect(picture(320, 80)).boxes.tolist() == [[80, 40, 160, 80]]

    def test_best_first_above_the_threshold_without_the_ignored_class(self) -> None:
        boxes = [[0, 0, 4, 4], [8, 0, 12, 4], [16, 0, 20, 4], [24, 0, 28, 4]]
        scores = [[0.4, 0.0], [0.8, 0.9], [0.2, 0.0], [0.1, 0.95]]
        found = decoded_detector(boxes, scores).detect(picture(32, 24))
        assert found.boxes.tolist() == [boxes[1], boxes[0]]
        assert found.scores == pytest.approx([0.8, 0.4])

    def test_of_overlapping_boxes_the_best_stays(self) -> None:
        boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]]
        found = decoded_detector(boxes, [[0.5, 0], [0.6, 0], [0.7, 0]]).detect(picture(32, 24))
        assert found.boxes.tolist() == [boxes[2], boxes[1]]

    def test_no_more_than_the_maximum(self) -> None:
        boxes = [[i, 0, i + 1, 4] for i in range(30)]
        found = decoded_detector(boxes, [[0.5, 0]] * 30, maximum_items=7).detect(picture(32, 24))
        assert found.boxes.tolist() == boxes[:7]

    def test_boxes_end_at_the_border_and_those_beyond_are_dropped(self) -> None:
        boxes = [[-5, -5, 10, 10], [40, 30, 50, 40], [5, 5, 5, 20]]
        found = decoded_detector(boxes, [[0.5, 0]] * 3).detect(picture(32, 24))
        assert found.boxes.tolist() == [[0, 0, 10, 10]]

    def test_nothing_found_is_a_result(self) -> None:
        found = decoded_detector([[0, 0, 4, 4]], [[0.01, 0.9]]).detect(picture(32, 24))
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)


def one_hot(bin_number: int) -> list[float]:
    return [50.0 if number == bin_number else 0.0 for number in range(BINS)]


class TestRawOutputs:
    def test_a_distance_is_the_expectation_over_the_bins(self) -> None:
        sure = one_hot(1) + one_hot(2) + one_hot(3) + one_hot(4)
        torn = ([0.0] * 6 + [50.0, 50.0]) * 4
        boxes = decode_distributions(
            np.array([sure, torn], np.float32), np.full((2, 2), 10, np.float32), BINS
        )
        assert boxes == pytest.approx(np.array([[9, 8, 13, 14], [3.5, 3.5, 16.5, 16.5]]), abs=1e-4)

    def test_cells_of_every_level_lie_where_their_stride_says(self) -> None:
        """Input 32 x 24: stride 8 has 4 x 3 cells, stride 64 a single one whose centre is outside."""
        levels = [
            {"stride": stride, "scores": f"s{stride}", "distributions": f"d{stride}"} for stride in (8, 64)
        ]
        card = ModelCard.from_dict(detector_card(outputs={"form": "raw", "bins": BINS, "levels": levels}))
        outputs = {
            "s8": np.zeros((1, 12, 2), np.float32),
            "d8": np.zeros((1, 12, 4 * BINS), np.float32),
            "s64": np.zeros((1, 1, 2), np.float32),
            "d64": np.zeros((1, 1, 4 * BINS), np.float32),
        }
        cell = 1 * 4 + 2  # row 1, column 2: its centre is at (20, 12)
        outputs["s8"][0, cell] = 0.9, 0.1
        outputs["d8"][0, cell] = one_hot(1) + one_hot(0) + one_hot(1) + one_hot(1)
        outputs["s64"][0, 0] = 0.6, 0.1
        outputs["d64"][0, 0] = one_hot(1) * 4
        found = MainBodyDetector(card, GivenOutputs(outputs)).detect(picture(32, 24))
        assert found.boxes == pytest.approx(np.array([[12, 12, 28, 20], [0, 0, 32, 24]]), abs=1e-3)
        assert found.scores == pytest.approx([0.9, 0.6])


class TestOpening:
    def test_a_real_model_detects(self, tmp_path: Path) -> None:
        model = detector_model([[8, 6, 16, 12], [0, 0, 4, 4]], [[0.9, 0.0], [0.2, 0.0]])
        detector = open_detector(write_folder(tmp_path, model, detector_card()), SessionSettings())
        assert detector.detect(picture(320, 240)).boxes == pytest.approx(np.array([[80, 60, 160, 120]]))

    def test_a_card_of_other_classes_is_refused_when_the_model_is_opened(self, tmp_path: Path) -> None:
        model = detector_model([[8, 6, 16, 12]], [[0.9, 0.0, 0.0]])
        with pytest.raises(ModelRefused, match=r"output scores is \(1, 1, 3\), the card says \(N, 1, 2\)"):
            open_detector(write_folder(tmp_path, model, detector_card()), SessionSettings())

    def test_an_embedders_card_is_refused(self) -> None:
        with pytest.raises(ModelRefused, match="wanted a detector's"):
            MainBodyDetector(ModelCard.from_dict(embedder_card()), GivenOutputs({}))


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "docs" / "models").glob("*.card.json")), ids=lambda p: p.stem
)
def test_the_documented_cards_of_published_detectors_are_right_in_themselves(path: Path) -> None:
    card = ModelCard.from_dict(json.loads(path.read_text()))
    assert isinstance(card.outputs, RawOutputs)
    assert [level.stride for level in card.outputs.levels] == [8, 16, 32, 64]
    assert card.detection is not None
    assert len(card.detection.classes) == 80


class TestMainBody:
    """The main body of a reference picture, which shows one product."""

    @staticmethod
    def among(*boxes: tuple[float, float, float, float]) -> Detections:
        return Detections(as_boxes(boxes), np.linspace(0.9, 0.3, len(boxes), dtype=np.float32))

    def test_a_large_central_box_beats_a_better_scored_one_at_the_border(self) -> None:
        assert main_body(self.among((0, 0, 20, 20), (30, 30, 70, 70)), 100, 100) == (30, 30, 70, 70)

    def test_a_large_box_beats_a_tiny_central_one(self) -> None:
        assert main_body(self.among((48, 48, 56, 66), (20, 10, 75, 95)), 100, 100) == (20, 10, 75, 95)

    def test_nothing_but_specks_or_nothing_at_all_is_no_main_body(self) -> None:
        assert main_body(self.among((49, 49, 51, 51)), 100, 100) is None
        assert main_body(self.among(), 100, 100) is None

    def test_detections_are_values(self) -> None:
        detections = self.among((0, 0, 1, 1))
        assert replace(detections, scores=detections.scores).boxes is detections.boxes
