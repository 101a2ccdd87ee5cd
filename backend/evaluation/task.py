"""What is asked of the gallery: queries that have a right answer, and what that answer is."""

from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from backend.common.problems import Problem
from backend.evaluation.embedding import EmbeddedPictures
from backend.evaluation.pictures import Refusal
from recognition.embedder import Embeddings

REASONS_SHOWN = 3


@dataclass(frozen=True)
class Task:
    """N pictures in the gallery and Q queries, each with a right answer among them.

    Attributes:
        gallery, query: embeddings.
        gallery_products, query_products: (N,) and (Q,), the product that each shows, as a number.
        own: (Q,), the row of the query itself in the gallery, or -1.
    """

    gallery: Embeddings
    query: Embeddings
    gallery_products: NDArray[np.intp]
    query_products: NDArray[np.intp]
    own: NDArray[np.intp]

    def one(self, row: int) -> Embeddings:
        """A query's embedding alone."""
        rows = slice(row, row + 1)
        return Embeddings(self.query.vectors[rows], self.query.hash_codes[rows])

    def n_right(self) -> NDArray[np.intp]:
        """(Q,): pictures in the gallery that show the query's product, itself not counted."""
        return _n_others(self.gallery_products, self.query_products, self.own)


def nothing_to_measure(why: str, refused: list[Refusal] | None = None) -> Problem:
    """The error that ends an evaluation before it starts, with the first reasons."""
    named = [f"{one.file}:{one.row}: {one.reason}" for one in (refused or [])[:REASONS_SHOWN]]
    because = f" ({len(refused):,} refused: {'; '.join(named)})" if refused else ""
    return Problem(HTTPStatus.BAD_REQUEST, "nothing-to-measure", f"nothing can be measured: {why}{because}")


def set_task(gallery: EmbeddedPictures, query: EmbeddedPictures, refused: list[Refusal]) -> Task:
    """Number the products and find each query in the gallery; queries without a right answer join `refused`.

    Raises:
        Problem: 400, the gallery is empty or no query is left.
    """
    if not len(gallery):
        raise nothing_to_measure("no picture of the gallery could be embedded", refused)
    products = {sku: number for number, sku in enumerate(sorted({one.sku for one in gallery.pictures}))}
    row_of = {key: row for row, key in enumerate(gallery.keys)}
    gallery_products = np.array([products[one.sku] for one in gallery.pictures], np.intp)
    query_products = np.array([products.get(one.sku, len(products)) for one in query.pictures], np.intp)
    own = np.array([row_of.get(key, -1) for key in query.keys], np.intp)
    n_right = _n_others(gallery_products, query_products, own)
    for row in np.flatnonzero(n_right == 0):
        picture = query.pictures[row]
        refused.append(Refusal.of(picture, f"the gallery has no other picture of product {picture.sku}"))
    kept = np.flatnonzero(n_right)
    if not len(kept):
        raise nothing_to_measure("no query has a right answer in the gallery", refused)
    embeddings = Embeddings(query.embeddings.vectors[kept], query.embeddings.hash_codes[kept])
    return Task(gallery.embeddings, embeddings, gallery_products, query_products[kept], own[kept])


def _n_others(
    gallery_products: NDArray[np.intp], query_products: NDArray[np.intp], own: NDArray[np.intp]
) -> NDArray[np.intp]:
    # One longer than there are products: a query may show one that the gallery lacks.
    counts = np.bincount(gallery_products, minlength=gallery_products.max() + 2)
    others: NDArray[np.intp] = counts[query_products] - (own >= 0)
    return others
