"""Any weighted sum of losses, as the recipes put them together."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """Weight times loss, added up, for losses that are called alike.

    Args:
        terms: a name for each loss, as logs shall show it, with its weight and the loss.
    Raises:
        ValueError: there are no terms.
    """

    def __init__(self, terms: Mapping[str, tuple[float, nn.Module]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("found no loss, wanted at least one term.")
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.losses = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    def parts(self, *args: Any) -> dict[str, Tensor]:
        """Each weighted term by its name; `args` go to every loss as they are."""
        return {name: self.weights[name] * loss(*args) for name, loss in self.losses.items()}

    def forward(self, *args: Any) -> Tensor:
        """The sum of `parts`, a scalar."""
        return torch.stack(tuple(self.parts(*args).values())).sum()
