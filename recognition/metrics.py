"""How good a search is: exact search as the reference line, and the figures that judge rankings, answers and baskets.

The protocol: each query's embedding against all embeddings of the gallery, the query itself left out where it is one of
them. Recall@k asks for a right product among the k nearest products, whatever the number of their pictures; average
precision looks at pictures: over the whole gallery for exact search, over the nearest R = 100 for an index.

Open set: queries may show what the gallery lacks. *Known* queries have a right answer, *strangers* have none; what is
judged is the best candidate's similarity, or another score of which more is surer. A basket is judged as the RPC
benchmark does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Cells of one comparison: at most 256 queries x 8,192 gallery rows, some 60 MB with all that is held meanwhile.
QUERIES_AT_ONCE = 256
GALLERY_BLOCK = 8_192

# Bins of a reliability curve, of equal width.
CALIBRATION_BINS = 15
RESAMPLES = 1_000

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
        exclude: (Q, W), for each query the gallery's rows that must not be found, such as its own; -1 is none.
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
                places = exclude[queries] - first_row
                query, column = np.nonzero((places >= 0) & (places < keys.shape[1]))
                keys[query, places[query, column]] = 0
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


# --- open set ---------------------------------------------------------------------------------------------
def auroc(known: NDArray[np.float64], strangers: NDArray[np.float64]) -> float:
    """The probability that a known query scores above a stranger, ties counting half: the area under the ROC curve.

    Args:
        known: (N,) scores.
        strangers: (M,) scores.
    Raises:
        ValueError: there is none of a kind.
    """
    _wants_both(known, strangers)
    sorted_strangers = np.sort(strangers)
    below = np.searchsorted(sorted_strangers, known, side="left")
    not_above = np.searchsorted(sorted_strangers, known, side="right")
    return float((below + not_above).mean() / (2 * len(strangers)))


def false_positive_rate(
    known: NDArray[np.float64], strangers: NDArray[np.float64], true_positive_rate: float = 0.95
) -> float:
    """The share of strangers that reach the highest score which so large a share of the known reach.

    Raises:
        ValueError: there is none of a kind, or the rate is not above 0 and at most 1.
    """
    _wants_both(known, strangers)
    if not 0 < true_positive_rate <= 1:
        raise ValueError(f"true positive rate is {true_positive_rate}; wanted more than 0, at most 1")
    reached_by = math.ceil(round(true_positive_rate * len(known), 9))
    threshold = np.sort(known)[::-1][reached_by - 1]
    return float((strangers >= threshold).mean())


def identification_rate(
    known: NDArray[np.float64],
    right: NDArray[np.bool_],
    strangers: NDArray[np.float64],
    false_accepts: float,
) -> float | None:
    """Detection and identification rate at a rate of false accepts: the share of known queries that are answered
    rightly at rank 1 by a score that no more than this share of the strangers reach.

    P. J. Phillips, P. Grother, R. Micheals, "Evaluation Methods in Face Recognition", in *Handbook of Face
    Recognition*, 2nd edition, 2011, chapter 21: open-set identification.

    Args:
        known: (N,) scores.
        right: (N,) whether the best candidate is the right one.
        strangers: (M,) scores.
        false_accepts: 0..1.
    Returns:
        0..1; None where the strangers are too few to tell the rate, fewer than 1 / false_accepts.
    Raises:
        ValueError: there is none of a kind.
    """
    _wants_both(known, strangers)
    allowed = math.floor(round(false_accepts * len(strangers), 9))
    if allowed < 1:
        return None
    descending = np.sort(strangers)[::-1]
    surpassed = known > descending[allowed] if allowed < len(descending) else np.ones(len(known), np.bool_)
    return float((surpassed & right).mean())


def identification_curve(
    known: NDArray[np.float64], right: NDArray[np.bool_], strangers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`identification_rate` at every rate of false accepts that the strangers can tell, 0 among them.

    Returns:
        The rates 0, 1 / M, ..., 1 and the shares identified, each (M + 1,), neither falling.
    Raises:
        ValueError: there is none of a kind.
    """
    _wants_both(known, strangers)
    thresholds = np.append(np.sort(strangers)[::-1], -np.inf)
    hits = np.sort(known[right])
    above = len(hits) - np.searchsorted(hits, thresholds, side="right")
    return np.arange(len(strangers) + 1) / len(strangers), above / len(known)


