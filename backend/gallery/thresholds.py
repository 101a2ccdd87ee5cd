"""Threshold sets: what of a generation and strategy separates recognised, needs confirmation and unknown, and how sure
an answer is. Fitting itself is recognition's (`recognition.calibration`); here it gets its queries, says what it could
not use, and is stored with what was found out by cross-validation.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, cast

import numpy as np
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from numpy.typing import NDArray

from backend.catalogue.models import Product, ReferenceImage
from backend.common.problems import Problem
from backend.gallery.models import Generation, ThresholdSet
from backend.gallery.selectors import count_embedded, get_threshold_set
from backend.gallery.trials import Trial, leave_each_out
from recognition.calibration import (
    RESULTS,
    Answers,
    HeldOut,
    cross_fit,
    fewest_queries,
    fit_as_told,
    fit_confidence,
    told_rate,
    weigh,
)
from recognition.gallery import SearchSettings, Strategy
from recognition.metrics import bootstrap_interval, bootstrap_interval_of_mean, reliability
from recognition.ranking import Confidence, Result, Thresholds

FALSE_ACCEPTS = 0.01
UNKNOWN_SHARE = 0.1
# The sweep's own fit takes the best rate that its queries can tell, but not from fewer than these.
MINIMUM_QUERIES = 30
# A confidence from fewer says little.
CONFIDENCE_QUERIES = 100
# What was found out about a gallery holds until it has grown or shrunk by this share since.
REFIT_AT = 0.2

# Of the queries of a fit, whose pictures are remembered by the lowest SHA-256 of their bytes.
QUERIES_KEPT = 1_000

Figure = list[float]
"""A figure and its 95 % interval: value, low, high."""


def search_settings(strategy: str | None = None) -> SearchSettings:
    """How this deployment searches."""
    return SearchSettings(
        strategy=cast(Strategy, strategy or settings.SEARCH_STRATEGY),
        matches=settings.SEARCH_MATCHES,
        ef=settings.SEARCH_EF,
        nprobe=settings.SEARCH_NPROBE,
        rerank=settings.SEARCH_RERANK,
    )


def get_thresholds(threshold_set: ThresholdSet | None) -> Thresholds:
    """The set's thresholds; without a set nothing is recognised, only proposed."""
    if threshold_set is None:
        return Thresholds.cautious()
    own = {
        int(product): Thresholds(one["recognised"], one["margin"], one["unknown"])
        for product, one in threshold_set.products.items()
    }
    return Thresholds(threshold_set.recognised, threshold_set.margin, threshold_set.unknown, own)


def get_confidence(threshold_set: ThresholdSet | None) -> Confidence | None:
    """The set's model of the confidence, if one was fitted."""
    if threshold_set is None or threshold_set.confidence is None:
        return None
    return Confidence(**threshold_set.confidence)


@dataclass(frozen=True)
class Wanted:
    """What a fit is for.

    Attributes:
        false_accepts: the rate, 0 to 1: of strangers and of known queries alike, those recognised as a product that
            they do not show.
        unknown_share: of all items at the till, the share that shows no product of the gallery, 0 to 1.
        automatic: the sweep's own fit, which the sweep may replace; it takes what the data tells instead of refusing.
    """

    false_accepts: float = FALSE_ACCEPTS
    unknown_share: float = UNKNOWN_SHARE
    automatic: bool = False

    def __post_init__(self) -> None:
        for name in ("false_accepts", "unknown_share"):
            if not 0 < getattr(self, name) < 1:
                raise Problem(
                    HTTPStatus.BAD_REQUEST,
                    "invalid",
                    f"{name.replace('_', ' ')} is {getattr(self, name):g}; wanted more than 0 and less than 1, such as"
                    " 0.01 for one in a hundred",
                )


