"""From the pictures that a line found to its scores; the metrics themselves are recognition's."""

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.report import Scores
from backend.evaluation.task import Task
from recognition.metrics import (
    average_precision,
    bootstrap_interval_of_mean,
    exact_search,
    mean_average_precision,
    nearest_products,
    recall_at_k,
)

NEAREST = 10  # for the overlap with exact search
PRODUCTS = 5
QUERIES_AT_ONCE = 64  # ranked over the whole gallery
ROUNDING = 1e-5  # of a cosine in float32


def score(task: Task, found: NDArray[np.intp], nearest: NDArray[np.intp]) -> Scores:
    """Score what was found, `map` left open.

    Args:
        task: of known queries alone.
        found: (Q, K), rows of the gallery from the nearest on; -1 is none.
        nearest: (Q, K), the same by exact search.
    """
    products, wanted = _products(task, found), task.query_products[:, None]
    right_products = nearest_products(products, PRODUCTS) == wanted
    n_right = task.n_right()
    of_each_query = {
        "recall_at_1": right_products[:, 0],
        "recall_at_5": right_products.any(axis=1),
        "map_at_100": average_precision(products == wanted, n_right),
    }
    return Scores(
        recall_at_1=recall_at_k(right_products, 1),
        recall_at_5=recall_at_k(right_products, PRODUCTS),
        map_at_100=mean_average_precision(products == wanted, n_right),
        map=None,
        overlap_at_10=_overlap(task, found[:, :NEAREST], nearest[:, :NEAREST]),
        intervals={
            name: bootstrap_interval_of_mean(values.astype(np.float64), task.query_products)
            for name, values in of_each_query.items()
        },
    )


def is_right_at_1(task: Task, found: NDArray[np.intp]) -> str:
    """A digit for each query: 1 where its nearest product is the right one. Arguments as of `score`."""
    right = nearest_products(_products(task, found), 1)[:, 0] == task.query_products
    return "".join("1" if one else "0" for one in right)


def map_over_all(task: Task) -> float:
    """Mean average precision of exact search over the whole gallery, some of the known queries at a time."""
    n_right, n_gallery = task.n_right(), len(task.gallery)
    total = 0.0
    for start in range(0, len(task.query), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        found, _ = exact_search(
            task.query.vectors[rows], task.gallery.vectors, n_gallery, exclude=task.own[rows]
        )
        right = _products(task, found) == task.query_products[rows, None]
        total += len(found) * mean_average_precision(right, n_right[rows])
    return total / len(task.query)


def _products(task: Task, found: NDArray[np.intp]) -> NDArray[np.intp]:
    """(Q, K): the product that each found picture shows; -1 where there is none."""
    return np.where(found >= 0, task.gallery_products[found], -1)


def _overlap(task: Task, found: NDArray[np.intp], nearest: NDArray[np.intp]) -> float:
    """Share of the exact nearest pictures that were found; one exactly as near stands for another."""
    hits = total = 0
    for query, ours, exact in zip(task.query.vectors, found, nearest, strict=True):
        exact = exact[exact >= 0]
        furthest = task.gallery.vectors[exact[-1]] @ query
        hits += int((task.gallery.vectors[ours[ours >= 0]] @ query >= furthest - ROUNDING).sum())
        total += len(exact)
    return hits / total