def _wants_both(known: NDArray[np.float64], strangers: NDArray[np.float64]) -> None:
    if not len(known) or not len(strangers):
        raise ValueError(
            f"{len(known)} known queries and {len(strangers)} strangers; wanted one of each at least"
        )


def risk_coverage(
    score: NDArray[np.float64], right: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many of the answers are wrong when only those with the highest scores are given.

    Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.

    Args:
        score: (N,).
        right: (N,).
        weight: (N,) of each answer; None for 1.
    Returns:
        Coverage, the share of all that is answered, rising to 1; and risk, the share of the answered that is wrong. A
        point for each distinct score: equal ones are answered together.
    """
    weights = np.ones(len(score)) if weight is None else weight
    order = np.argsort(-score, kind="stable")
    answered = np.cumsum(weights[order])
    wrong = np.cumsum((weights * ~right)[order])
    last_of_equal = np.append(np.diff(score[order]) != 0, True)[: len(score)]
    return answered[last_of_equal] / weights.sum(), wrong[last_of_equal] / answered[last_of_equal]


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: the answers sorted into CALIBRATION_BINS of equal width by their confidence.

    Attributes:
        confidence: (B,) mean of each bin that is not empty, rising.
        accuracy: (B,) share of the bin's answers that are right.
        share: (B,) of all answers that lie in it; they sum to 1.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: by how much confidence and accuracy differ, over all answers.

        C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        return float(self.share @ np.abs(self.confidence - self.accuracy))


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
) -> Reliability:
    """The reliability curve of N answers.

    Args:
        confidence: (N,), 0..1.
        right: (N,).
        weight: (N,) of each answer; None for 1.
    """
    weights = np.ones(len(confidence)) if weight is None else weight
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    total, sure, good = (
        np.bincount(bins, of, minlength=CALIBRATION_BINS)
        for of in (weights, weights * confidence, weights * right)
    )
    there = total > 0
    return Reliability(sure[there] / total[there], good[there] / total[there], total[there] / total.sum())


def bootstrap_interval(
    figure: Callable[[NDArray[np.intp]], float],
    groups: NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of a figure, by drawing whole groups of queries anew, with replacement.

    The percentile interval of the cluster bootstrap (A. C. Davison, D. V. Hinkley, *Bootstrap Methods and their
    Application*, 1997, sections 3.8 and 5.3): queries of one product are no independent witnesses.

    Args:
        figure: of the rows of the queries that were drawn; a row may come more than once.
        groups: (N,) of each query, such as its product.
    Returns:
        Low and high. Draws by which the figure is not-a-number do not count; with none left, both are.
    """
    _, of = np.unique(groups, return_inverse=True)
    order = np.argsort(of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(of))[:-1])
    random = np.random.default_rng(seed)
    found = np.array(
        [
            figure(np.concatenate([members[one] for one in random.integers(len(members), size=len(members))]))
            for _ in range(resamples)
        ]
    )
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval_of_mean(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """As `bootstrap_interval` with the mean of `values`, (N,), in a fraction of the time; the draws are the same."""
    _, of = np.unique(groups, return_inverse=True)
    n_of, sum_of = np.bincount(of), np.bincount(of, values)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(n_of), size=(resamples, len(n_of)))
    low, high = np.quantile(sum_of[drawn].sum(axis=1) / n_of[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def sign_test(differences: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Two-sided p-value of the exact sign test over groups: how likely it is that, were either of two systems as likely
    to be better in a group, at least as many groups as here would fall to one side.

    Groups that differ in nothing on the whole do not count. Unlike a percentile bootstrap, which never draws what it
    has not seen, it is honest where few queries differ.

    Args:
        differences: (N,), of each query.
        groups: (N,), such as the product that it shows: queries of one group are not independent.
    Returns:
        0..1; 1 where nothing differs.
    """
    _, of = np.unique(groups, return_inverse=True)
    totals = np.bincount(of, differences)
    n_better, n_worse = int((totals > 0).sum()), int((totals < 0).sum())
    n = n_better + n_worse
    tail: int = sum(math.comb(n, k) for k in range(min(n_better, n_worse) + 1))
    return min(1.0, 2 * tail / (1 << n))  # of whole numbers, however many


def wilson_interval(n_hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen n_hits times of n: honest near 0 and 1 too, where a bootstrap of what
    was always seen would leave no doubt.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).

    Args:
        n_hits: 0 to n.
        n: independent trials, 1 or more.
    Raises:
        ValueError: the counts are none of these.
    """
    if not 0 <= n_hits <= n or n < 1:
        raise ValueError(f"{n_hits} of {n}; wanted 0 <= hits <= n and a trial at least")
    z = 1.959964  # of the normal distribution, for 95 %
    share = n_hits / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return max(0.0, (centre - reach) / whole), min(1.0, (centre + reach) / whole)


# --- baskets ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class BasketFigures:
    """How good baskets are, as the RPC benchmark judges them.

    X.-S. Wei, Q. Cui, L. Yang, P. Wang, L. Liu, "RPC: A Large-Scale Retail Product Checkout Dataset", 2019.

    Attributes:
        checkout_accuracy: cAcc, share of baskets that are right to the piece.
        average_counting_distance: ACD, pieces too many or too few a basket.
        mean_category_counting_distance: mCCD, pieces too many or too few of a product for each of its pieces, over the
            products.
        mean_category_iou: mCIoU, of each product the lesser of the two counts by the greater, over the products.
    """

    checkout_accuracy: float
    average_counting_distance: float
    mean_category_counting_distance: float
    mean_category_iou: float


def basket_figures(
    truth: Sequence[Mapping[str, int]], answered: Sequence[Mapping[str, int]]
) -> BasketFigures:
    """Compare N baskets with what really lay there.

    With n_ik pieces of product k in basket i, m_ik answered, d_ik = |m_ik - n_ik|, over N baskets and K products:

    - cAcc = share of the baskets with sum_k d_ik = 0,
    - ACD = 1 / N * sum_i sum_k d_ik,
    - mCCD = 1 / K * sum_k (sum_i d_ik / sum_i n_ik),
    - mCIoU = 1 / K * sum_k (sum_i min(n_ik, m_ik) / sum_i max(n_ik, m_ik)).

    The K products are those that lie in any of the baskets; of others there is no share, and their pieces count in
    cAcc and ACD alone.

    Args:
        truth: of each basket pieces by SKU.
        answered: likewise.
    Raises:
        ValueError: there is no basket, they are not as many, or none of them holds anything.
    """
    pieces = sum(sum(one.values()) for one in truth)
    if len(truth) != len(answered) or not pieces:
        raise ValueError(
            f"{len(truth)} baskets with {pieces} pieces, {len(answered)} answered; wanted as many, and a piece"
        )
    skus = sorted({sku for one in (*truth, *answered) for sku, n in one.items() if n})
    really, said = (
        np.array([[one.get(sku, 0) for sku in skus] for one in baskets]) for baskets in (truth, answered)
    )
    distance = np.abs(said - really)
    lain = really.sum(axis=0) > 0
    return BasketFigures(
        checkout_accuracy=float((distance.sum(axis=1) == 0).mean()),
        average_counting_distance=float(distance.sum(axis=1).mean()),
        mean_category_counting_distance=float((distance.sum(axis=0)[lain] / really.sum(axis=0)[lain]).mean()),
        mean_category_iou=float(
            (np.minimum(really, said).sum(axis=0)[lain] / np.maximum(really, said).sum(axis=0)[lain]).mean()
        ),
    )
