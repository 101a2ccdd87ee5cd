"""Draw boxes with their labels onto a picture, for people: the shell command and the documentation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from recognition.images import Box
from recognition.ranking import Result

# Told apart also by the colour-blind (Okabe and Ito's palette), and dark enough for white text.
COLOURS = {
    Result.RECOGNISED: (0, 120, 90),
    Result.NEEDS_CONFIRMATION: (190, 90, 0),
    Result.UNKNOWN: (90, 90, 90),
}
WHITE = (255, 255, 255)

# As shares of the picture's longer side, so that a large photo is as readable as a small one.
TEXT_SHARE, SMALLEST_TEXT = 0.014, 12
LINE_SHARE = 0.003
LEAST_LETTERS = 12  # of a line, in a box too narrow for as many


@dataclass(frozen=True)
class LabelledBox:
    """A box and what to say about it.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture that is drawn on.
        text: one line.
        result: gives the colour.
    """

    box: Box
    text: str
    result: Result


def draw_boxes(pixels: NDArray[np.uint8], boxes: Sequence[LabelledBox]) -> NDArray[np.uint8]:
    """Draw boxes and labels.

    Args:
        pixels: (h, w, 3) RGB; left as it is.
        boxes: the first ones end up on top.
    Returns:
        A new picture of the same shape.
    """
    picture = Image.fromarray(pixels).copy()
    draw = ImageDraw.Draw(picture)
    longer = max(picture.size)
    font = ImageFont.load_default(max(SMALLEST_TEXT, round(longer * TEXT_SHARE)))
    line = max(2, round(longer * LINE_SHARE))
    # All frames first: no frame may cross a label.
    for labelled in reversed(boxes):
        x1, y1, x2, y2 = (round(side) for side in labelled.box)
        draw.rectangle(
            (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=COLOURS[Result(labelled.result)], width=line
        )
    for labelled in reversed([box for box in boxes if box.text]):
        _draw_label(draw, labelled, font, line, picture.size)
    return np.asarray(picture)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    labelled: LabelledBox,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    padding: int,
    size: tuple[int, int],
) -> None:
    """On the box, as wide as it and hiding nothing of it; moved so far that it is within the picture."""
    text = _wrapped(draw, labelled, font)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * padding, bottom - top + 2 * padding
    x = max(0, min(labelled.box[0], size[0] - width))
    y = max(0, min(labelled.box[1] - height, size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=COLOURS[Result(labelled.result)])
    draw.multiline_text((x + padding - left, y + padding - top), text, font=font, fill=WHITE)


def _wrapped(
    draw: ImageDraw.ImageDraw, labelled: LabelledBox, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """The text in lines no wider than its box, so that it does not hide the next one; a narrow box gets some more."""
    room = max(labelled.box[2] - labelled.box[0], draw.textlength("n" * LEAST_LETTERS, font=font))
    lines: list[str] = []
    for word in labelled.text.split():
        if lines and draw.textlength(f"{lines[-1]} {word}", font=font) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
