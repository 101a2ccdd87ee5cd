"""What a model would have given, made by hand."""

import torch
from torch import Tensor

from training.models.embedder import EmbedderOutput

HALF_PRECISIONS = (torch.float16, torch.bfloat16)


def output(
    *, backbone: Tensor | None = None, embedding: Tensor | None = None, logits: Tensor | None = None
) -> EmbedderOutput:
    """An output of which the test names what its loss shall look at; the rest is NaN and would show."""
    missing = torch.full((1, 1), float("nan"))
    return EmbedderOutput(
        missing if backbone is None else backbone, missing if embedding is None else embedding, logits
    )


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Seeded normal values, float64, that want a gradient."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return values.requires_grad_()
