"""How much two boxes overlap, for tensors that a gradient flows through: rows of x1, y1, x2, y2 in one unit."""

from typing import NamedTuple

import torch
from torch import Tensor

# Areas below count as this, in squared units of the boxes, so that nothing is divided by 0.
SMALLEST_AREA = 1e-6


class Overlap(NamedTuple):
    """Intersection over union (0 to 1), and the generalised one (above -1, to 1)."""

    iou: Tensor
    generalised: Tensor


def overlap(a: Tensor, b: Tensor) -> Overlap:
    """IoU, and GIoU (Rezatofighi et al. 2019, algorithm 1): IoU less the share of the enclosing box that neither fills.

    Args:
        a: (..., 4), x1 <= x2 and y1 <= y2.
        b: (..., 4), of a shape that goes with a's: `a[:, None]` and `b[None]` give all pairs.
    Returns:
        Both of the shape that a and b have together, without the 4. Two boxes without area have IoU 0.
    """
    shared_sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
        min=0
    )
    enclosing_sides = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared = shared_sides.prod(dim=-1)
    union = (_area(a) + _area(b) - shared).clamp(min=SMALLEST_AREA)
    enclosing = enclosing_sides.prod(dim=-1).clamp(min=SMALLEST_AREA)
    iou = shared / union
    return Overlap(iou, iou - (enclosing - union) / enclosing)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
