"""Fitting a threshold set to a folder's queries: against the generation's own gallery, or against the folder's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.catalogue.models import Product, ProductState
from backend.evaluation.embedding import Crop, EmbeddedPictures, Over, embed_pictures
from backend.evaluation.evaluate import make_cropping
from backend.evaluation.open_set import get_searched
from backend.evaluation.pictures import Refusal, list_folder_pictures
from backend.evaluation.task import Task, nothing_to_measure, set_task
from backend.gallery.loading import get_embedder
from backend.gallery.models import Generation, ThresholdSet
from backend.gallery.thresholds import QUERIES_KEPT, Wanted, search_settings, store_fit
from backend.gallery.trials import PRODUCTS_WANTED, Trial, search_pictures
from recognition.calibration import Searched
from recognition.gallery import Strategy
from recognition.metrics import exact_hash_search, exact_search


@dataclass(frozen=True)
class FolderFit:
    """A fitted set, and what of the folder could not be used."""

    threshold_set: ThresholdSet
    refused: Sequence[Refusal]


@dataclass(frozen=True)
class FitFolder:
    """What a fit reads.

    Attributes:
        query_file: in the folder.
        gallery_file: in the folder; None for the generation's own gallery.
    """

    folder: Path
    query_file: str
    gallery_file: str | None
    crop: Crop


def fit_to_folder(
    generation: Generation, strategy: Strategy, wanted: Wanted, source: FitFolder, over: Over[Any]
) -> FolderFit:
    """Fit and store a threshold set.

    Args:
        over: walks over the steps of a stage, and may show how far it is.
    Raises:
        Problem: 400, a file is missing, or the queries are too few for the rate.
        GalleryUnavailable: Milvus does not answer.
    """
    refused: list[Refusal] = []
    embedder = get_embedder(generation.embedder)
    cropping = make_cropping(embedder, source.crop)

    def embedded(stage: str, file: str) -> EmbeddedPictures:
        pictures = list_folder_pictures(source.folder, file, refused)
        return embed_pictures(stage, pictures, embedder, cropping, refused, over)

    query = embedded("embedding the queries", source.query_file)
    if not len(query):
        raise nothing_to_measure("no query could be embedded", refused)
    if source.gallery_file is None:
        trial = search_pictures(
            generation,
            search_settings(strategy),
            query.embeddings,
            [one.sku for one in query.pictures],
            query.sha256,
        )
        against = "the generation's"
    else:
        gallery = (
            query
            if source.gallery_file == source.query_file
            else embedded("embedding the gallery", source.gallery_file)
        )
        task = set_task(gallery, query, refused)
        shown = {picture.sku for picture in gallery.pictures}
        lacking = Product.objects.filter(state=ProductState.ACTIVE).exclude(sku__in=shown)
        trial = Trial(_search_exactly(task, strategy), len(task.gallery), n_without_pictures=lacking.count())
        against = _named(source, source.gallery_file)
    threshold_set = store_fit(
        generation,
        strategy,
        trial,
        wanted,
        method="queries of a folder",
        queries=_named(source, source.query_file),
        query_sha256=sorted(query.sha256)[:QUERIES_KEPT],
        gallery=against,
    )
    return FolderFit(threshold_set, refused)


def _named(source: FitFolder, file: str) -> str:
    return f"{source.folder.resolve().name}/{file}"


def _search_exactly(task: Task, strategy: Strategy) -> Searched:
    """What the strategy finds where nothing is approximate, products by their ids in the catalogue."""
    counts = np.sort(np.bincount(task.gallery_products))[::-1]
    # So many pictures that the products wanted are among them, even behind the largest of them, and the query's own.
    depth = int(counts[: PRODUCTS_WANTED - 1].sum()) + 2
    if strategy == "float":
        found, _ = exact_search(task.query.vectors, task.gallery.vectors, depth, task.own)
    else:
        wanted = depth if strategy == "hash" else max(depth, search_settings(strategy).rerank)
        found, _ = exact_hash_search(task.query.hash_codes, task.gallery.hash_codes, wanted, task.own)
    if strategy == "hash_rerank":
        found = _reranked(task, found)
    return _with_catalogue_ids(get_searched(task, found, strategy), task)


def _reranked(task: Task, found: NDArray[np.intp]) -> NDArray[np.intp]:
    ordered = np.empty_like(found)
    for row, rows in enumerate(found):
        cosines = np.where(rows >= 0, task.gallery.vectors[rows] @ task.query.vectors[row], -np.inf)
        ordered[row] = rows[np.argsort(-cosines, kind="stable")]
    return ordered


def _with_catalogue_ids(searched: Searched, task: Task) -> Searched:
    ids = dict(Product.objects.filter(sku__in=task.skus).values_list("sku", "pk"))
    # A product that the catalogue lacks has a number below 0, and no thresholds of its own.
    of_number = np.array([ids.get(sku, -2 - number) for number, sku in enumerate(task.skus)], np.int64)
    return Searched(
        product=of_number[searched.product],
        known=searched.known,
        foreign=searched.foreign,
        right=searched.right,
        wrong=searched.wrong,
        wrong_product=np.where(searched.wrong_product >= 0, of_number[searched.wrong_product], -1),
        runner_up=searched.runner_up,
    )
