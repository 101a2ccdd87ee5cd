"""What a search's answers are worth: strangers told from known queries, results under thresholds, the confidence.

Every figure is [value, low, high], low and high being the 95 % interval by drawing products anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.task import Task
from backend.gallery.models import ThresholdSet
from backend.gallery.thresholds import (
    FALSE_ACCEPTS,
    UNKNOWN_SHARE,
    Figure,
    describe_calibration,
    describe_results,
    get_confidence,
    get_thresholds,
)
from recognition.calibration import (
    Answers,
    HeldOut,
    Searched,
    cross_fit,
    gather_searched,
    join,
    judge,
    told_rate,
    weigh,
)
from recognition.gallery import Strategy
from recognition.metrics import (
    auroc,
    bootstrap_interval,
    false_positive_rate,
    identification_curve,
    identification_rate,
    risk_coverage,
)
from recognition.ranking import Confidence, Thresholds

QUERIES_AT_ONCE = 64
POINTS = 60  # of a curve
IDENTIFICATION_RATES = {"identification_at_1_percent": 0.01, "identification_at_01_percent": 0.001}


@dataclass(frozen=True)
class Judge:
    """By which thresholds answers are judged.

    Attributes:
        name: for people.
        thresholds: None: those cross-fitted to the queries themselves.
        confidence: of the threshold set; None where it has none, or cross-fitted where `thresholds` is.
    """

    name: str
    thresholds: Thresholds | None
    confidence: Confidence | None


# Judges each query by what was fitted to other products' queries.
CROSS_FITTED = Judge("cross-fitted", None, None)


def judge_of(threshold_set: ThresholdSet, task: Task) -> Judge:
    """A stored threshold set, its products by the task's numbers."""
    numbers = {sku: number for number, sku in enumerate(task.skus)}
    found = get_thresholds(threshold_set)
    own = {
        numbers[one["sku"]]: found.products[int(product)]
        for product, one in threshold_set.products.items()
        if one["sku"] in numbers
    }
    return Judge(
        f"threshold set {threshold_set.version}",
        Thresholds(found.recognised, found.margin, found.unknown, own),
        get_confidence(threshold_set),
    )


