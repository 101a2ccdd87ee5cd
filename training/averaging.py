"""The running mean of a detector's weights, which is what is evaluated and exported."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential mean over steps, as PaddleDetection's EMA of type "threshold".

    At step t, from 0, the old mean keeps the share min(decay, (1 + t) / (10 + t)), so that early weights, which are
    bad, are soon forgotten. The mean starts from zeros and is divided by the weight that has come in so far.

    Deviation: upstream divides by 1 - d^t with the last d for all steps, which is exact only for a d that never
    changes; here it is the sum of the weights themselves. From the twentieth step on the two agree to 1e-3 and soon to
    1e-4. Buffers, the normalisations' running means, are averaged too, as upstream; counts are taken as they are.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.mass = 0.0
        self.sums = {
            name: torch.zeros_like(value, dtype=torch.float32)
            for name, value in network.state_dict().items()
            if value.is_floating_point()
        }

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights after a step in."""
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = network.state_dict()
        for name, total in self.sums.items():
            total.mul_(kept).add_(current[name], alpha=1 - kept)
        self.mass = kept * self.mass + 1 - kept
        self.steps += 1

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The mean, as a state that the network takes; the network's own weights before the first step."""
        current = network.state_dict()
        if self.steps == 0:
            return {name: value.clone() for name, value in current.items()}
        return {
            name: (self.sums[name] / self.mass).to(value.dtype) if name in self.sums else value.clone()
            for name, value in current.items()
        }

    def reset(self) -> None:
        """Start anew, so that a long training forgets where it has been."""
        self.steps, self.mass = 0, 0.0
        for total in self.sums.values():
            total.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "mass": self.mass, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.steps, self.mass = state["steps"], state["mass"]
        for name, total in self.sums.items():
            total.copy_(state["sums"][name])
