"""SimOTA: which of the detector's points shall find which ground-truth box.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.1, as PaddleDetection's `SimOTAAssigner` does it for
PicoDet: classification cost by varifocal loss, box cost by GIoU. It looks at what the detector says at the moment, so
it is done anew for each picture and step, and no gradient goes through it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.overlap import overlap
from training.losses.precision import full_precision
from training.losses.varifocal import pairwise_varifocal

NO_BOX = -1
# The cost of a point that is not both inside a box and near its centre: above any other sum of costs.
OUTSIDE_COST = 1e8


@dataclass(frozen=True)
class SimOTA:
    """The assigner, with the settings of PicoDet's published configs.

    Points that may be assigned at all are those inside any box, or in the square around any box's centre. Each pair of
    such a point and a box costs classification_weight * varifocal loss + box_weight * (1 - GIoU), and 1e8 more where
    the point is not both inside that box and in its square. A box takes its k cheapest points, k being the sum of its
    n_candidates highest IoUs, cut to an integer, at least 1.

    A point that several boxes took goes to its cheapest box among all of the picture's, as upstream, which may be one
    that did not take it; a box may so end with no point. Equal costs are settled by order: the earlier point, the
    earlier box.

    Costs are added in float64. In upstream's float32 the 1e8 swallows the rest, so that for a box too small to hold a
    point any point near it was as good; here it gets the best.
    """

    centre_radius: float = 2.5  # half a side of the square around a centre, in strides of the point's level
    n_candidates: int = 10
    classification_weight: float = 1.0
    box_weight: float = 6.0

    @torch.no_grad()
    def assign(
        self,
        *,
        score_logits: Tensor,
        predicted_boxes: Tensor,
        points: Tensor,
        strides: Tensor,
        boxes: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Assign the points of one picture.

        Args:
            score_logits: (P, C), before the sigmoid.
            predicted_boxes: (P, 4) x1, y1, x2, y2, input pixels.
            points: (P, 2) x, y, input pixels.
            strides: (P,), input pixels.
            boxes: ground truth, (G, 4), input pixels, each of some area; G may be 0.
            labels: ground truth, (G,) int64 in 0..C-1.
        Returns:
            (P,) int64: the index of each point's box, or NO_BOX.
        """
        assigned = torch.full((len(points),), NO_BOX, dtype=torch.int64, device=points.device)
        inside, near_centre = self._where(points, strides, boxes)  # (P, G) each
        candidates = (inside | near_centre).any(dim=1).nonzero().squeeze(1)  # (M,)
        if len(candidates) == 0:  # no boxes, or none that a point lies in or near
            return assigned

        iou, generalised = overlap(
            full_precision(predicted_boxes)[candidates, None], boxes[None]
        )  # (M, G) each
        classification = pairwise_varifocal(full_precision(score_logits)[candidates], labels, iou)
        outside = ~(inside & near_centre)[candidates]
        cost = (
            self.classification_weight * classification.double()
            + self.box_weight * (1 - generalised.double())
            + OUTSIDE_COST * outside
        )

        highest = iou.topk(min(self.n_candidates, len(candidates)), dim=0).values  # (<= n_candidates, G)
        wanted = highest.sum(dim=0).long().clamp(min=1)  # (G,)
        rank = cost.argsort(dim=0, stable=True).argsort(dim=0)  # (M, G), 0 is the box's cheapest point
        taken = rank < wanted
        n_takers = taken.sum(dim=1)
        cheapest = cost.argsort(dim=1, stable=True)[:, 0]  # (M,)
        only_taker = taken.int().argmax(dim=1)
        box_of_candidate = torch.where(n_takers > 1, cheapest, only_taker)
        assigned[candidates] = torch.where(n_takers > 0, box_of_candidate, NO_BOX)
        return assigned

    def _where(self, points: Tensor, strides: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each point (P, 2) is inside each box, and in the square around its centre; borders are outside."""
        inside = ((points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])).all(dim=2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        reach = self.centre_radius * strides[:, None, None]
        near_centre = ((points[:, None] - centres[None]).abs() < reach).all(dim=2)
        return inside, near_centre
