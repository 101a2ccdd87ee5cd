"""Fitting what separates recognised, needs confirmation and unknown: here the simple, conservative way.

Leave one out: each reference picture in turn is the query, itself excluded; the nearest picture of its own product
and the nearest of another tell how far apart right and wrong lie.
"""

from typing import cast

import numpy as np
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from numpy.typing import NDArray

from backend.gallery.loading import get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation, ThresholdSet
from backend.gallery.selectors import get_threshold_set
from recognition.embedder import Embeddings
from recognition.gallery import SearchSettings, Strategy
from recognition.ranking import Thresholds, fit_leave_one_out, gather_candidates

SAMPLE = 2_000
SEARCH_BATCH = 10  # queries a call: each call has no longer than a photo's
# An automatic fit is made again when the gallery has grown or shrunk by this share since the last.
REFIT_AT = 0.2


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
    return Thresholds(threshold_set.recognised, threshold_set.margin, threshold_set.unknown)


def fit_thresholds(generation: Generation, strategy: str, *, automatic: bool = False) -> ThresholdSet:
    """Fit and store a new threshold set of a generation and strategy.

    Args:
        automatic: the sweep's own fit, which the sweep may replace; a person's stays.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    ids = list(
        Embedding.objects.filter(generation=generation, state=EmbeddingState.EMBEDDED)
        .order_by("reference_image_id")
        .values_list("reference_image_id", flat=True)
    )
    n_embedded = len(ids)
    if n_embedded > SAMPLE:
        ids = [int(pk) for pk in np.random.default_rng(0).choice(ids, SAMPLE, replace=False)]
    right, wrong, runner_up = _leave_one_out(generation, search_settings(strategy), ids)
    thresholds = fit_leave_one_out(right, wrong, runner_up)
    fit = {
        "method": "leave one out",
        "automatic": automatic,
        "n_embedded": n_embedded,
        "n_queries": len(right),
        "rank_1": float(np.mean(right > wrong)) if len(right) else None,
    }
    return _store(generation, strategy, thresholds, fit)


def _leave_one_out(
    generation: Generation, how: SearchSettings, ids: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What each of `ids` finds when its picture is the query, itself left out.

    Returns:
        Similarities of the nearest right product, of the nearest wrong one and of the next wrong one, each (N,);
        -1 where a query's matches held none.
    """
    gallery = get_gallery(generation)
    found = []
    for start in range(0, len(ids), SEARCH_BATCH):
        entries = gallery.fetch(ids[start : start + SEARCH_BATCH])
        if not entries:
            continue
        queries = Embeddings(
            np.stack([entry.vector for entry in entries]), np.stack([entry.hash_code for entry in entries])
        )
        for entry, matches in zip(entries, gallery.search(queries, how), strict=True):
            others = [match for match in matches if match.reference_image_id != entry.reference_image_id]
            candidates = gather_candidates(others)
            own = [one.similarity for one in candidates if one.product_id == entry.product_id]
            other = [one.similarity for one in candidates if one.product_id != entry.product_id]
            found.append([[*own, -1.0][0], *[*other, -1.0, -1.0][:2]])
    right, wrong, runner_up = np.array(found, np.float64).reshape(-1, 3).T
    return right, wrong, runner_up


def _store(
    generation: Generation, strategy: str, thresholds: Thresholds, fit: dict[str, object]
) -> ThresholdSet:
    sets = ThresholdSet.objects.filter(generation=generation, strategy=strategy)
    while True:
        version = (sets.aggregate(newest=Max("version"))["newest"] or 0) + 1
        try:
            with transaction.atomic():
                return ThresholdSet.objects.create(
                    generation=generation,
                    strategy=strategy,
                    version=version,
                    recognised=thresholds.recognised,
                    margin=thresholds.margin,
                    unknown=thresholds.unknown,
                    fit=fit,
                )
        except IntegrityError:
            continue  # another fit took this version


def needs_fit(generation: Generation, strategy: str) -> bool:
    """Whether the sweep should fit: no set yet, or its own fit is of a gallery of another size."""
    n_embedded = Embedding.objects.filter(generation=generation, state=EmbeddingState.EMBEDDED).count()
    newest = get_threshold_set(generation, strategy)
    if newest is None:
        return n_embedded > 0
    if not newest.fit.get("automatic"):
        return False
    fitted_on = newest.fit["n_embedded"]
    return abs(n_embedded - fitted_on) > REFIT_AT * fitted_on