def get_searched(task: Task, found: NDArray[np.intp], strategy: Strategy) -> Searched:
    """What a line found, with its similarities.

    Args:
        found: (Q, K), rows of the gallery from the nearest on; -1 is none.
    """
    there = found >= 0
    similarities = np.full(found.shape, -np.inf)
    for start in range(0, len(found), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        similarities[rows] = np.where(there[rows], _similarities(task, rows, found[rows], strategy), -np.inf)
    stranger = ~task.known
    return gather_searched(
        np.where(there, task.gallery_products[found], -1).astype(np.int64),
        similarities,
        task.query_products.astype(np.int64),
        task.known,
        stranger,
    )


def _similarities(
    task: Task, rows: slice, found: NDArray[np.intp], strategy: Strategy
) -> NDArray[np.float64]:
    if strategy == "hash":
        codes = task.query.hash_codes[rows, None, :] ^ task.gallery.hash_codes[found]
        return 1 - 2 * np.bitwise_count(codes).sum(axis=2) / (8 * codes.shape[2])
    cosines: NDArray[np.float64] = np.einsum(
        "qd,qkd->qk", task.query.vectors[rows], task.gallery.vectors[found], dtype=np.float64
    )
    return cosines


def measure_open_set(searched: Searched) -> dict[str, Any] | None:
    """AUROC, false positive rate at 95 % true ones, and identification rates; None without strangers or known."""
    known, strangers = searched.answers_of_known(), searched.answers_of_strangers(foreign=True)
    if not len(known) or not len(strangers):
        return None
    both, n_known = join(known, strangers), len(known)

    def figure(of: Callable[[NDArray[np.intp], NDArray[np.intp]], float | None]) -> Figure | None:
        def drawn(rows: NDArray[np.intp]) -> float:
            first, second = rows[rows < n_known], rows[rows >= n_known]
            value = of(first, second) if len(first) and len(second) else None
            return np.nan if value is None else value

        value = drawn(np.arange(len(both)))
        if np.isnan(value):
            return None
        return [round(one, 5) for one in (value, *bootstrap_interval(drawn, both.product))]

    similarity, right = both.similarity, both.right
    rates, identified = identification_curve(known.similarity, known.right, strangers.similarity)
    return {
        "curve": _points(rates, identified),
        "auroc": figure(lambda first, second: auroc(similarity[first], similarity[second])),
        "fpr_at_95_tpr": figure(
            lambda first, second: false_positive_rate(similarity[first], similarity[second])
        ),
    } | {
        name: figure(
            lambda first, second, rate=rate: identification_rate(  # type: ignore[misc]
                similarity[first], right[first], similarity[second], rate
            )
        )
        for name, rate in IDENTIFICATION_RATES.items()
    }


def measure_answers(searched: Searched, by: Judge) -> dict[str, Any] | None:
    """Results and wrong accepts of known queries and of strangers, calibration, and the risk-coverage curve.

    Strangers are told twice: `left_out`, every query with its own product left out, and `strangers`, those that the
    gallery really lacks; null where there are none.
    """
    known = searched.answers_of_known()
    left_out, strangers = (searched.answers_of_strangers(foreign=foreign) for foreign in (False, True))
    if not len(known) or len(np.unique(known.product)) < 2:
        return None
    every_stranger = join(left_out, strangers)
    judged_known, judged = _judged(known, every_stranger, by)
    # A confidence is right for the share of strangers for which it was fitted.
    share = UNKNOWN_SHARE if by.confidence is None else by.confidence.unknown_share
    at_left_out, at_strangers = (
        HeldOut(judged.result[rows], judged.confidence[rows])
        for rows in (slice(len(left_out)), slice(len(left_out), None))
    )
    real, at_real = (strangers, at_strangers) if len(strangers) else (left_out, at_left_out)
    found = describe_results(known, left_out, judged_known, at_left_out)
    sure = by.thresholds is None or by.confidence is not None
    return {
        "thresholds": by.name
        if by.thresholds is not None
        else f"cross-fitted for a rate of {told_rate(len(known), len(every_stranger), FALSE_ACCEPTS):.2g}",
        "unknown_share": share,
        "known": found["known"],
        "left_out": found["strangers"],
        "strangers": describe_results(known, strangers, judged_known, at_strangers)["strangers"]
        if len(strangers)
        else None,
        "calibration": describe_calibration(known, real, judged_known, at_real, share) if sure else None,
        "risk_coverage": _risk_coverage(known, real, judged_known, at_real, sure, share),
    }


def _judged(known: Answers, strangers: Answers, by: Judge) -> tuple[HeldOut, HeldOut]:
    if by.thresholds is None:
        return cross_fit(
            known, strangers, told_rate(len(known), len(strangers), FALSE_ACCEPTS), UNKNOWN_SHARE
        )
    first, second = (
        HeldOut(
            judge(answers, by.thresholds),
            np.zeros(len(answers))
            if by.confidence is None
            else by.confidence.of(answers.similarity, answers.lead),
        )
        for answers in (known, strangers)
    )
    return first, second


def _risk_coverage(
    known: Answers,
    strangers: Answers,
    judged_known: HeldOut,
    judged_strangers: HeldOut,
    sure: bool,
    unknown_share: float,
) -> list[list[float]]:
    """Points of coverage and risk, where a share of the queries are strangers and the surest are answered first: by
    confidence, or by similarity where there is none."""
    both = join(known, strangers)
    confidence = np.concatenate([judged_known.confidence, judged_strangers.confidence])
    coverage, risk = risk_coverage(
        confidence if sure else both.similarity,
        both.right,
        np.concatenate(weigh(len(known), len(strangers), unknown_share)),
    )
    return _points(coverage, risk)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    """At most POINTS of a curve, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return [[round(float(x[one]), 4), round(float(y[one]), 4)] for one in chosen]
