"""Heads: from embeddings to the logits that a classification loss wants; training alone uses them.

Those with a margin compare directions: a logit is the cosine between an embedding and its class' weight. They want
labels in training, and give plain cosines in evaluation or where there are no labels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.embedder import Head

# Keeps the sine's gradient finite where the cosine is 1; upstream's value.
SINE_EPS = 1e-6


class FCHead(Head):
    """A linear classifier without bias on the embedding as it is: PP-ShiTu V2's."""

    def __init__(self, dimension: int, *, n_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dimension, n_classes, bias=False)
        nn.init.normal_(self.fc.weight, std=0.001)

    @property
    def class_weights(self) -> Tensor:
        """(n_classes, dimension)."""
        return self.fc.weight

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map (N, dimension) to logits (N, n_classes); the labels are not looked at."""
        logits: Tensor = self.fc(embedding)
        return logits


class MarginHead(Head):
    """What the three margins share: class weights (n_classes, dimension), cosines, when the margin counts."""

    def __init__(self, dimension: int, *, n_classes: int, margin: float, scale: float) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(n_classes, dimension))
        nn.init.xavier_normal_(self.weight)

    @property
    def class_weights(self) -> Tensor:
        """(n_classes, dimension)."""
        return self.weight

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        """Classify by direction.

        Args:
            embedding: (N, dimension), of any length.
            labels: (N,) int64, each below n_classes.
        Returns:
            (N, n_classes): plain cosines in evaluation or without labels; in training logits with the margin,
            scaled.
        """
        cosines = functional.normalize(embedding) @ functional.normalize(self.weight).T
        if not self.training or labels is None:
            return cosines
        is_own = functional.one_hot(labels, len(self.weight)).bool()  # (N, n_classes)
        return self.scale * self.with_margin(cosines, is_own)

    def with_margin(self, cosines: Tensor, is_own: Tensor) -> Tensor:
        """Cosines (N, n_classes) made harder where `is_own` of the same shape is true."""
        raise NotImplementedError


class ArcMargin(MarginHead):
    """ArcFace: the angle to the own class grows by the margin (Deng et al., 2019, equation 3); PP-ShiTu V1's.

    Where angle + margin would pass 180 degrees the cosine would rise again; there it falls on as a line, by
    margin * sin(margin), as in the authors' code and upstream.
    """

    def __init__(self, dimension: int, *, n_classes: int, margin: float = 0.2, scale: float = 30.0) -> None:
        super().__init__(dimension, n_classes=n_classes, margin=margin, scale=scale)

    def with_margin(self, cosines: Tensor, is_own: Tensor) -> Tensor:
        sines = torch.sqrt(1 - cosines.square() + SINE_EPS)
        turned = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        line = cosines - self.margin * math.sin(self.margin)
        harder = torch.where(cosines > -math.cos(self.margin), turned, line)
        return torch.where(is_own, harder, cosines)


class CosMargin(MarginHead):
    """CosFace: the cosine to the own class loses the margin (Wang et al., 2018, equation 4)."""

    def __init__(self, dimension: int, *, n_classes: int, margin: float = 0.35, scale: float = 64.0) -> None:
        super().__init__(dimension, n_classes=n_classes, margin=margin, scale=scale)

    def with_margin(self, cosines: Tensor, is_own: Tensor) -> Tensor:
        return torch.where(is_own, cosines - self.margin, cosines)


class CircleMargin(MarginHead):
    """Circle loss with class labels (Sun et al., 2020, section 3.3): each cosine is weighed by how far it is off.

    The weights carry no gradient. The optima are 1 + margin and -margin (equation 5), the borders 1 - margin and
    margin (equation 8).
    """

    def __init__(self, dimension: int, *, n_classes: int, margin: float = 0.25, scale: float = 256.0) -> None:
        super().__init__(dimension, n_classes=n_classes, margin=margin, scale=scale)

    def with_margin(self, cosines: Tensor, is_own: Tensor) -> Tensor:
        fixed = cosines.detach()
        own = (1 + self.margin - fixed).clamp(min=0) * (cosines - (1 - self.margin))
        other = (fixed + self.margin).clamp(min=0) * (cosines - self.margin)
        return torch.where(is_own, own, other)
