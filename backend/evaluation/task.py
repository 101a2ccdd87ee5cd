"""What is asked of the gallery: queries, the right answer to each, and those to which there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from backend.common.problems import Problem
from backend.evaluation.embedding import EmbeddedPictures
from backend.evaluation.pictures import Refusal
from recognition.embedder import Embeddings

REASONS_SHOWN = 3


@dataclass(frozen=True)
class OpenSet:
    """Which products are held out of the gallery, so that their queries show what it lacks.

    Attributes:
        share: of the products that have queries, more than 0 and less than 1.
        seed: of the choice.
    """

    share: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise nothing_to_measure(
                f"--open-set is {self.share:g}; wanted a share of more than 0 and less than 1, such as 0.2"
            )
        if self.seed < 0:
            raise nothing_to_measure(f"--seed is {self.seed}; wanted 0 or more")

    def choose(self, skus: list[str]) -> set[str]:
        """The products to hold out: one at least, and two at least stay."""
        n = min(max(1, round(self.share * len(skus))), len(skus) - 2)
        if n < 1:
            raise nothing_to_measure(f"--open-set takes three products with queries; found {len(skus)}")
        return set(np.random.default_rng(self.seed).choice(sorted(skus), n, replace=False).tolist())


@dataclass(frozen=True)
class Task:
    """N pictures in the gallery and Q queries.

    Attributes:
        gallery, query: embeddings.
        skus: of the products, in the order of their numbers; the gallery's first, then what it lacks.
        gallery_products, query_products: (N,) and (Q,), the product that each shows, as a number.
        own: (Q, W), the rows of the gallery that a query must not find: itself, and pictures of its sequence; -1 is
            none.
        known: (Q,), whether the gallery has a right answer; to strangers it has none.
        held_out: SKUs of products that were held out of the gallery.
        gallery_rows, query_rows: (N,) and (Q,), which of the embedded pictures each is.
    """

    gallery: Embeddings
    query: Embeddings
    skus: tuple[str, ...]
    gallery_products: NDArray[np.intp]
    query_products: NDArray[np.intp]
    own: NDArray[np.intp]
    known: NDArray[np.bool_]
    held_out: frozenset[str]
    gallery_rows: NDArray[np.intp]
    query_rows: NDArray[np.intp]

    def one(self, row: int) -> Embeddings:
        """A query's embedding alone."""
        return self.query.take([row])

    def n_right(self) -> NDArray[np.intp]:
        """(Q,): pictures in the gallery that show the query's product, itself not counted."""
        return _n_others(self.gallery_products, self.query_products, self.own)

    def of_known(self) -> "Task":
        """The same gallery, asked the known queries alone."""
        rows = np.flatnonzero(self.known)
        return replace(
            self,
            query=self.query.take(rows),
            query_products=self.query_products[rows],
            own=self.own[rows],
            known=self.known[rows],
            query_rows=self.query_rows[rows],
        )


def nothing_to_measure(why: str, refused: list[Refusal] | None = None) -> Problem:
    """The error that ends an evaluation before it starts, with the first reasons."""
    named = [f"{one.file}:{one.row}: {one.reason}" for one in (refused or [])[:REASONS_SHOWN]]
    because = f" ({len(refused):,} refused: {'; '.join(named)})" if refused else ""
    return Problem(HTTPStatus.BAD_REQUEST, "nothing-to-measure", f"nothing can be measured: {why}{because}")


def set_task(
    gallery: EmbeddedPictures,
    query: EmbeddedPictures,
    refused: list[Refusal],
    open_set: OpenSet | None = None,
) -> Task:
    """Number the products and find each query in the gallery.

    A query of a product that the gallery lacks is a stranger. One that is the only picture of its product is neither,
    and joins `refused`: left out, it leaves nothing to find.

    Args:
        open_set: hold products out of the gallery.
    Raises:
        Problem: 400, the gallery is empty or no query is left.
    """
    if not len(gallery):
        raise nothing_to_measure("no picture of the gallery could be embedded", refused)
    held_out = set() if open_set is None else open_set.choose(_skus_in_both(gallery, query))
    gallery_rows = np.flatnonzero([one.sku not in held_out for one in gallery.pictures])
    inside = sorted({gallery.pictures[row].sku for row in gallery_rows})
    outside = sorted({one.sku for one in query.pictures} - set(inside))
    skus = (*inside, *outside)
    number_of = {sku: number for number, sku in enumerate(skus)}
    row_of = {gallery.keys[row]: place for place, row in enumerate(gallery_rows)}
    gallery_products = np.array([number_of[gallery.pictures[row].sku] for row in gallery_rows], np.intp)
    query_products = np.array([number_of[one.sku] for one in query.pictures], np.intp)
    own = _own_rows(gallery, query, row_of)
    known = _n_others(gallery_products, query_products, own) > 0
    stranger = query_products >= len(inside)
    for row in np.flatnonzero(~known & ~stranger):
        picture = query.pictures[row]
        of_others = "no other picture" if not picture.sequence else "no picture of another sequence"
        refused.append(Refusal.of(picture, f"the gallery has {of_others} of product {picture.sku}"))
    kept = np.flatnonzero(known | stranger)
    if not known.any():
        raise nothing_to_measure("no query has a right answer in the gallery", refused)
    return Task(
        gallery=gallery.embeddings.take(gallery_rows),
        query=query.embeddings.take(kept),
        skus=skus,
        gallery_products=gallery_products,
        query_products=query_products[kept],
        own=own[kept],
        known=known[kept],
        held_out=frozenset(held_out),
        gallery_rows=gallery_rows,
        query_rows=kept,
    )


def _skus_in_both(gallery: EmbeddedPictures, query: EmbeddedPictures) -> list[str]:
    return sorted({one.sku for one in gallery.pictures} & {one.sku for one in query.pictures})


def _n_others(
    gallery_products: NDArray[np.intp], query_products: NDArray[np.intp], own: NDArray[np.intp]
) -> NDArray[np.intp]:
    longest = max(gallery_products.max(), query_products.max(initial=0)) + 1
    counts = np.bincount(gallery_products, minlength=longest)
    others: NDArray[np.intp] = counts[query_products] - (own >= 0).sum(axis=1)
    return others


def _own_rows(
    gallery: EmbeddedPictures, query: EmbeddedPictures, row_of: Mapping[str, int]
) -> NDArray[np.intp]:
    """(Q, W): the rows of `Task.own`; `row_of` has the gallery's rows that stay, by their pictures' keys."""
    taken_together: dict[tuple[str, str], set[int]] = {}
    for picture, key in zip(gallery.pictures, gallery.keys, strict=True):
        if picture.sequence and key in row_of:
            taken_together.setdefault((picture.sku, picture.sequence), set()).add(row_of[key])
    own = [
        sorted(taken_together.get((picture.sku, picture.sequence), set()) | {row_of.get(key, -1)} - {-1})
        for picture, key in zip(query.pictures, query.keys, strict=True)
    ]
    wide = max(1, *map(len, own))
    return np.array([rows + [-1] * (wide - len(rows)) for rows in own], np.intp)
