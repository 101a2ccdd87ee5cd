"""Searching a generation on trial: what queries whose product is known find in it, for a fit of thresholds.

The queries are the gallery's own pictures, each left out in turn, or pictures that a caller has embedded. They are
searched as the service searches: same strategy and settings, products that are not active left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.catalogue.models import Product, ProductState, ReferenceImage
from backend.gallery.loading import FETCHED_A_CALL, QUERIES_A_CALL, get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation
from recognition.calibration import Searched, gather_searched
from recognition.embedder import Embeddings
from recognition.gallery import Match, SearchSettings, embeddings_of

SAMPLE = 2_000
# The query's own product, the best of the others and the next: where the matches hold fewer products, twice as many
# matches are asked for, so many times.
PRODUCTS_WANTED = 3
SEARCH_ROUNDS = 5


@dataclass(frozen=True)
class Trial:
    """What queries found, and of which gallery.

    Attributes:
        searched: row by row; foreign products have ids below 0.
        n_embedded: the generation's entries, those of retired products too.
        n_without_pictures: active products with no picture embedded.
    """

    searched: Searched
    n_embedded: int
    n_without_pictures: int

    @property
    def n_alone(self) -> int:
        """Queries that are the only picture of their product: left out, they cannot find it."""
        return int((~self.searched.known & ~self.searched.foreign).sum())


@dataclass(frozen=True)
class Holding:
    """What a generation holds of active products.

    Attributes:
        product_of: of each embedded reference image.
        n_pictures: of each active product; 0 where none is embedded.
        n_embedded: as of Trial.
    """

    product_of: dict[int, int]
    n_pictures: dict[int, int]
    n_embedded: int

    def trial(self, searched: Searched) -> Trial:
        """The trial that found this."""
        return Trial(searched, self.n_embedded, list(self.n_pictures.values()).count(0))


def get_holding(generation: Generation) -> Holding:
    """What can be found in it now."""
    embedded = Embedding.objects.filter(generation=generation, state=EmbeddingState.EMBEDDED)
    product_of = dict(
        ReferenceImage.objects.filter(
            product__state=ProductState.ACTIVE, pk__in=embedded.values("reference_image_id")
        )
        .order_by("pk")
        .values_list("pk", "product_id")
    )
    active = Product.objects.filter(state=ProductState.ACTIVE).values_list("pk", flat=True)
    n_pictures = dict.fromkeys(active, 0)
    for product in product_of.values():
        n_pictures[product] = n_pictures.get(product, 0) + 1
    return Holding(product_of, n_pictures, embedded.count())


def leave_each_out(
    generation: Generation, how: SearchSettings, *, each: Callable[[], None] = lambda: None
) -> Trial:
    """Each embedded picture of an active product as the query, itself left out; of more than SAMPLE a random sample.

    Args:
        each: called after each search; what it raises ends the trial.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    holding = get_holding(generation)
    ids = list(holding.product_of)
    if len(ids) > SAMPLE:
        chosen = np.random.default_rng(0).choice(len(ids), SAMPLE, replace=False)
        ids = [ids[row] for row in sorted(chosen)]
    gallery = get_gallery(generation)
    products: list[int] = []
    found: list[list[Match]] = []
    for read in range(0, len(ids), FETCHED_A_CALL):
        fetched = gallery.fetch(ids[read : read + FETCHED_A_CALL])
        for start in range(0, len(fetched), QUERIES_A_CALL):
            entries = fetched[start : start + QUERIES_A_CALL]
            own = [{entry.reference_image_id} for entry in entries]
            found += _search(generation, how, holding, embeddings_of(entries), own)
            products += [holding.product_of[entry.reference_image_id] for entry in entries]
            each()
    product = np.array(products, np.int64)
    known = np.array([holding.n_pictures[one] > 1 for one in products], np.bool_)
    return holding.trial(_gather(found, product, known, np.zeros(len(product), np.bool_)))


def search_pictures(
    generation: Generation,
    how: SearchSettings,
    queries: Embeddings,
    skus: Sequence[str],
    sha256: Sequence[str],
) -> Trial:
    """Pictures from outside as queries of the generation. One that is a reference image itself does not find itself.

    Args:
        skus: of the product that each shows; one that is not active, or has no picture embedded, is foreign.
        sha256: of each picture's bytes.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    holding = get_holding(generation)
    ids = dict(Product.objects.filter(state=ProductState.ACTIVE, sku__in=set(skus)).values_list("sku", "pk"))
    foreign_ids = {sku: -2 - number for number, sku in enumerate(sorted(set(skus)))}
    product = np.array(
        [ids[sku] if holding.n_pictures.get(ids.get(sku, 0)) else foreign_ids[sku] for sku in skus], np.int64
    )
    same = ReferenceImage.objects.filter(sha256__in=set(sha256)).values_list("sha256", "product_id", "pk")
    own_of: dict[tuple[str, int], set[int]] = {}
    for digest, product_id, pk in same:
        own_of.setdefault((digest, product_id), set()).add(pk)
    own = [own_of.get(key, set()) for key in zip(sha256, product.tolist(), strict=True)]
    found: list[list[Match]] = []
    for start in range(0, len(queries), QUERIES_A_CALL):
        rows = slice(start, start + QUERIES_A_CALL)
        found += _search(generation, how, holding, queries.take(rows), own[rows])
    known = np.array(
        [
            holding.n_pictures.get(one, 0) > len(itself & holding.product_of.keys())
            for one, itself in zip(product.tolist(), own, strict=True)
        ],
        np.bool_,
    )
    return holding.trial(_gather(found, product, known, product < 0))


def _search(
    generation: Generation,
    how: SearchSettings,
    holding: Holding,
    queries: Embeddings,
    own: Sequence[set[int]],
) -> list[list[Match]]:
    """Of each query the matches of active products, its own pictures left out."""
    gallery = get_gallery(generation)
    kept: list[list[Match]] = [[] for _ in own]
    short = list(range(len(own)))
    limit = how.matches + 1  # the query itself is among them
    for _ in range(SEARCH_ROUNDS):
        found = gallery.search(queries.take(short), how, limit=limit)
        for row, matches in zip(short, found, strict=True):
            kept[row] = [
                match
                for match in matches
                if match.product_id in holding.n_pictures and match.reference_image_id not in own[row]
            ]
        short = [
            row
            for row, matches in zip(short, found, strict=True)
            if len(matches) >= limit and len({match.product_id for match in kept[row]}) < PRODUCTS_WANTED
        ]
        if not short:
            break
        limit *= 2
    return kept


def _gather(
    found: Sequence[Sequence[Match]],
    product: NDArray[np.int64],
    known: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
) -> Searched:
    # One wider than the longest: a row that is full would say that more lies behind it.
    wide = max(map(len, found), default=0) + 1
    products = np.full((len(found), wide), -1, np.int64)
    similarities = np.full((len(found), wide), -np.inf)
    for row, matches in enumerate(found):
        products[row, : len(matches)] = [match.product_id for match in matches]
        similarities[row, : len(matches)] = [match.similarity for match in matches]
    return gather_searched(products, similarities, product, known, foreign)
