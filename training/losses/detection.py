"""PicoDet's loss: varifocal on the scores, GIoU and distribution focal loss on the boxes.

As PaddleDetection trains PicoDet before its version 2 (`PicoHead` on `OTAVFLHead.get_loss`, with the weights of
`picodet_lcnet_x2_5_640_mainbody.yml`): SimOTA assigns, and each term has a norm of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.losses.overlap import overlap
from training.losses.precision import full_precision
from training.losses.sim_ota import NO_BOX, SimOTA
from training.losses.varifocal import varifocal
from training.models.picodet import BINS, REG_MAX, SIDES, LevelOutput, cell_centres, decode

# Distances are cut off this much below the last bin, so that the bin right of each still exists.
LAST_BIN_MARGIN = 0.1


def distribution_focal(distribution_logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss (Li et al., "Generalized Focal Loss", 2020, equation 6), each distance by itself.

    The cross-entropies to the bins left and right of the distance, each weighted by how near its bin is.

    Args:
        distribution_logits: (..., B), B bins for the distances 0 to B - 1.
        distances: (...), in bins, 0 to below B - 1.
    Returns:
        (...), at least 0.
    """
    log_shares = full_precision(distribution_logits).log_softmax(dim=-1)
    left = distances.long()
    share_right = distances - left
    at_left = log_shares.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    at_right = log_shares.gather(-1, (left + 1).unsqueeze(-1)).squeeze(-1)
    return -((1 - share_right) * at_left + share_right * at_right)


class Points(NamedTuple):
    """What the detector says of N pictures at P points, all levels' cells one after the other, row by row.

    Attributes:
        score_logits: (N, P, C).
        distribution_logits: (N, P, 4, BINS), the sides in the order left, top, right, bottom.
        boxes: decoded, (N, P, 4) x1, y1, x2, y2, input pixels.
        scores: (N, P, C) in 0..1.
        centres: (P, 2) x, y, input pixels.
        strides: (P,), input pixels.
    """

    score_logits: Tensor
    distribution_logits: Tensor
    boxes: Tensor
    scores: Tensor
    centres: Tensor
    strides: Tensor


def as_points(levels: Sequence[LevelOutput]) -> Points:
    """Lay the levels side by side, in full precision."""
    levels = [
        LevelOutput(full_precision(level.scores), full_precision(level.distributions), level.stride)
        for level in levels
    ]
    device = levels[0].scores.device
    with torch.autocast(device.type, enabled=False):
        boxes, scores = decode(levels)
    centres, strides = [], []
    for level in levels:
        height, width = level.scores.shape[2:]
        centres.append(cell_centres(height, width, device) * level.stride)  # (H * W, 2)
        strides.append(torch.full_like(centres[-1][:, 0], level.stride))  # (H * W,)
    distribution_logits = _side_by_side([level.distributions for level in levels])  # (N, P, 4 * BINS)
    return Points(
        score_logits=_side_by_side([level.scores for level in levels]),
        distribution_logits=distribution_logits.reshape(*distribution_logits.shape[:2], SIDES, BINS),
        boxes=boxes,
        scores=scores,
        centres=torch.cat(centres),
        strides=torch.cat(strides),
    )