def fit_thresholds(
    generation: Generation,
    strategy: str,
    *,
    automatic: bool = False,
    false_accepts: float = FALSE_ACCEPTS,
    unknown_share: float = UNKNOWN_SHARE,
    each: Callable[[], None] = lambda: None,
) -> ThresholdSet:
    """Fit a new threshold set of a generation and strategy to the live catalogue, leaving one picture out at a time.

    Args:
        automatic, false_accepts, unknown_share: as of Wanted.
        each: as of leave_each_out.
    Raises:
        Problem: 400, the queries are too few for the rate.
        GalleryUnavailable: Milvus does not answer.
    """
    wanted = Wanted(false_accepts, unknown_share, automatic)
    trial = leave_each_out(generation, search_settings(strategy), each=each)
    return store_fit(generation, strategy, trial, wanted, method="leave one out", queries="live catalogue")


def store_fit(
    generation: Generation, strategy: str, trial: Trial, wanted: Wanted, **described: Any
) -> ThresholdSet:
    """Fit to what queries found, and store the set as the newest of its generation and strategy.

    Args:
        described: what the fit was made on, for its record; `query_sha256` of the queries, if they are a folder's.
    Raises:
        Problem: 400, the queries are too few for the rate, and the fit is not automatic.
    """
    known, strangers = trial.searched.answers_of_known(), trial.searched.answers_of_strangers()
    fewest = MINIMUM_QUERIES if wanted.automatic else fewest_queries(wanted.false_accepts)
    enough = min(len(known), len(strangers)) >= fewest and len(np.unique(known.product)) > 1
    if not enough and not wanted.automatic:
        raise _too_few(trial, known, strangers, wanted.false_accepts)
    record: dict[str, Any] = described | {
        "automatic": wanted.automatic,
        "n_embedded": trial.n_embedded,
        "n_queries": len(known),
        "n_products": len(np.unique(known.product)),
        "n_strangers": len(strangers),
        "n_of_unknown_sku": len(trial.searched.answers_of_strangers(foreign=True)),
        "n_alone": trial.n_alone,
        "n_without_pictures": trial.n_without_pictures,
        "rank_1": float(known.right.mean()) if len(known) else None,
    }
    thresholds, rate, confidence = Thresholds.cautious(), None, None
    if enough:
        rate = told_rate(len(known), len(strangers), wanted.false_accepts)
        thresholds = fit_as_told(known, strangers, rate)
        judged = cross_fit(known, strangers, rate, wanted.unknown_share)
        record["held_out"] = describe_results(known, strangers, *judged)
        if min(len(known), len(strangers)) >= CONFIDENCE_QUERIES:
            confidence = fit_confidence(known, strangers, wanted.unknown_share)
            record["calibration"] = describe_calibration(known, strangers, *judged, wanted.unknown_share)
    return _store(
        generation,
        strategy,
        recognised=thresholds.recognised,
        margin=thresholds.margin,
        unknown=thresholds.unknown,
        products=_with_skus(thresholds.products),
        false_accepts=rate,
        confidence=None if confidence is None else asdict(confidence),
        fit=record,
    )


def _too_few(trial: Trial, known: Answers, strangers: Answers, false_accepts: float) -> Problem:
    fewest = fewest_queries(false_accepts)
    found = min(len(known), len(strangers))
    missing = [
        f"{fewest - len(answers):,} more {what}"
        for answers, what in (
            (known, "pictures of products that have another picture in the gallery"),
            (strangers, "queries that meet another product than their own"),
        )
        if len(answers) < fewest
    ]
    if not missing:
        missing.append("pictures of a second product, since these all show one")
    alone = "".join(
        f" {n:,} {what}."
        for n, what in (
            (trial.n_alone, "are the only picture of their product: left out, they cannot find it"),
            (trial.n_without_pictures, "products have no picture in the gallery"),
        )
        if n
    )
    told = (
        f"--false-accepts {told_rate(found, found, 0):.2g} and more can be told from these" if found else ""
    )
    return Problem(
        HTTPStatus.BAD_REQUEST,
        "too-few-queries",
        f"found {len(known):,} known queries of {len(np.unique(known.product)):,} products and {len(strangers):,}"
        f" strangers; a rate of {false_accepts:g} takes {fewest:,} of each. Missing: {' and '.join(missing)}"
        f"{'; ' if told else ''}{told}.{alone}",
    )


