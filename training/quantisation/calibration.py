"""The pictures that ranges are found on, prepared by the code that serving uses each time they are asked for.

Prepared, three hundred pictures for a detector fill 1.5 GB; as they come they fill a tenth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recognition.images import model_input
from recognition.model_card import ModelCard

# Of a batch: KL calibration holds all maps of it, some 100 MB a picture at 640 pixels.
PIXELS_AT_ONCE = 8 * 224 * 224


@dataclass(frozen=True)
class Calibration:
    """Pictures for one model.

    Attributes:
        pictures: RGB, each (h, w, 3); one or more.
        card: of the model.
    """

    pictures: Sequence[NDArray[np.uint8]]
    card: ModelCard

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[NDArray[np.generic]]:
        """One after the other, each (1, 3, height, width) in the card's dtype."""
        for picture in self.pictures:
            yield model_input(picture, self.card)[None]

    def first(self, count: int) -> NDArray[np.generic]:
        """The first ones, at most `count` of them, (N, 3, height, width)."""
        return np.stack([model_input(picture, self.card) for picture in self.pictures[:count]])

    def batches(self) -> Iterator[NDArray[np.generic]]:
        """All of them, (N, 3, height, width) each, N by how large they are."""
        size = max(1, PIXELS_AT_ONCE // (self.card.input.height * self.card.input.width))
        for start in range(0, len(self.pictures), size):
            yield Calibration(self.pictures[start : start + size], self.card).first(size)
