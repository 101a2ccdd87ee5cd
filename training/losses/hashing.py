"""Losses for hash codes: DSHSD, LCDSH, DCH, and one that keeps an embedding's angles.

A hash embedder's embedding is K real values whose signs are the bits. These losses make values of one label agree
in sign and keep them away from 0.

DLBHC (Lin et al., "Deep Learning of Binary Hash Codes for Fast Image Retrieval", 2015, section 3.2) is a method of
PP-ShiTu's too, and has no loss of its own: its binary layer is a squashed linear layer between backbone and classifier
(`training.models.necks.HashNeck` before a plain FC head), trained by classification alone. Its loss is
`training.losses.classification.CrossEntropy`.

All average over all N x N ordered pairs of the batch, each picture's pair with itself among them, as
PaddleClas (`ppcls/loss/deephashloss.py`) does and its weights assume.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.losses.classification import logits_of
from training.losses.pairs import distances, inner_products, same_label
from training.losses.precision import full_precision

if TYPE_CHECKING:
    from training.models.embedder import EmbedderOutput

# DCH: cosines above this count as this. The Cauchy loss has a log of the distance, which must not reach 0.
HIGHEST_COSINE = 0.99
# DCH: two codes' lengths multiply to at least this, so that a code of zeros has a cosine.
SMALLEST_NORM = 1e-4
# Angles: cosines are cut off here, for the angle's slope is infinite at 1.
STRAIGHTEST = 1 - 1e-6
# LCDSH: half inner products are cut off here, where the sigmoid has long been flat.
WIDEST_PRODUCT = 50.0


def dshsd(
    codes: Tensor, logits: Tensor, labels: Tensor, *, alpha: float = 0.05, margin: float | None = None
) -> Tensor:
    """DSHSD (Wu et al., "Deep Supervised Hashing Based on Stable Distribution", 2019): classification and contrast.

    Cross-entropy of the logits + alpha * mean over pairs of d2 / 2 where labels agree, max(0, margin - d2) / 2 where
    they differ, with d2 the squared Euclidean distance of two codes.

    Args:
        codes: (N, K) real, in -1..1 behind a tanh.
        logits: (N, C), from a plain head over the codes.
        labels: (N,) int64.
        alpha: the contrastive term's weight; 0.05 in PP-ShiTu (section 3.1) and in PaddleClas.
        margin: None is 2 K, half the way to the opposite code's 4 K: 1024 for 512 bits, as PP-ShiTu has it.
    Returns:
        Scalar, at least 0.
    """
    same = same_label(labels)
    squared = distances(codes).square()  # (N, N)
    apart = functional.relu((2 * codes.shape[1] if margin is None else margin) - squared)
    contrast = torch.where(same, squared, apart) / 2
    return functional.cross_entropy(full_precision(logits), labels) + alpha * contrast.mean()


class DSHSD(nn.Module):
    """`dshsd` of a model's embeddings (the codes) and logits; its settings are that function's."""

    def __init__(self, *, alpha: float = 0.05, margin: float | None = None) -> None:
        super().__init__()
        self.alpha = alpha
        self.margin = margin

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, K), output.logits (N, C) and labels (N,)."""
        return dshsd(output.embedding, logits_of(output), labels, alpha=self.alpha, margin=self.margin)


def lcdsh(codes: Tensor, labels: Tensor, *, quantisation_weight: float = 3.0) -> Tensor:
    """LCDSH (Zhu and Gao, "Locality-Constrained Deep Supervised Hashing for Image Retrieval", IJCAI 2017).

    With u = x_i . x_j / 2, cut off at -50 and 50 (where a pair has no gradient any more), b the same of the signs, and
    s = 1 for a shared label and -1 otherwise:

        mean(log(1 + exp(-s u))) + quantisation_weight * mean((sigmoid(u) - sigmoid(b))^2)

    The signs are taken as constants; the sign of 0 is 0. The method trains without neck or head.

    Args:
        codes: (N, K) real.
        labels: (N,) int64.
        quantisation_weight: of the second term; 3 in PaddleClas, there `_lambda`.
    Returns:
        Scalar, at least 0.
    """
    sign = torch.where(same_label(labels), 1.0, -1.0)
    products = (inner_products(codes) / 2).clamp(-WIDEST_PRODUCT, WIDEST_PRODUCT)  # (N, N)
    binary_products = inner_products(codes.detach().sign()) / 2
    likelihood = functional.softplus(-sign * products).mean()
    quantisation = (products.sigmoid() - binary_products.sigmoid()).square().mean()
    return likelihood + quantisation_weight * quantisation


