"""MainBodyDetector: image -> boxes that each hold one product, whatever product it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognition.boxes import area, clip, non_maximum_suppression
from recognition.errors import ModelRefused
from recognition.images import Box, DecodedImage, input_extent, model_input
from recognition.model_card import DecodedOutputs, EmbedderOutputs, ModelCard, ModelFolder, RawOutputs
from recognition.sessions import ModelSession, SessionSettings, open_session

# So many of the best boxes go into non-maximum suppression: PP-ShiTu's nms_top_k.
BOXES_BEFORE_NMS = 1000

# The main body of a reference picture covers at least this share of it.
MAIN_BODY_SHARE = 0.02


@dataclass(frozen=True)
class Detections:
    """Main bodies of one picture, best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the full picture, inside of it.
        scores: (N,) float32 detection scores, 0..1, falling.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)


class MainBodyDetector:
    """Finds main bodies with one model. Threads may call `detect` at once."""

    def __init__(self, card: ModelCard, session: ModelSession) -> None:
        """
        Args:
            card: of a detector.
            session: running its model.
        Raises:
            ModelRefused: the card is an embedder's.
        """
        if card.detection is None or isinstance(card.outputs, EmbedderOutputs):
            raise ModelRefused(f"{card.name}: found an {card.task}'s card, wanted a detector's.")
        self.card = card
        self._session = session
        self._outputs = card.outputs
        self._settings = card.detection
        ignored = self._settings.ignored_classes
        self._columns = [i for i, name in enumerate(self._settings.classes) if name not in ignored]

    def detect(self, image: DecodedImage) -> Detections:
        """Find the main bodies of a picture.

        Returns:
            At most the card's maximum_items, none when nothing reaches its score_threshold.
        Raises:
            ModelRefused: the model's outputs are not those of the card.
        """
        prepared = model_input(image.pixels, self.card)[None]
        outputs = self._session.run({self.card.input.name: prepared})
        if isinstance(self._outputs, DecodedOutputs):
            boxes, scores = self._read_decoded(outputs, self._outputs)
        else:
            boxes, scores = self._read_raw(outputs, self._outputs)
        rows, columns = image.pixels.shape[:2]
        taken_width, taken_height = input_extent(columns, rows, self.card)
        scale_x, scale_y = image.width / taken_width, image.height / taken_height
        full = boxes * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        return self._select(clip(full, image.width, image.height), scores)

    def _select(self, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Detections:
        best = np.argsort(-scores, kind="stable")[:BOXES_BEFORE_NMS]
        best = best[area(boxes[best]) > 0]
        kept = non_maximum_suppression(boxes[best], scores[best], self._settings.nms_threshold)
        chosen = best[kept[: self._settings.maximum_items]]
        return Detections(boxes[chosen], scores[chosen])

    def _read_decoded(
        self, outputs: Mapping[str, NDArray[Any]], names: DecodedOutputs
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (P, 4) in input pixels and scores (P,) of those that reach the threshold."""
        n_boxes = outputs[names.boxes].shape[1]
        boxes = self._output(outputs, names.boxes, n_boxes, 4)
        passed, scores = self._pass(self._output(outputs, names.scores, n_boxes, len(self._settings.classes)))
        return boxes[passed], scores

    def _read_raw(
        self, outputs: Mapping[str, NDArray[Any]], names: RawOutputs
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `_read_decoded`, from PicoDet's levels."""
        all_boxes, all_scores = [], []
        for level in names.levels:
            n_rows = math.ceil(self.card.input.height / level.stride)
            n_columns = math.ceil(self.card.input.width / level.stride)
            n_cells = n_rows * n_columns
            passed, scores = self._pass(
                self._output(outputs, level.scores, n_cells, len(self._settings.classes))
            )
            logits = self._output(outputs, level.distributions, n_cells, 4 * names.bins)[passed]
            centres = (np.stack([passed % n_columns, passed // n_columns], axis=1) + 0.5).astype(np.float32)
            all_boxes.append(decode_distributions(logits, centres, names.bins) * np.float32(level.stride))
            all_scores.append(scores)
        return np.concatenate(all_boxes), np.concatenate(all_scores)

    def _pass(self, class_scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Which rows of (P, C) class scores reach the threshold in a class that is not ignored, and their
        best score.
        """
        scores: NDArray[np.float32] = class_scores[:, self._columns].max(axis=1)
        passed = np.flatnonzero(scores >= self._settings.score_threshold)
        return passed, scores[passed]

    def _output(
        self, outputs: Mapping[str, NDArray[Any]], name: str, rows: int, columns: int
    ) -> NDArray[np.float32]:
        found = outputs[name]
        if found.shape != (1, rows, columns):
            raise ModelRefused(
                f"{self.card.name}: output {name} is {found.shape}, the card says (N, {rows}, {columns}); "
                "correct the card's classes, bins, strides or input size."
            )
        values: NDArray[np.float32] = found[0].astype(np.float32, copy=False)
        return values


def open_detector(folder: ModelFolder, settings: SessionSettings) -> MainBodyDetector:
    """Open a detector and see that it gives what its card says.

    Raises:
        ModelRefused: it does not run as its card says.
    """
    # A detector sees one picture at a time: no other batch size need be warmed.
    detector = MainBodyDetector(folder.card, open_session(folder, replace(settings, batch_sizes=(1,))))
    side = folder.card.input.width
    detector.detect(DecodedImage(np.zeros((side, side, 3), np.uint8), side, side, "PNG"))
    return detector


def decode_distributions(
    logits: NDArray[np.float32], centres: NDArray[np.float32], bins: int
) -> NDArray[np.float32]:
    """Boxes out of distributions over the distances from a cell's centre to the four sides.

    Li et al. 2020, "Generalized Focal Loss", section 3.1: a distance is the expectation over the bins 0, 1,
    ...

    Args:
        logits: (P, 4 * bins), the sides in the order left, top, right, bottom.
        centres: (P, 2), x and y in strides.
        bins: for each side.
    Returns:
        (P, 4), x1, y1, x2, y2 in strides.
    """
    shaped = logits.reshape(-1, 4, bins)
    weights = np.exp(shaped - shaped.max(axis=2, keepdims=True))
    distances = weights @ np.arange(bins, dtype=np.float32) / weights.sum(axis=2)
    return np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)


def main_body(detections: Detections, width: int, height: int) -> Box | None:
    """The main body of a picture that shows one product: the most central large box.

    Args:
        detections: of the picture.
        width: of the picture, in pixels.
        height: likewise.
    Returns:
        The box whose size (the square root of its share of the picture) times its centrality (1 in the
        middle, 0 in a corner) is greatest; None if no box covers MAIN_BODY_SHARE of the picture.
    """
    shares = area(detections.boxes) / (width * height)
    if not len(shares) or shares.max() < MAIN_BODY_SHARE:
        return None
    centres = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    offsets = centres / np.array([width, height], np.float32) * 2 - 1  # -1 .. 1 on both axes
    centrality = 1 - np.hypot(offsets[:, 0], offsets[:, 1]) / math.sqrt(2)
    best = np.argmax(np.where(shares < MAIN_BODY_SHARE, -1, np.sqrt(shares) * centrality))
    x1, y1, x2, y2 = detections.boxes[best].tolist()
    return x1, y1, x2, y2
