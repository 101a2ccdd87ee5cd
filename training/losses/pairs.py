"""Pairs within one batch: who shares a label, and how near two vectors lie, in full precision."""

import torch
from torch import Tensor

from training.losses.precision import full_precision


def same_label(labels: Tensor) -> Tensor:
    """Which pairs share a label: labels (N,) to (N, N) bool; each is its own partner on the diagonal."""
    return labels[:, None] == labels[None, :]


def inner_products(vectors: Tensor) -> Tensor:
    """All inner products of vectors (N, D): (N, N).

    Mixed precision would multiply in half precision whatever comes in, and what is compared here lies close
    together; so it is switched off for the product.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = full_precision(vectors)
        return vectors @ vectors.T


def distances(vectors: Tensor) -> Tensor:
    """All Euclidean distances between vectors (N, D): (N, N).

    Taken from the differences, not from inner products, which would lose the small distances that matter most.
    Where two vectors are the same the gradient is 0.
    """
    vectors = full_precision(vectors)
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
