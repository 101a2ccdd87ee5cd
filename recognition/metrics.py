"""How good a search is: exact search as the reference line, and the figures that judge any ranking.

The protocol: each query's embedding against all embeddings of the gallery, the query itself left out where it is one of
them. Recall@k asks for a right product among the k nearest products, whatever the number of their pictures; average
precision looks at pictures: over the whole gallery for exact search, over the nearest R = 100 for an index.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Cells of one comparison: at most 256 queries x 8,192 gallery rows, some 60 MB with all that is held meanwhile.
QUERIES_AT_ONCE = 256
GALLERY_BLOCK = 8_192

_LOW_HALF = np.uint64(0xFFFF_FFFF)
_SIGN = np.uint32(0x8000_0000)


def exact_search(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k: int,
    exclude: NDArray[np.intp] | None = None,
    *,
    block: int = GALLERY_BLOCK,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The k nearest embeddings of the gallery for each query, by comparing all with all.

    Args:
        query: embeddings, (Q, D), L2 norm 1.
        gallery: embeddings, (N, D), L2 norm 1.
        k: how many are wanted; at most N are given.
        exclude: (Q,), for each query the gallery's row that must not be found, its own; -1 is none.
        block: gallery rows compared at a time.
    Returns:
        Rows of the gallery and cosines, each (Q, min(k, N)), the most similar first and equal ones by row; -1 and
        -inf where there is no further row.
    """

    def cosines(queries: slice, rows: slice) -> NDArray[np.float32]:
        return query[queries] @ gallery[rows].T

    return _nearest(cosines, len(query), len(gallery), k, exclude, block)


def exact_hash_search(
    query: NDArray[np.uint8],
    gallery: NDArray[np.uint8],
    k: int,
    exclude: NDArray[np.intp] | None = None,
    *,
    block: int = GALLERY_BLOCK,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """As `exact_search`, for packed hash codes and Hamming distance.

    Args:
        query: packed hash codes, (Q, bits // 8).
        gallery: packed hash codes, (N, bits // 8).
    Returns:
        Rows, and similarities 1 - 2 * distance / bits.
    """
    bits = 8 * gallery.shape[1]
    word = np.uint64 if bits % 64 == 0 else np.uint8  # bits are counted word by word
    queries_in_words = np.ascontiguousarray(query).view(word)
    gallery_in_words = np.ascontiguousarray(gallery).view(word)

    def similarities(queries: slice, rows: slice) -> NDArray[np.float32]:
        distances = [
            np.bitwise_count(gallery_in_words[rows] ^ code).sum(axis=1) for code in queries_in_words[queries]
        ]
        result: NDArray[np.float32] = (1.0 - 2.0 * np.array(distances) / bits).astype(np.float32)
        return result

    return _nearest(similarities, len(query), len(gallery), k, exclude, block)


def _nearest(
    similarities: Callable[[slice, slice], NDArray[np.float32]],
    n_query: int,
    n_gallery: int,
    k: int,
    exclude: NDArray[np.intp] | None,
    block: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    k = min(k, n_gallery)
    indices = np.empty((n_query, k), np.intp)
    found = np.empty((n_query, k), np.float32)
    for first_query in range(0, n_query, QUERIES_AT_ONCE):
        queries = slice(first_query, min(first_query + QUERIES_AT_ONCE, n_query))
        best = np.empty((queries.stop - queries.start, 0), np.uint64)
        for first_row in range(0, n_gallery, block):
            rows = slice(first_row, min(first_row + block, n_gallery))
            keys = _as_keys(similarities(queries, rows), first_row)
            if exclude is not None:
                own = exclude[queries] - first_row
                inside = np.flatnonzero((own >= 0) & (own < keys.shape[1]))
                keys[inside, own[inside]] = 0
            best = np.concatenate([best, keys], axis=1)
            if best.shape[1] > k:
                best = np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k :]
        indices[queries], found[queries] = _from_keys(np.sort(best, axis=1)[:, ::-1])
    return indices, found


def _as_keys(similarities: NDArray[np.float32], first_row: int) -> NDArray[np.uint64]:
    """One number for similarity and row, so that sorting by it breaks ties the same way every time; 0 is no row.

    The upper half holds the float's bits, turned so that they order as the float does; the lower half the row,
    inverted, since the lower of two equally similar rows comes first.
    """
    bits = (similarities + np.float32(0.0)).view(np.uint32)  # the sum makes one zero of -0.0 and 0.0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    rows = np.arange(first_row, first_row + similarities.shape[1], dtype=np.uint64)
    return (ordered.astype(np.uint64) << np.uint64(32)) | (_LOW_HALF - rows)


def _from_keys(keys: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    similarities = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)
    rows = (_LOW_HALF - (keys & _LOW_HALF)).astype(np.intp)
    return np.where(keys == 0, -1, rows), np.where(keys == 0, -np.inf, similarities).astype(np.float32)


def nearest_products(products: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """The k nearest products of each query, a product being as near as the nearest of its pictures.

    Args:
        products: (Q, K), the product that each found picture shows, nearest first; -1 is no picture.
        k: how many products are wanted.
    Returns:
        (Q, k), nearest first; -1 where the pictures show no further product.
    """
    nearest = np.full((len(products), k), -1, np.intp)
    for row, shown in zip(nearest, products, strict=True):
        distinct = list(dict.fromkeys(shown[shown >= 0].tolist()))[:k]
        row[: len(distinct)] = distinct
    return nearest


def recall_at_k(ranked_relevant: NDArray[np.bool_], k: int) -> float:
    """The share of queries with something relevant among their first k.

    Args:
        ranked_relevant: (Q, K), whether each query's nearest, next, ... is relevant.
        k: 1 to K.
    Raises:
        ValueError: there is no query, or k is not within 1 to K.
    """
    n_query, depth = ranked_relevant.shape
    if not n_query or not 1 <= k <= depth:
        raise ValueError(
            f"recall@{k} of {n_query} queries with {depth} ranks; wanted a query and 1 <= k <= ranks"
        )
    return float(ranked_relevant[:, :k].any(axis=1).mean())


def average_precision(
    ranked_relevant: NDArray[np.bool_], n_relevant: NDArray[np.intp]
) -> NDArray[np.float64]:
    """For each query the precision at each relevant rank, averaged over all that could have been relevant.

    With K the whole gallery this is the plain average precision; with fewer ranks it is AP@K: a query with more
    relevant pictures than ranks is asked for K of them, so that the best ranking always gives 1.

    Args:
        ranked_relevant: (Q, K), whether each query's nearest, next, ... is relevant.
        n_relevant: (Q,), how many relevant ones the gallery holds, the query itself not counted.
    Returns:
        (Q,), 0 to 1; 0 for a query without anything relevant.
    """
    ranks = np.arange(1, ranked_relevant.shape[1] + 1)
    precision = np.cumsum(ranked_relevant, axis=1) / ranks
    wanted = np.minimum(n_relevant, len(ranks))
    averages: NDArray[np.float64] = np.where(ranked_relevant, precision, 0.0).sum(axis=1) / np.maximum(
        wanted, 1
    )
    return averages


def mean_average_precision(ranked_relevant: NDArray[np.bool_], n_relevant: NDArray[np.intp]) -> float:
    """The mean of `average_precision` over all queries; arguments as there.

    Raises:
        ValueError: there is no query.
    """
    if not len(ranked_relevant):
        raise ValueError("mean average precision of 0 queries; wanted one at least")
    return float(average_precision(ranked_relevant, n_relevant).mean())