class LCDSH(nn.Module):
    """`lcdsh` of a model's embeddings (the codes); its settings are that function's."""

    def __init__(self, *, quantisation_weight: float = 3.0) -> None:
        super().__init__()
        self.quantisation_weight = quantisation_weight

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, K) and labels (N,)."""
        return lcdsh(output.embedding, labels, quantisation_weight=self.quantisation_weight)


def dch(codes: Tensor, labels: Tensor, *, gamma: float = 20.0, quantisation_weight: float = 0.1) -> Tensor:
    """DCH (Cao et al., "Deep Cauchy Hashing for Hamming Space Retrieval", CVPR 2018, section 3).

    With d(x, y) = (1 - min(cos(x, y), 0.99)) K / 2, which is the Hamming distance for codes of -1 and 1, s = 1 for a
    shared label and 0 otherwise, and w that balances the two kinds (all pairs / pairs of that kind):

        mean(w (s log(d / gamma) + log(1 + gamma / d))) + quantisation_weight * mean(log(1 + d(|x|, 1) / gamma))

    Upstream's bound of 0.99 keeps d above 0: nearer pairs, each picture's with itself first of all, have no gradient.
    Where all pairs share one label, w is 1.

    Args:
        codes: (N, K) real.
        labels: (N,) int64.
        gamma: the Cauchy distribution's width in bits, about the Hamming radius to be searched; 20 in PaddleClas.
        quantisation_weight: of the second term; 0.1 in PaddleClas, there `_lambda`.
    Returns:
        Scalar, at least 0.
    """
    codes = full_precision(codes)
    n_bits = codes.shape[1]
    lengths = codes.norm(dim=1)  # (N,)
    cosines = inner_products(codes) / (lengths[:, None] * lengths[None, :]).clamp(min=SMALLEST_NORM)
    apart = _hamming(cosines, n_bits)  # (N, N)

    same = same_label(labels)
    n_pairs, n_same = same.numel(), same.sum()  # n_same is at least N, for the diagonal
    weight = torch.where(same, n_pairs / n_same, n_pairs / (n_pairs - n_same))
    # log(d / gamma) + log(1 + gamma / d) is log(1 + d / gamma), which has no large terms to cancel.
    cauchy = weight * torch.where(same, apart / gamma, gamma / apart).log1p()

    # The cosine of |x| to the code of ones, whose length is sqrt(K).
    cosines_to_ones = codes.abs().sum(dim=1) / (lengths * n_bits**0.5).clamp(min=SMALLEST_NORM)
    quantisation = (_hamming(cosines_to_ones, n_bits) / gamma).log1p()  # (N,)
    return cauchy.mean() + quantisation_weight * quantisation.mean()


def _hamming(cosines: Tensor, n_bits: int) -> Tensor:
    """The Hamming distance, in bits, that a cosine of two codes stands for; above 0."""
    return (1 - cosines.clamp(max=HIGHEST_COSINE)) * n_bits / 2


class DCH(nn.Module):
    """`dch` of a model's embeddings (the codes); its settings are that function's."""

    def __init__(self, *, gamma: float = 20.0, quantisation_weight: float = 0.1) -> None:
        super().__init__()
        self.gamma = gamma
        self.quantisation_weight = quantisation_weight

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, K) and labels (N,)."""
        return dch(output.embedding, labels, gamma=self.gamma, quantisation_weight=self.quantisation_weight)


def angle_preservation(values: Tensor, embeddings: Tensor) -> Tensor:
    """How far the codes' similarities are from those that the embeddings' angles call for.

        mean over pairs of (s(b_i, b_j) - (1 - 2 angle(e_i, e_j) / pi))^2

    with b the signs of the values and s the similarity of two codes, 1 - 2 distance / bits. The target is what the
    signs behind random hyperplanes give in the mean (Charikar, "Similarity Estimation Techniques from Rounding
    Algorithms", STOC 2002, section 3); learning the hyperplanes takes out their variance where the data lies. The
    codes then rank as the embeddings do, whatever these were trained for: no label is asked for. A sign's gradient
    is passed straight through where its value is within -1..1 (Hubara et al., "Binarized Neural Networks", 2016,
    section 1.3).

    Args:
        values: (N, K) real, whose signs are the bits.
        embeddings: (N, D) before L2 normalisation; taken as constants.
    Returns:
        Scalar, 0 to 4.
    """
    values = full_precision(values)
    # Forward the sign, 0 counting as -1 as in a packed code; backward the value, where it is within -1..1.
    passed = values.clamp(-1, 1)
    signs = passed + (torch.where(values > 0, 1.0, -1.0).to(values) - passed).detach()
    found = inner_products(signs) / values.shape[1]
    unit = functional.normalize(full_precision(embeddings.detach()))
    angles = inner_products(unit).clamp(-STRAIGHTEST, STRAIGHTEST).arccos()
    return (found - (1 - 2 * angles / math.pi)).square().mean()


class AnglePreservation(nn.Module):
    """`angle_preservation` of a hash branch: of its values, and of the embedding that it sees."""

    def forward(self, output: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from output.embedding (N, K), the values, and output.backbone (N, D), what they are made from."""
        return angle_preservation(output.embedding, output.backbone)
