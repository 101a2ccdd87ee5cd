"""From matches to candidates, from candidates to a result and its confidence. What decides is fitted elsewhere
(`recognition.calibration`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recognition.boxes import containment as containment_of
from recognition.boxes import pairwise_iou
from recognition.gallery import Match

# No similarity reaches it, and none lies below.
UNREACHABLE = 2.0
LOWEST = -1.0

# Two boxes of one product are one item when they overlap by more than this (intersection over union), or when more
# than this share of the smaller one lies inside the larger. Measured on 43 photos of a table and a fridge: of 732
# pairs of neighbouring products none overlaps so much, of 53 pairs of boxes that PicoDet-S found over one product 58 %.
DOUBLE_IOU = 0.4
DOUBLE_CONTAINMENT = 0.8


@dataclass(frozen=True)
class Candidate:
    """One product that a crop may be.

    Attributes:
        product_id: of the product.
        similarity: of its best match; higher is nearer.
        matches: all of its matches among those found, best first.
    """

    product_id: int
    similarity: float
    matches: tuple[Match, ...]


class Result(StrEnum):
    """What is said of one box."""

    RECOGNISED = "recognised"
    NEEDS_CONFIRMATION = "needs_confirmation"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Thresholds:
    """What separates recognised, needs confirmation and unknown, in similarities of one generation and
    strategy.

    Attributes:
        recognised: the best candidate's similarity must reach it.
        margin: by so much it must lead the runner-up, 0 or more.
        unknown: below it the crop is none of the products.
        products: thresholds of their own that products have, by id; they hold in place of these where that product
            is the best candidate.
    """

    recognised: float
    margin: float
    unknown: float
    products: Mapping[int, "Thresholds"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.unknown <= self.recognised and 0 <= self.margin < np.inf):
            raise ValueError(
                f"thresholds: found {self}, wanted unknown <= recognised and a margin of 0 or more."
            )

    @classmethod
    def cautious(cls) -> Self:
        """Nothing is recognised and nothing unknown: every answer needs confirmation."""
        return cls(recognised=UNREACHABLE, margin=0.0, unknown=LOWEST)

    def of(self, product_id: int) -> "Thresholds":
        """Those that hold where this product is the best candidate."""
        return self.products.get(product_id, self)


@dataclass(frozen=True)
class Confidence:
    """The probability that the best candidate is what the crop shows, by a logistic model of similarity and lead.

    p = 1 / (1 + exp(-(intercept + similarity * s + lead * sqrt(l)))), s being the best candidate's similarity and l
    its lead (see `lead_of`). The root, for the first hundredths of a lead say the most (docs/decisions/0010).

    Attributes:
        intercept: any.
        similarity: weight, 0 or more, so that a nearer candidate is never less probable.
        lead: of its root, likewise.
        unknown_share: the share of crops that show none of the products, for which it was fitted, 0 to 1.
    """

    intercept: float
    similarity: float
    lead: float
    unknown_share: float

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.intercept)
            and 0 <= self.similarity < math.inf
            and 0 <= self.lead < math.inf
            and 0 <= self.unknown_share <= 1
        ):
            raise ValueError(
                f"confidence: found {self}, wanted finite numbers, weights of 0 or more and a share of 0 to 1."
            )

    def of(self, similarity: NDArray[np.float64], lead: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability, 0 to 1, for each similarity and lead; any shape."""
        logit = self.intercept + self.similarity * similarity + self.lead * np.sqrt(np.maximum(lead, 0))
        # exp of what is never positive, so that it cannot overflow.
        small = np.exp(-np.abs(logit))
        probability: NDArray[np.float64] = np.where(logit >= 0, 1, small) / (1 + small)
        return probability

    def of_candidates(self, candidates: Sequence[Candidate]) -> float | None:
        """The best candidate's probability; None without a runner-up, for it was fitted to answers that have a lead."""
        if len(candidates) < 2:
            return None
        similarity = np.float64(candidates[0].similarity)
        return float(self.of(np.asarray(similarity), np.asarray(lead_of(candidates))))


def gather_candidates(matches: Iterable[Match]) -> tuple[Candidate, ...]:
    """Gather one crop's matches by product.

    Args:
        matches: in any order.
    Returns:
        The best first; of equal ones that of the lower product id, so that an answer repeats itself.
    """
    by_product: dict[int, list[Match]] = {}
    for match in matches:
        by_product.setdefault(match.product_id, []).append(match)
    candidates = []
    for product_id, own in by_product.items():
        own.sort(key=lambda match: (-match.similarity, match.reference_image_id))
        candidates.append(Candidate(product_id, own[0].similarity, tuple(own)))
    candidates.sort(key=lambda candidate: (-candidate.similarity, candidate.product_id))
    return tuple(candidates)


def lead_of(candidates: Sequence[Candidate]) -> float:
    """By how much the best candidate is nearer than the runner-up, 0 to 2; without a runner-up, than LOWEST."""
    runner_up = candidates[1].similarity if len(candidates) > 1 else LOWEST
    return candidates[0].similarity - runner_up


def decide(candidates: Sequence[Candidate], thresholds: Thresholds) -> Result:
    """Judge one crop by its candidates, best first; the runner-up must be among them if there is one.

    The thresholds of the best candidate's product hold, where it has some of its own.
    """
    if not candidates:
        return Result.UNKNOWN
    best = candidates[0].similarity
    own = thresholds.of(candidates[0].product_id)
    if best < own.unknown:
        return Result.UNKNOWN
    leads = len(candidates) == 1 or lead_of(candidates) >= own.margin
    return Result.RECOGNISED if best >= own.recognised and leads else Result.NEEDS_CONFIRMATION


def suppress_doubles(
    boxes: NDArray[np.float32],
    product_ids: Sequence[int | None],
    similarities: Sequence[float],
    iou: float = DOUBLE_IOU,
    containment: float = DOUBLE_CONTAINMENT,
) -> list[int]:
    """Drop boxes that show an item which a better box of the same product already shows.

    PP-ShiTu suppresses after recognition too, but across products and at an IoU of 0.05, which loses products
    that stand close together.

    Args:
        boxes: (N, 4).
        product_ids: (N,) of the best candidates; None for a box without any, which doubles nothing.
        similarities: (N,) of the best candidates; of two doubles the more similar one stays.
        iou: see DOUBLE_IOU.
        containment: see DOUBLE_CONTAINMENT.
    Returns:
        Indices of the boxes to keep, rising.
    """
    inside = containment_of(boxes, boxes)
    doubled = (pairwise_iou(boxes, boxes) > iou) | (np.maximum(inside, inside.T) > containment)
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -similarities[i]):
        same = [k for k in kept if product_ids[k] is not None and product_ids[k] == product_ids[index]]
        if not doubled[index, same].any():
            kept.append(index)
    return sorted(kept)
