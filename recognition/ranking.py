"""From matches to candidates, from candidates to a result, and the thresholds that tell results apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recognition.boxes import containment as containment_of
from recognition.boxes import pairwise_iou
from recognition.gallery import Match

# No similarity reaches it.
UNREACHABLE = 2.0

# Two boxes of one product are one item when they overlap by more than this (intersection over union), or when more
# than this share of the smaller one lies inside the larger. Measured on 43 photos of a table and a fridge: of 732
# pairs of neighbouring products none overlaps so much, of 53 pairs of boxes that PicoDet-S found over one product 58 %.
DOUBLE_IOU = 0.4
DOUBLE_CONTAINMENT = 0.8

# The leave-one-out fit: the share of answers called recognised that may be wrong, the share of known products that
# may be called unknown, and the fewest queries that such shares can be told from.
WRONG_SHARE = 0.01
UNKNOWN_SHARE = 0.01
MINIMUM_QUERIES = 30
MARGINS_TRIED = 101


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
    """

    recognised: float
    margin: float
    unknown: float

    def __post_init__(self) -> None:
        if not (self.unknown <= self.recognised and 0 <= self.margin < np.inf):
            raise ValueError(
                f"thresholds: found {self}, wanted unknown <= recognised and a margin of 0 or more."
            )

    @classmethod
    def cautious(cls) -> Self:
        """Nothing is recognised and nothing unknown: every answer needs confirmation."""
        return cls(recognised=UNREACHABLE, margin=0.0, unknown=-1.0)


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


def decide(candidates: Sequence[Candidate], thresholds: Thresholds) -> Result:
    """Judge one crop by its candidates, best first; the runner-up must be among them if there is one."""
    if not candidates or candidates[0].similarity < thresholds.unknown:
        return Result.UNKNOWN
    best = candidates[0].similarity
    leads = len(candidates) == 1 or best - candidates[1].similarity >= thresholds.margin
    return Result.RECOGNISED if best >= thresholds.recognised and leads else Result.NEEDS_CONFIRMATION


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


def fit_leave_one_out(
    right: NDArray[np.float64], wrong: NDArray[np.float64], runner_up: NDArray[np.float64]
) -> Thresholds:
    """Fit thresholds to a gallery alone, each of its pictures in turn being the query.

    Reference pictures are kinder than a checkout's, so the fit leans to asking. Similarity and margin are fitted
    together, for flavours that look alike are told by the lead, strangers by the similarity: of all pairs under which
    no more than WRONG_SHARE of the recognised are wrong, and no more than WRONG_SHARE of the queries would be
    recognised were their own product missing from the catalogue, the one that recognises most. `unknown` is what no
    more than UNKNOWN_SHARE of the known fall below.

    Args:
        right: (N,) similarity of each query's nearest picture of its own product, the query itself left out;
            -1 where there was none.
        wrong: (N,) of its nearest picture of another product; -1 where there was none.
        runner_up: (N,) of its nearest picture of a third product; -1 where there was none.
    Returns:
        Thresholds.cautious() where there are fewer than MINIMUM_QUERIES with right and wrong, or no such pair.
    """
    both = (right > -1) & (wrong > -1)
    right, wrong, runner_up = right[both], wrong[both], runner_up[both]
    if len(right) < MINIMUM_QUERIES:
        return Thresholds.cautious()
    best = np.maximum(right, wrong)
    lead = best - np.where(right > wrong, wrong, np.maximum(right, runner_up))
    is_wrong = wrong >= right
    stranger_lead = wrong - runner_up
    fitted, most = Thresholds.cautious(), 0
    for margin in np.unique(np.quantile(lead, np.linspace(0, 1, MARGINS_TRIED))):
        led = lead >= margin
        recognised = max(
            _least_for_strangers(wrong[stranger_lead >= margin], len(wrong)),
            _least_for_known(best[led], is_wrong[led]),
        )
        n = int((led & ~is_wrong & (best >= recognised)).sum())
        if n > most:
            unknown = float(np.quantile(right, UNKNOWN_SHARE, method="lower"))
            fitted, most = Thresholds(recognised, float(margin), min(unknown, recognised)), n
    return fitted


def _least_for_strangers(similarities: NDArray[np.float64], n_queries: int) -> float:
    """The least similarity that no more than WRONG_SHARE of the queries reach, of which only these lead enough."""
    allowed = int(WRONG_SHARE * n_queries)
    if len(similarities) <= allowed:
        return -1.0
    return float(np.nextafter(np.sort(similarities)[::-1][allowed], np.inf))


def _least_for_known(best: NDArray[np.float64], is_wrong: NDArray[np.bool_]) -> float:
    """The least similarity at which no more than WRONG_SHARE of those that reach it are wrong."""
    order = np.argsort(-best, kind="stable")
    reached = np.arange(1, len(best) + 1)
    good = np.cumsum(is_wrong[order]) <= WRONG_SHARE * reached
    # Equal similarities are reached together.
    good &= np.append(np.diff(best[order]) != 0, True)
    return float(best[order][good][-1]) if good.any() else UNREACHABLE
