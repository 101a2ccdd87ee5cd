"""Cross-entropy over the head's logits, with label smoothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from training.losses.precision import full_precision

if TYPE_CHECKING:
    from training.models.embedder import EmbedderOutput


class CrossEntropy(nn.Module):
    """Mean cross-entropy between logits and labels.

    With a margin head the logits already carry margin and scale, and this is ArcFace (or CosFace, or circle) loss:
    PP-ShiTu (2021), equation 1.

    Args:
        label_smoothing: share e of the target that is spread evenly over all C classes, the right one included
            (Szegedy et al. 2016, section 7: (1 - e) + e / C for it, e / C for the others); 0 to below 1.
    Raises:
        ValueError: the share is not one; on a call, the model has no head.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: found {label_smoothing}, wanted 0 to below 1.")
        self.label_smoothing = label_smoothing

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.logits (N, C) and labels (N,) int64 in 0..C-1."""
        logits = full_precision(logits_of(output))
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def logits_of(output: EmbedderOutput) -> Tensor:
    """The logits (N, C) of a model's output.

    Raises:
        ValueError: there are none, for the model has no head.
    """
    if output.logits is None:
        raise ValueError("found no logits, and this loss compares them: give the model a head.")
    return output.logits
