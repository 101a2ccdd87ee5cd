"""Whether weights are those of a network: by their names and shapes, whatever library holds them."""

from collections.abc import Iterable, Mapping
from typing import Protocol

Shape = tuple[int, ...]


class Shaped(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> Iterable[int]: ...


def shapes_of(weights: Mapping[str, Shaped]) -> dict[str, Shape]:
    """Shapes by name."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def describe_mismatch(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Every name that is missing, left over or of another shape; none where the weights fit."""
    return [
        *(f"missing {name}" for name in wanted if name not in found),
        *(f"unexpected {name}" for name in found if name not in wanted),
        *(
            f"{name} is {found[name]}, wanted {shape}"
            for name, shape in wanted.items()
            if name in found and found[name] != shape
        ),
    ]
