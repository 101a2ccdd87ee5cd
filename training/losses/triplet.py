"""Triplets mined within the batch: each anchor against its hardest positive and its hardest negative.

Both losses are functions of embeddings and labels, both take every picture of the batch as an anchor once, and both
want batches with several pictures of each label (PKSampler).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from training.losses.pairs import distances, inner_products, same_label
from training.losses.precision import full_precision

if TYPE_CHECKING:
    from training.models.embedder import EmbedderOutput


def triplet_angular_margin(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.5,
    absolute_weight: float = 0.1,
    positive_value: float = 0.8,
    negative_value: float = 0.4,
) -> Tensor:
    """PP-ShiTuV2's triplet loss, on cosines (PaddleClas, `TripletAngularMarginLoss`).

    With p the lowest cosine of an anchor to its own label, itself included, and n its highest to another label:

        mean(relu(margin - (p - n)))
        + absolute_weight * (mean(relu(positive_value - p)) + mean(relu(n - negative_value)))

    What is odd upstream, and what becomes of it here:

    - Where n is at most negative_value, upstream adds 1 for the anchor where 0 is meant. The 1 is a constant, so
      the gradient is the same, and we follow the gradient. Our value is lower than upstream's by absolute_weight
      times the share of such anchors: by 0.1 once training goes well. Do not compare values without it.
    - Upstream reshapes the positives into a rectangle: every label must come equally often in the batch, or it
      fails, or takes one anchor's pairs for another's. Here each anchor has its own pairs, whatever the counts.
    - With one label in the batch there is no n and upstream fails. Here its two terms are 0, the term of p stays.
    - An anchor alone with its label has p = 1 from itself, without gradient, as upstream.
    - "Angular" it is by name: margins are on the cosine, not on the angle.
    - Among equal extremes the gradient is shared evenly here; Paddle gives each of them the whole of it.
    - A zero embedding is NaN upstream; here its cosine to anything is 0.

    Args:
        embeddings: (N, D), any length.
        labels: (N,) int64.
        margin: by how much p shall exceed n.
        absolute_weight: of the two terms on p and n alone; 0 leaves them out. This and the two values are those of
            `GeneralRecognitionV2_PPLCNetV2_base.yaml`.
        positive_value: the cosine above which p costs nothing by itself.
        negative_value: the cosine below which n costs nothing by itself.
    Returns:
        Scalar, at least 0.
    """
    cosines = inner_products(functional.normalize(full_precision(embeddings)))  # (N, N)
    same = same_label(labels)
    positive = cosines.masked_fill(~same, math.inf).amin(
        dim=1
    )  # (N,), at most 1: an anchor is its own positive
    negative = cosines.masked_fill(same, -math.inf).amax(
        dim=1
    )  # (N,), -inf without negatives: all its terms are 0
    rank = functional.relu(margin - (positive - negative))
    absolute = functional.relu(positive_value - positive) + functional.relu(negative - negative_value)
    return rank.mean() + absolute_weight * absolute.mean()


class TripletAngularMargin(nn.Module):
    """`triplet_angular_margin` of a model's embeddings; its settings are that function's."""

    def __init__(
        self,
        *,
        margin: float = 0.5,
        absolute_weight: float = 0.1,
        positive_value: float = 0.8,
        negative_value: float = 0.4,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.absolute_weight = absolute_weight
        self.positive_value = positive_value
        self.negative_value = negative_value

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, D) (behind the BNNeck, in the published recipe) and labels (N,)."""
        return triplet_angular_margin(
            output.embedding,
            labels,
            margin=self.margin,
            absolute_weight=self.absolute_weight,
            positive_value=self.positive_value,
            negative_value=self.negative_value,
        )


def batch_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float = 0.5, normalise: bool = True
) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., "In Defense of the Triplet Loss", 2017, equation 5), averaged.

    Mean over anchors of relu(margin + D(hardest positive) - D(hardest negative)), D the Euclidean distance, not
    squared (their section 2). An anchor alone with its label is its own positive at distance 0, so it still pushes
    negatives away; with one label in the batch there is no negative and the loss is 0.

    Args:
        embeddings: (N, D).
        labels: (N,) int64.
        margin: by how much the negative shall be farther.
        normalise: compare on the unit sphere, where distances are 0 to 2, as retrieval does (PaddleClas,
            `TripletLossV2`); False is the paper's own form.
    Returns:
        Scalar, at least 0.
    """
    embeddings = full_precision(embeddings)
    apart = distances(functional.normalize(embeddings) if normalise else embeddings)  # (N, N)
    same = same_label(labels)
    positive = apart.masked_fill(~same, -math.inf).amax(dim=1)  # (N,)
    negative = apart.masked_fill(same, math.inf).amin(dim=1)  # (N,), inf without negatives
    return functional.relu(margin + positive - negative).mean()


class BatchHardTriplet(nn.Module):
    """`batch_hard_triplet` of a model's embeddings; its settings are that function's."""

    def __init__(self, *, margin: float = 0.5, normalise: bool = True) -> None:
        super().__init__()
        self.margin = margin
        self.normalise = normalise

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, D) and labels (N,)."""
        return batch_hard_triplet(output.embedding, labels, margin=self.margin, normalise=self.normalise)
