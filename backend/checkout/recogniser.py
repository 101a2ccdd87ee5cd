"""The process's ProductRecognizer for what is active now, and the recognition of one query image with it."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from backend.catalogue.models import ProductSet
from backend.catalogue.selectors import ActiveProduct, get_answerable_products, list_product_ids_of_set
from backend.common.problems import Problem
from backend.gallery.loading import forget_all_but, get_detector, get_embedder, get_gallery
from backend.gallery.models import Generation, InstalledModel, ThresholdSet
from backend.gallery.selectors import ActiveIds, get_active_ids, list_live_generations
from backend.gallery.thresholds import get_confidence, get_thresholds, search_settings
from recognition.errors import GalleryUnavailable
from recognition.pipeline import ImageRecognition, ItemRecognition, ProductRecognizer

# The photos that queue behind one for which Milvus kept silent do not each wait as long again.
SILENCE_REMEMBERED_SECONDS = 1.0
_milvus_silent_until = 0.0


@dataclass(frozen=True)
class InShadow:
    """What runs beside, on a share of the recognitions.

    Attributes:
        shadow: id of the Shadow.
        share: 0 to 1.
    """

    shadow: int
    share: float


@dataclass(frozen=True)
class Serving:
    """What answers: read once for a recognition, so that all its items see the same."""

    generation: Generation
    threshold_set: ThresholdSet | None
    detector: InstalledModel | None
    strategy: str
    in_shadow: InShadow | None = None


@dataclass(frozen=True)
class Found:
    """What was recognised in a query image, and the products that it names, as the catalogue held them then."""

    image: ImageRecognition
    products: Mapping[int, ActiveProduct]


def get_serving() -> Serving:
    """What is active now: one short query, and only what changed is read anew.

    Raises:
        Problem: 503, no generation is active.
    """
    active = get_active_ids(settings.SEARCH_STRATEGY)
    if active is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no-generation",
            "no embedder is active; an operator installs one with `manage.py install_model` and `activate_model`",
            retry_after=60,
        )
    return _serving(active, settings.SEARCH_STRATEGY)


@lru_cache(maxsize=2)
def _serving(active: ActiveIds, strategy: str) -> Serving:
    # Something came or went. What was made for a generation that is gone is given up; the rest is made again in no
    # time, for the models stay loaded.
    get_recogniser.cache_clear()
    forget_all_but(list_live_generations())
    return Serving(
        generation=Generation.objects.select_related("embedder").get(pk=active.generation),
        threshold_set=None
        if active.threshold_set is None
        else ThresholdSet.objects.get(pk=active.threshold_set),
        detector=None if active.detector is None else InstalledModel.objects.get(pk=active.detector),
        strategy=strategy,
        in_shadow=None
        if active.shadow is None or active.shadow_share is None
        else InShadow(active.shadow, active.shadow_share),
    )


@lru_cache(maxsize=2)
def get_recogniser(serving: Serving) -> ProductRecognizer:
    """The recogniser, made once a process for each combination that is active."""
    get_gallery(serving.generation).check()
    return _make_recogniser(serving)


def _make_recogniser(serving: Serving) -> ProductRecognizer:
    generation = serving.generation
    return ProductRecognizer(
        None if serving.detector is None else get_detector(serving.detector),
        get_embedder(generation.embedder),
        get_gallery(generation),
        get_thresholds(serving.threshold_set),
        search_settings(serving.strategy),
        crop_margin=generation.crop_margin,
        max_items=settings.MAX_ITEMS,
        longest_side=settings.DECODE_LONGEST_SIDE,
        confidence=get_confidence(serving.threshold_set),
    )


def recognise_image(
    serving: Serving, data: bytes, *, product_set: ProductSet | None = None, candidates: int = 5
) -> Found:
    """Recognise the products of a query image among those of the product set, or of the whole catalogue.

    Raises:
        ImageRefused, GalleryUnavailable, GalleryMismatch, ModelRefused: as the recogniser says.
    """
    with _within(product_set) as (products, among):
        image = get_recogniser(serving).recognize(data, **among, candidates=candidates)
    return Found(image, products)


def recognise_boxes(
    serving: Serving, data: bytes, boxes: NDArray[np.float32], *, product_set: ProductSet | None = None
) -> tuple[tuple[ItemRecognition, ...], Mapping[int, ActiveProduct]]:
    """Recognise what given boxes of a query image show, once and for all that it takes: nothing of it is kept ready.

    Args:
        boxes: (N, 4), in pixels of the upright query image.
    Returns:
        N items in the order of the boxes, and the products that they name.
    Raises:
        ImageRefused, GalleryUnavailable, GalleryMismatch, ModelRefused: as the recogniser says.
    """
    with _within(product_set) as (products, among):
        items = _make_recogniser(serving).recognize_boxes(data, boxes, **among)
    return items, products


@contextmanager
def _within(product_set: ProductSet | None) -> Iterator[tuple[Mapping[int, ActiveProduct], dict[str, Any]]]:
    """What may be answered, and what was: the products that were named, filled as they are asked for, and the arguments
    that tell the recogniser. A Milvus that keeps silent is remembered.
    """
    global _milvus_silent_until
    if time.monotonic() < _milvus_silent_until:
        raise GalleryUnavailable("Milvus did not answer a moment ago; retry")
    products: dict[int, ActiveProduct] = {}

    def keep(product_of: Mapping[int, int]) -> Collection[int]:
        """The pictures that PostgreSQL holds, of products that are active and in the set, whatever Milvus returned."""
        held = get_answerable_products(product_of.keys(), None if product_set is None else product_set.pk)
        held = {image: product for image, product in held.items() if product.id == product_of[image]}
        products.update((product.id, product) for product in held.values())
        return held

    product_ids: Sequence[int] | None = None if product_set is None else list_product_ids_of_set(product_set)
    try:
        yield products, {"keep": keep, "product_ids": product_ids}
    except GalleryUnavailable:
        _milvus_silent_until = time.monotonic() + SILENCE_REMEMBERED_SECONDS
        raise
