"""What is wrong with training data, gathered over the whole of it so that one run names all there is to mend."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

SHOWN = 20
# Below this many a check is over before a bar could be read.
WORTH_A_BAR = 5_000

Item = TypeVar("Item")


class BadData(Exception):
    """The data cannot be trained on as it is: mend what is named, and start again.

    Attributes:
        faults: the first of them, each with file and line.
        count: of all.
    """

    def __init__(self, faults: Iterable[str] | str, count: int | None = None) -> None:
        """
        Args:
            faults: the first of them. One text is what a DataLoader makes of an error in a loader process: it raises
                the same class again with the message and the traceback there.
            count: of all; None is as many as are given.
        """
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        self.count = len(self.faults) if count is None else count
        super().__init__(self.faults, self.count)

    def __str__(self) -> str:
        title = "1 fault" if self.count == 1 else f"{self.count:,} faults"
        lines = [f"{title} in the data:", *(f"  {fault}" for fault in self.faults)]
        if self.count > len(self.faults):
            lines.append(f"  ... and {self.count - len(self.faults):,} more")
        return "\n".join(lines)


class Faults:
    """Collects faults: the first `SHOWN` in full, the rest as a count."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, where: str, what: str) -> None:
        """Note a fault.

        Args:
            where: file and line, "train.txt:12".
            what: found this, wanted that, do so.
        """
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """
        Raises:
            BadData: something was added.
        """
        if self.count:
            raise BadData(self.first, self.count)


def watched(items: Iterable[Item], title: str, total: int, worth_a_bar: int = WORTH_A_BAR) -> Iterator[Item]:
    """The items, with a progress bar where there are many of them."""
    yield from track(items, title, total, disable=total < worth_a_bar)
