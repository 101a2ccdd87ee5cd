"""Several sets as one, each with its own sampling rate, their labels kept apart.

The first PP-ShiTu draws LogoDet-3K, In-shop and VeRI-Wild four times as often as its other sets (Wei et al., "PP-ShiTu:
A Practical Lightweight Image Recognition System", 2021, section 3.1, "Implementation Details"). What a rate means for
an epoch stands with each sampler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.coco import Scenes, Truth
from training.data.faults import Faults
from training.data.pictures import Pictures

Source = TypeVar("Source", covariant=True)


@dataclass(frozen=True)
class Part(Generic[Source]):
    """One of several sets.

    Attributes:
        source: the set.
        rate: how often its pictures are drawn beside those of a set with rate 1; above 0.
        name: for messages and for telling equal class names apart.
    """

    source: Source
    rate: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(
                f"the sampling rate of {self.name or 'a set'}: found {self.rate}, wanted above 0"
            )


class _Joined:
    """Where each part starts, and each picture's rate."""

    def __init__(self, sizes: Sequence[int], rates: Sequence[float]) -> None:
        self._starts = np.cumsum([0, *sizes])
        self._rates = np.repeat(np.array(rates, np.float64), sizes)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def rates(self) -> NDArray[np.float64]:
        """(N,), the rate of each picture's set."""
        return self._rates

    def place(self, index: int) -> tuple[int, int]:
        """The part that holds a picture, and the picture's number there."""
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


class MixedPictures(_Joined):
    """Pictures of several sets. The first set's labels come first, then the second's: none is shared.

    Attributes:
        labels: (N,), dense over all sets.
        classes: "set/class" where the parts have names.
    """

    def __init__(self, parts: Sequence[Part[Pictures]]) -> None:
        super().__init__([len(part.source.labels) for part in parts], [part.rate for part in parts])
        self._parts = [part.source for part in parts]
        first_labels = np.cumsum([0, *(len(part.source.classes) for part in parts)])
        self.labels: NDArray[np.int64] = np.concatenate(
            [part.source.labels + first for part, first in zip(parts, first_labels, strict=False)]
        )
        self.classes: Sequence[str] = [
            f"{part.name}/{name}" if part.name else name for part in parts for name in part.source.classes
        ]

    def read(self, index: int) -> NDArray[np.uint8]:
        part, number = self.place(index)
        return self._parts[part].read(number)

    def where(self, index: int) -> str:
        part, number = self.place(index)
        return self._parts[part].where(number)

    def identity(self, index: int) -> object:
        part, number = self.place(index)
        return self._parts[part].identity(number)

    def check(self, faults: Faults, *, pictures_per_class: int = 1, thorough: bool = True) -> None:
        for part in self._parts:
            part.check(faults, pictures_per_class=pictures_per_class, thorough=thorough)


class MixedScenes(_Joined):
    """Scenes of several sets that share their classes: the main body alone, or one list of names for all.

    Attributes:
        classes: of all parts.
    """

    def __init__(self, parts: Sequence[Part[Scenes]]) -> None:
        """
        Raises:
            ValueError: the parts differ in their classes.
        """
        super().__init__([len(part.source) for part in parts], [part.rate for part in parts])
        self._parts = [part.source for part in parts]
        self.classes = tuple(parts[0].source.classes)
        for part in parts:
            if tuple(part.source.classes) != self.classes:
                raise ValueError(
                    f"{part.name or 'a set'}: found {len(part.source.classes)} classes that are not those of"
                    f" {parts[0].name or 'the first'}; mix sets as foreground alone, or give all the same classes"
                )

    def read(self, index: int) -> NDArray[np.uint8]:
        part, number = self.place(index)
        return self._parts[part].read(number)

    def where(self, index: int) -> str:
        part, number = self.place(index)
        return self._parts[part].where(number)

    def truth(self, index: int) -> Truth:
        part, number = self.place(index)
        return self._parts[part].truth(number)

    def crowds(self, index: int) -> Truth:
        part, number = self.place(index)
        return self._parts[part].crowds(number)

    def check(self, faults: Faults, *, thorough: bool = True) -> None:
        for part in self._parts:
            part.check(faults, thorough=thorough)
