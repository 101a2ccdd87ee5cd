"""Drawn boxes lie where they should, in their result's colour, with a label that stays inside the picture."""

import numpy as np
import pytest

from recognition.drawing import COLOURS, LabelledBox, draw_boxes
from recognition.ranking import Result

GREY = np.full((200, 300, 3), 128, np.uint8)


@pytest.mark.parametrize("result", list(Result))
def test_a_frame_is_drawn_on_the_box_in_the_results_colour(result: Result) -> None:
    drawn = draw_boxes(GREY, [LabelledBox((50, 60, 150, 160), "", result)])
    for y, x in ((60, 100), (159, 100), (100, 50), (100, 149)):
        assert tuple(drawn[y, x]) == COLOURS[result]
    assert (drawn[70:150, 60:140] == 128).all()
    assert (drawn[:59] == 128).all()


def test_the_given_picture_is_left_as_it_is() -> None:
    before = GREY.copy()
    draw_boxes(GREY, [LabelledBox((50, 60, 150, 160), "Oat drink 1 l 0.93", Result.RECOGNISED)])
    assert np.array_equal(GREY, before)


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 40), (260, 0, 300, 40), (260, 180, 300, 200), (-5, 190, 310, 205)]
)
def test_a_label_at_the_border_is_seen_whole(box: tuple[float, float, float, float]) -> None:
    text = "Oat drink 1 l"
    inside = draw_boxes(GREY, [LabelledBox((100, 100, 102, 102), text, Result.UNKNOWN)])
    at_border = draw_boxes(GREY, [LabelledBox(box, text, Result.UNKNOWN)])
    white = [(pixels == 255).all(axis=2).sum() for pixels in (inside, at_border)]
    assert white[0] > 0
    assert white[1] == pytest.approx(white[0], rel=0.2)


def test_text_grows_with_the_picture() -> None:
    large = np.full((2000, 3000, 3), 128, np.uint8)
    text = [LabelledBox((10, 10, 200, 150), "Apple", Result.RECOGNISED)]
    assert (draw_boxes(large, text) == 255).sum() > 4 * (draw_boxes(GREY, text) == 255).sum()


def test_nothing_to_draw_gives_the_picture() -> None:
    assert np.array_equal(draw_boxes(GREY, []), GREY)
