"""Box geometry, against counting pixels and against what must hold for all boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recognition.boxes import area, as_boxes, clip, containment, non_maximum_suppression, pairwise_iou

Boxes = NDArray[np.float32]
NONE = as_boxes([])


@st.composite
def box_lists(draw: st.DrawFn, minimum: int = 0) -> Boxes:
    corners = st.tuples(*[st.integers(0, 20)] * 4)
    rows = draw(st.lists(corners, min_size=minimum, max_size=8))
    return as_boxes([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows])


def painted(box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pixels of a whole-numbered box: the slow and plain meaning of its area."""
    x1, y1, x2, y2 = box.astype(int)
    canvas = np.zeros((20, 20), bool)
    canvas[y1:y2, x1:x2] = True
    return canvas


@given(box_lists(), box_lists())
def test_overlaps_are_those_of_painted_pixels(a: Boxes, b: Boxes) -> None:
    ious, shares = pairwise_iou(a, b), containment(a, b)
    assert ious.shape == shares.shape == (len(a), len(b))
    for i, first in enumerate(map(painted, a)):
        for j, second in enumerate(map(painted, b)):
            shared, union = (first & second).sum(), (first | second).sum()
            assert ious[i, j] == pytest.approx(shared / union if union else 0)
            assert shares[i, j] == pytest.approx(shared / second.sum() if second.any() else 0)


@given(box_lists())
def test_area_is_the_painted_pixels(boxes: Boxes) -> None:
    assert area(boxes).tolist() == [painted(box).sum() for box in boxes]


@given(box_lists(minimum=1), st.data(), st.floats(0, 1))
def test_suppression_keeps_the_best_and_drops_only_what_overlaps_it(
    boxes: Boxes, data: st.DataObject, threshold: float
) -> None:
    values = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(boxes), max_size=len(boxes)))
    scores = np.array(values, np.float32)
    kept = non_maximum_suppression(boxes, scores, threshold)
    ious = pairwise_iou(boxes, boxes)
    assert kept[0] == scores.argmax()
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for place, index in enumerate(kept):
        assert (ious[index, kept[:place]] <= threshold).all()
    for dropped in set(range(len(boxes))) - set(kept.tolist()):
        assert any(ious[dropped, k] > threshold and scores[k] >= scores[dropped] for k in kept)


def test_suppression_by_hand() -> None:
    boxes = as_boxes([(0, 0, 10, 10), (1, 0, 11, 10), (20, 0, 30, 10)])
    scores = np.array([0.6, 0.8, 0.7], np.float32)
    assert non_maximum_suppression(boxes, scores, 0.6).tolist() == [1, 2]
    assert non_maximum_suppression(boxes, scores, 0.9).tolist() == [1, 2, 0]


def test_of_equal_scores_the_first_stays() -> None:
    boxes = as_boxes([(0, 0, 10, 10), (0, 0, 10, 10)])
    assert non_maximum_suppression(boxes, np.ones(2, np.float32), 0.5).tolist() == [0]


def test_no_boxes_is_as_good_as_any() -> None:
    assert NONE.shape == (0, 4)
    assert area(NONE).shape == (0,)
    assert pairwise_iou(NONE, as_boxes([(0, 0, 1, 1)])).shape == (0, 1)
    assert non_maximum_suppression(NONE, np.zeros(0, np.float32), 0.5).tolist() == []


def test_clipping_cuts_at_the_borders() -> None:
    clipped = clip(as_boxes([(-5, -5, 50, 5), (40, 40, 60, 60)]), 30, 20)
    assert clipped.tolist() == [[0, 0, 30, 5], [30, 20, 30, 20]]
    assert area(clipped)[1] == 0


@pytest.mark.parametrize(
    "wrong",
    [[1, 2, 3, 4], [[1, 2, 3]], [[5, 0, 1, 1]], [[0, 5, 1, 1]], [[0, 0, np.nan, 1]], [[0, 0, np.inf, 1]]],
)
def test_what_is_no_box_is_refused(wrong: list[object]) -> None:
    with pytest.raises(ValueError, match="boxes: found"):
        as_boxes(wrong)
