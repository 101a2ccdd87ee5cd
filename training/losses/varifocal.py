"""Varifocal loss: of scores against targets, and of every point against every box, as the assigner's cost.

Zhang et al., "VarifocalNet: An IoU-aware Dense Object Detector", 2021, equation 2.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.losses.precision import full_precision

# The paper's alpha and gamma: how much negatives count, and how much less the easy ones among them do.
NEGATIVE_WEIGHT = 0.75
NEGATIVE_EXPONENT = 2.0


def varifocal(score_logits: Tensor, targets: Tensor) -> Tensor:
    """Varifocal loss, each value by itself.

    q BCE(p, q) where the target q is above 0, and alpha p^gamma BCE(p, 0) where it is 0, with p = sigmoid(logit),
    alpha = 0.75 and gamma = 2.

    Args:
        score_logits: any shape.
        targets: of that shape, 0 to 1; no gradient goes into them.
    Returns:
        Of that shape, at least 0.
    """
    score_logits, targets = full_precision(score_logits), full_precision(targets).detach()
    weight = torch.where(
        targets > 0, targets, NEGATIVE_WEIGHT * score_logits.sigmoid().pow(NEGATIVE_EXPONENT)
    )
    return weight * functional.binary_cross_entropy_with_logits(score_logits, targets, reduction="none")


def pairwise_varifocal(score_logits: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
    """What each point would pay, in varifocal loss over all classes, were each box its own.

    The target of a pair is the IoU at the box's label, and 0 at every other class, and so also at the label where the
    two do not overlap.

    Args:
        score_logits: (M, C).
        labels: (G,) int64.
        iou: (M, G).
    Returns:
        (M, G), at least 0.
    """
    share_to_negatives = NEGATIVE_WEIGHT * score_logits.sigmoid().pow(NEGATIVE_EXPONENT)
    as_negative = share_to_negatives * functional.softplus(score_logits)  # (M, C)
    own_logits = score_logits[:, labels]  # (M, G)
    as_positive = iou * functional.binary_cross_entropy_with_logits(own_logits, iou, reduction="none")
    own = torch.where(iou > 0, as_positive, as_negative[:, labels])
    others = as_negative.sum(dim=1, keepdim=True) - as_negative[:, labels]
    return others + own