def _with_skus(products: Any) -> dict[str, dict[str, Any]]:
    skus = dict(Product.objects.filter(pk__in=list(products)).values_list("pk", "sku"))
    return {
        str(product): {
            "sku": skus[product],
            "recognised": one.recognised,
            "margin": one.margin,
            "unknown": one.unknown,
        }
        for product, one in products.items()
        if product in skus
    }


# --- what cross-validation says ---------------------------------------------------------------------------
def describe_results(
    known: Answers, strangers: Answers, judged_known: HeldOut, judged_strangers: HeldOut
) -> dict[str, Any]:
    """Shares of the results, each with its interval: of known queries, and of strangers.

    `wrong_accepts` are those of all known queries that were recognised as another product, and those of all strangers
    that were recognised.
    """
    return {
        "known": _shares(judged_known.result, ~known.right, known.product),
        "strangers": _shares(judged_strangers.result, ~strangers.right, strangers.product),
    }


def _shares(
    result: NDArray[np.int8], wrong: NDArray[np.bool_], product: NDArray[np.int64]
) -> dict[str, Figure | None]:
    if not len(result):
        return dict.fromkeys([*(one.value for one in RESULTS), "wrong_accepts"])
    events = {one.value: result == number for number, one in enumerate(RESULTS)}
    events["wrong_accepts"] = events[Result.RECOGNISED.value] & wrong
    return {
        name: _rounded(of.mean(), *bootstrap_interval_of_mean(of.astype(np.float64), product))
        for name, of in events.items()
    }


def describe_calibration(
    known: Answers,
    strangers: Answers,
    judged_known: HeldOut,
    judged_strangers: HeldOut,
    unknown_share: float,
) -> dict[str, Any]:
    """The confidence's expected calibration error with its interval, and its reliability curve.

    Returns:
        `error`, and `bins` of confidence, accuracy and share of the answers.
    """
    confidence = np.concatenate([judged_known.confidence, judged_strangers.confidence])
    right = np.concatenate([known.right, strangers.right])
    weight = np.concatenate(weigh(len(known), len(strangers), unknown_share))
    product = np.concatenate([known.product, strangers.product])
    curve = reliability(confidence, right, weight)

    def error(rows: NDArray[np.intp]) -> float:
        return reliability(confidence[rows], right[rows], weight[rows]).error

    return {
        "error": _rounded(curve.error, *bootstrap_interval(error, product)),
        "bins": [
            [round(float(value), 4) for value in one]
            for one in zip(curve.confidence, curve.accuracy, curve.share, strict=True)
        ],
    }


def _rounded(*values: float) -> Figure:
    return [round(float(value), 5) for value in values]


def _store(generation: Generation, strategy: str, **values: Any) -> ThresholdSet:
    sets = ThresholdSet.objects.filter(generation=generation, strategy=strategy)
    while True:
        version = (sets.aggregate(newest=Max("version"))["newest"] or 0) + 1
        try:
            with transaction.atomic():
                return ThresholdSet.objects.create(
                    generation=generation, strategy=strategy, version=version, **values
                )
        except IntegrityError:
            continue  # another fit took this version


def was_fitted_on(threshold_set: ThresholdSet, query_sha256: Collection[str]) -> bool:
    """Whether pictures with these bytes were among the queries of a fit, so that judged by it they flatter it.

    Of a fit to more than QUERIES_KEPT queries, one of those that are remembered has to be among them. A fit to the live
    catalogue may have taken any of its pictures.
    """
    if "query_sha256" in threshold_set.fit:
        return not set(threshold_set.fit["query_sha256"]).isdisjoint(query_sha256)
    return ReferenceImage.objects.filter(sha256__in=query_sha256).exists()


def needs_fit(generation: Generation, strategy: str) -> bool:
    """Whether the sweep should fit: no set yet, or its own fit is of a gallery of another size."""
    n_embedded = count_embedded(generation)
    newest = get_threshold_set(generation, strategy)
    if newest is None:
        return n_embedded > 0
    if not newest.fit.get("automatic"):
        return False
    return has_changed(n_embedded, newest.fit["n_embedded"])


def has_changed(n_embedded: int, n_then: int) -> bool:
    """Whether a gallery is another than it was, by the number of its pictures: more than REFIT_AT of them."""
    return abs(n_embedded - n_then) > REFIT_AT * n_then