def _side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """Maps (N, C, H, W) of each level to (N, P, C)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


class DetectionLosses(NamedTuple):
    """The terms, weighted; scalars. `total` is what is minimised, the others are for the log."""

    total: Tensor
    varifocal: Tensor
    generalised_iou: Tensor
    distribution_focal: Tensor


class PicoDetLoss(nn.Module):
    """PicoDet's whole loss over a batch.

    With w of an assigned point its highest score over classes (after the sigmoid, as a constant):

        varifocal_weight * sum over points and classes of the varifocal loss / max(1, assigned points)
        + generalised_iou_weight * sum over assigned points of w (1 - GIoU) / max(1, sum of w)
        + distribution_focal_weight * sum over assigned points of w (mean of the four sides' DFL) / max(1, sum of w)

    The varifocal target of an assigned point is the IoU of its own box with its ground truth, at the label. DFL wants
    the sides' distances in strides, cut to 0..6.9 for 8 bins. Both norms are means over processes, so that each
    process' gradient, averaged by the trainer, is that of one large batch.

    Upstream means to average the count of points likewise, but asks it of a Python number, fails, and takes each
    process' own count: with several processes the scale of the first term differs from upstream's by how much their
    counts do.

    Args:
        assigner: who assigns points to boxes.
        varifocal_weight, generalised_iou_weight, distribution_focal_weight: of the three terms.
        mean_over_processes: takes a tensor of this process and gives its mean over all; the tensor itself where there
            is one process.
    """

    def __init__(
        self,
        *,
        assigner: SimOTA | None = None,
        varifocal_weight: float = 1.0,
        generalised_iou_weight: float = 2.0,
        distribution_focal_weight: float = 0.25,
        mean_over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.assigner = assigner or SimOTA()
        self.varifocal_weight = varifocal_weight
        self.generalised_iou_weight = generalised_iou_weight
        self.distribution_focal_weight = distribution_focal_weight
        self.mean_over_processes = mean_over_processes or (lambda tensor: tensor)

    def forward(
        self, levels: Sequence[LevelOutput], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> DetectionLosses:
        """The loss of a batch.

        Args:
            levels: what the detector gave for N pictures.
            boxes: of each picture, (G, 4) x1, y1, x2, y2, input pixels, each of some area; G may be 0.
            labels: of each picture, (G,) int64 in 0..C-1.
        Returns:
            The weighted terms.
        """
        points = as_points(levels)
        assigned = self._assign(points, boxes, labels)  # (N, P)
        pictures, places = (assigned != NO_BOX).nonzero(as_tuple=True)  # (A,) each, for A assigned points
        wanted_boxes, wanted_labels = self._wanted(assigned, boxes, labels, pictures)  # (A, 4), (A,)

        iou, generalised = overlap(points.boxes[pictures, places], wanted_boxes)  # (A,) each
        targets = torch.zeros_like(points.score_logits)
        targets[pictures, places, wanted_labels] = iou.detach()
        weight = points.scores.detach().amax(dim=2)[pictures, places]  # (A,)
        norms = torch.stack((weight.new_tensor(float(len(weight))), weight.sum()))
        n_assigned, sum_of_weights = self.mean_over_processes(norms).clamp(min=1)

        sides = self._wanted_distances(points, places, wanted_boxes)  # (A, 4)
        side_losses = distribution_focal(points.distribution_logits[pictures, places], sides)  # (A, 4)
        varifocal_term = varifocal(points.score_logits, targets).sum() / n_assigned
        giou_term = (weight * (1 - generalised)).sum() / sum_of_weights
        distribution_term = (weight * side_losses.mean(dim=1)).sum() / sum_of_weights
        terms = (
            self.varifocal_weight * varifocal_term,
            self.generalised_iou_weight * giou_term,
            self.distribution_focal_weight * distribution_term,
        )
        return DetectionLosses(terms[0] + terms[1] + terms[2], *terms)

    def _assign(self, points: Points, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """(N, P) int64: of each point the index of its picture's box, or NO_BOX."""
        return torch.stack(
            [
                self.assigner.assign(
                    score_logits=score_logits,
                    predicted_boxes=predicted_boxes,
                    points=points.centres,
                    strides=points.strides,
                    boxes=boxes_of_picture,
                    labels=labels_of_picture,
                )
                for score_logits, predicted_boxes, boxes_of_picture, labels_of_picture in zip(
                    points.score_logits.detach(), points.boxes.detach(), boxes, labels, strict=True
                )
            ]
        )

    @staticmethod
    def _wanted(
        assigned: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], pictures: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ground-truth boxes (A, 4) and labels (A,) of the assigned points, in their order."""
        n_before = torch.tensor([0, *(len(of_picture) for of_picture in boxes[:-1])]).cumsum(0)
        rows = assigned[assigned != NO_BOX] + n_before.to(assigned.device)[pictures]
        return torch.cat(list(boxes))[rows], torch.cat(list(labels))[rows]

    @staticmethod
    def _wanted_distances(points: Points, places: Tensor, wanted_boxes: Tensor) -> Tensor:
        """(A, 4) distances from assigned points to their boxes' sides, in strides, cut to what the bins hold."""
        centres, strides = points.centres[places], points.strides[places]
        distances = torch.cat((centres - wanted_boxes[:, :2], wanted_boxes[:, 2:] - centres), dim=1)
        return (distances / strides[:, None]).clamp(min=0, max=REG_MAX - LAST_BIN_MARGIN)
