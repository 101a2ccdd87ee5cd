"""Fitting what decides an answer: thresholds for a stated rate of false accepts, and the calibrated confidence.

A false accept is an item that is recognised as a product which it does not show. It happens to two kinds of queries: to
*known* ones, whose product the gallery holds, and to *strangers*, whose product it lacks. Strangers are queries of
unknown SKUs, and every query once more with its own product left out of what it found: the hardest there are, for the
product's siblings stay. Thresholds keep the rate for both kinds, so that it holds whatever their share at the till.

Everything here is a function of arrays; who searched, and where, is the caller's business.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recognition.ranking import LOWEST, UNREACHABLE, Confidence, Result, Thresholds

# Of the known queries no more than this share may be called unknown.
LOST_SHARE = 0.01
FOLDS = 10
MARGINS_TRIED = 101

RESULTS = tuple(Result)

# The confidence's weights are held back as if by one query that says nothing: without it, known queries and strangers
# that lie wholly apart would drive them to infinity.
RIDGE = 1.0
NEWTON_STEPS = 50
NEWTON_ENOUGH = 1e-10


@dataclass(frozen=True)
class Answers:
    """What N queries were answered first.

    Attributes:
        similarity: (N,) of the best candidate; LOWEST where there was none.
        lead: (N,) by how much it was nearer than the runner-up; without a runner-up, than LOWEST.
        answered: (N,) id of the best candidate's product; -1 where there was none.
        right: (N,) whether it is the product that the query shows.
        product: (N,) what the query shows. Queries of one product resemble each other, so it is whole products that
            are held out and drawn again.
    """

    similarity: NDArray[np.float64]
    lead: NDArray[np.float64]
    answered: NDArray[np.int64]
    right: NDArray[np.bool_]
    product: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.similarity)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """The chosen queries, by a mask or by rows."""
        return type(self)(*(getattr(self, one.name)[chosen] for one in fields(self)))


def join(*parts: Answers) -> Answers:
    """All of them, one after the other."""
    return Answers(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Answers)))


@dataclass(frozen=True)
class Searched:
    """What N queries found, each one's own picture left out.

    Attributes:
        product: (N,) what the query shows; what the gallery lacks has ids of its own.
        known: (N,) whether the gallery holds a picture of it, the query itself not counted.
        foreign: (N,) whether the gallery holds none at all. Neither known nor foreign is the only picture of a product.
        right: (N,) similarity of the nearest picture of its product; LOWEST where none was found.
        wrong: (N,) of the nearest picture of another product.
        wrong_product: (N,) that product; -1 where none was found.
        runner_up: (N,) of the nearest picture of a third.
    """

    product: NDArray[np.int64]
    known: NDArray[np.bool_]
    foreign: NDArray[np.bool_]
    right: NDArray[np.float64]
    wrong: NDArray[np.float64]
    wrong_product: NDArray[np.int64]
    runner_up: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.product)

    def answers_of_known(self) -> Answers:
        """The known queries as they were answered, those left out that met no other product: they tell nothing."""
        rows = np.flatnonzero(self.known & (self.wrong > LOWEST))
        right, wrong, runner_up = self.right[rows], self.wrong[rows], self.runner_up[rows]
        is_right = right > wrong
        best = np.maximum(right, wrong)
        return Answers(
            similarity=best,
            lead=best - np.where(is_right, wrong, np.maximum(right, runner_up)),
            answered=np.where(is_right, self.product[rows], self.wrong_product[rows]),
            right=is_right,
            product=self.product[rows],
        )

    def answers_of_strangers(self, *, foreign: bool | None = None) -> Answers:
        """Every query as if its own product were not in the gallery; those that met no other product left out.

        Of a query all of whose matches show its own product it is not known what it would have been answered.

        Args:
            foreign: True only queries of unknown SKUs, False only those whose product was left out, None both.
        """
        chosen = self.wrong_product >= 0
        if foreign is not None:
            chosen = chosen & (self.foreign == foreign)
        rows = np.flatnonzero(chosen)
        return Answers(
            similarity=self.wrong[rows],
            lead=self.wrong[rows] - self.runner_up[rows],
            answered=self.wrong_product[rows],
            right=np.zeros(len(rows), np.bool_),
            product=self.product[rows],
        )


def gather_searched(
    found_products: NDArray[np.int64],
    similarities: NDArray[np.float64],
    product: NDArray[np.int64],
    known: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
) -> Searched:
    """What queries found, from their matches.

    A query whose K matches hold no other product, or no third, met one that is at most as near as the last of them; it
    is taken to be as near.

    Args:
        found_products: (N, K), the product that each match shows, nearest first; -1 is no match.
        similarities: (N, K).
        product, known, foreign: as of Searched.
    """
    if not found_products.shape[1]:
        found_products = np.full((len(product), 1), -1, np.int64)
        similarities = np.full((len(product), 1), LOWEST)
    rows = np.arange(len(product))
    there = found_products >= 0
    beyond = np.where(there[:, -1], similarities[:, -1], LOWEST)
    own = there & (found_products == product[:, None])
    others = np.where(there & ~own, similarities, -np.inf)
    first = others.argmax(axis=1)
    met = others[rows, first] > -np.inf
    wrong_product = np.where(met, found_products[rows, first], -1)
    third = np.where(found_products == wrong_product[:, None], -np.inf, others).max(axis=1)
    return Searched(
        product=product,
        known=known,
        foreign=foreign,
        right=np.where(own, similarities, LOWEST).max(axis=1),
        wrong=np.where(met, others[rows, first], beyond),
        wrong_product=wrong_product,
        runner_up=np.where(third > -np.inf, third, beyond),
    )


def fewest_queries(false_accepts: float) -> int:
    """The fewest queries that a rate can be told from: ceil(1 / rate) - 1.

    A threshold that k of n strangers reach is reached by the next one with a probability of (k + 1) / (n + 1), for each
    place among the n + 1 is as likely as any other (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*,
    2005, section 2.2: conformal prediction). Even with k = 0 that is the rate or less only from here on.

    Raises:
        ValueError: the rate is not between 0 and 1.
    """
    if not 0 < false_accepts < 1:
        raise ValueError(f"a rate of false accepts is {false_accepts}; wanted more than 0 and less than 1")
    return math.ceil(round(1 / false_accepts, 9)) - 1


def allowed_false_accepts(n_queries: int, false_accepts: float) -> int:
    """The most k with (k + 1) / (n + 1) <= rate; -1 where even none would promise too much."""
    return math.floor(round(false_accepts * (n_queries + 1), 9)) - 1


def fit_thresholds(known: Answers, strangers: Answers, false_accepts: float) -> Thresholds:
    """Fit thresholds for a rate of false accepts, and own ones of products where the data carries them.

    Similarity s and margin m are fitted together, for flavours that look alike are told by the lead and strangers by
    the similarity: of MARGINS_TRIED margins, and for each the least similarity that keeps the rate, the pair that
    recognises most. (s, m) keeps the rate f where, an answer being recognised when similarity >= s and lead >= m:

    - (recognised strangers + 1) / (strangers + 1) <= f,
    - (known recognised as another product + 1) / (known + 1) <= f,
    - known recognised as another product / all known that are recognised <= f.

    The choice among margins is made on the same queries and costs a little of the promise; `cross_fit` shows how much.

    `unknown` is the similarity that no more than LOST_SHARE of the known fall below, and never above s.

    A product has thresholds of its own where at least `fewest_queries` of the known queries and as many strangers have
    it as their best candidate: s and `unknown` are fitted to those queries alone, with the others' m. The others'
    thresholds are then fitted to the other queries, as long as those are enough themselves. So the rate holds given the
    best candidate, and with it over all (Mondrian conformal prediction, op. cit., section 4.5). A margin of its own as
    well, chosen among so few queries, broke the rate (docs/decisions/0010).

    Returns:
        Where no pair keeps the rate, thresholds by which nothing is recognised.
    Raises:
        ValueError: there are fewer queries of a kind than the rate can be told from.
    """
    fewest = fewest_queries(false_accepts)
    if min(len(known), len(strangers)) < fewest:
        raise ValueError(
            f"{len(known)} known queries and {len(strangers)} strangers; a rate of {false_accepts:g} takes {fewest}"
            " of each"
        )
    own = _products_with_own(known, strangers, fewest)
    known_rest, strangers_rest = (
        answers.take(~np.isin(answers.answered, list(own))) for answers in (known, strangers)
    )
    if min(len(known_rest), len(strangers_rest)) < fewest:
        known_rest, strangers_rest = known, strangers
    general = _fit_pair(known_rest, strangers_rest, false_accepts)
    products = {}
    for product in sorted(own):
        its_known = known.take(known.answered == product)
        its_strangers = strangers.take(strangers.answered == product)
        recognised = _fit_similarity(its_known, its_strangers, general.margin, false_accepts)
        unknown = min(_fit_unknown(its_known), recognised)
        products[product] = Thresholds(recognised, general.margin, unknown)
    return Thresholds(general.recognised, general.margin, general.unknown, products)


def _products_with_own(known: Answers, strangers: Answers, fewest: int) -> set[int]:
    """The products whose queries suffice for thresholds of their own."""
    return _products_with_enough(known, fewest) & _products_with_enough(strangers, fewest)


def _products_with_enough(answers: Answers, fewest: int) -> set[int]:
    products, counts = np.unique(answers.answered[answers.answered >= 0], return_counts=True)
    return set(products[counts >= fewest].tolist())


def _fit_pair(known: Answers, strangers: Answers, false_accepts: float) -> Thresholds:
    unknown = _fit_unknown(known)
    fitted, most = Thresholds(UNREACHABLE, 0.0, unknown), 0
    for margin in np.unique(np.quantile(known.lead, np.linspace(0, 1, MARGINS_TRIED))):
        recognised = _fit_similarity(known, strangers, margin, false_accepts)
        n = int((known.right & (known.lead >= margin) & (known.similarity >= recognised)).sum())
        if n > most:
            fitted, most = Thresholds(recognised, float(margin), min(unknown, recognised)), n
    return fitted


def _fit_unknown(known: Answers) -> float:
    return float(np.quantile(known.similarity, LOST_SHARE, method="lower"))


def _fit_similarity(known: Answers, strangers: Answers, margin: float, false_accepts: float) -> float:
    """The least similarity that keeps the rate beside this margin."""
    return max(
        _least_for_strangers(
            strangers.similarity[strangers.lead >= margin],
            allowed_false_accepts(len(strangers), false_accepts),
        ),
        _least_for_known(
            known.take(known.lead >= margin), allowed_false_accepts(len(known), false_accepts), false_accepts
        ),
    )


def _least_for_strangers(similarities: NDArray[np.float64], allowed: int) -> float:
    """The least similarity that no more than `allowed` of these reach."""
    if allowed < 0:
        return UNREACHABLE
    if len(similarities) <= allowed:
        return LOWEST
    return float(np.nextafter(np.sort(similarities)[::-1][allowed], np.inf))


def _least_for_known(led: Answers, allowed: int, false_accepts: float) -> float:
    """The least similarity which no more than `allowed` wrong ones reach, nor more than the rate of all that do."""
    order = np.argsort(-led.similarity, kind="stable")
    similarity = led.similarity[order]
    n_wrong = np.cumsum(~led.right[order])
    good = (n_wrong <= allowed) & (n_wrong <= false_accepts * np.arange(1, len(led) + 1))
    # Equal similarities are reached together.
    good &= np.append(np.diff(similarity) != 0, True)
    return float(similarity[good][-1]) if good.any() else UNREACHABLE


def judge(answers: Answers, thresholds: Thresholds) -> NDArray[np.int8]:
    """What is said of each query: (N,) places in RESULTS. As `recognition.ranking.decide`, for all at once."""
    holding = [thresholds.of(product) for product in answers.answered.tolist()]
    recognised, margin, unknown = (
        np.array([(one.recognised, one.margin, one.unknown) for one in holding], np.float64).reshape(-1, 3).T
    )
    is_unknown = (answers.answered < 0) | (answers.similarity < unknown)
    is_recognised = ~is_unknown & (answers.similarity >= recognised) & (answers.lead >= margin)
    return np.select(
        [is_unknown, is_recognised],
        [np.int8(RESULTS.index(Result.UNKNOWN)), np.int8(RESULTS.index(Result.RECOGNISED))],
        np.int8(RESULTS.index(Result.NEEDS_CONFIRMATION)),
    )


def weigh(
    n_known: int, n_strangers: int, unknown_share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of known queries and of strangers, so that the strangers' share of them all is `unknown_share`.

    Returns:
        (n_known,) and (n_strangers,); they sum to n_known + n_strangers.
    """
    n = n_known + n_strangers
    return (
        np.full(n_known, n * (1 - unknown_share) / max(n_known, 1)),
        np.full(n_strangers, n * unknown_share / max(n_strangers, 1)),
    )


def fit_confidence(known: Answers, strangers: Answers, unknown_share: float) -> Confidence:
    """Fit the probability that the best candidate is right, where `unknown_share` of all queries are strangers.

    Logistic regression by maximum likelihood: the weights a, b, c minimise

        sum of w_i * (log(1 + exp(z_i)) - y_i * z_i) + RIDGE / 2 * (b^2 + c^2),   z_i = a + b * s_i + c * sqrt(l_i),

    with y_i = 1 where the answer to query i is right, w_i as `weigh` gives, and similarity s and root of the lead l
    scaled to a spread of 1. A weight that would be negative is 0 and the rest fitted without it, which is where the
    minimum under b, c >= 0 lies, the sum being convex.

    Raises:
        ValueError: there is no query of a kind, or the share is not between 0 and 1.
    """
    if not 0 < unknown_share < 1 or not len(known) or not len(strangers):
        raise ValueError(
            f"{len(known)} known queries, {len(strangers)} strangers, a share of unknown of {unknown_share}; wanted"
            " some of each and a share of more than 0 and less than 1"
        )
    similarity = np.concatenate([known.similarity, strangers.similarity])
    lead = np.concatenate([known.lead, strangers.lead])
    right = np.concatenate([known.right, strangers.right]).astype(np.float64)
    weight = np.concatenate(weigh(len(known), len(strangers), unknown_share))
    plain = np.stack([similarity, np.sqrt(np.maximum(lead, 0))], axis=1)
    centre, spread = plain.mean(axis=0), np.maximum(plain.std(axis=0), 1e-9)
    scaled = (plain - centre) / spread
    used = [0, 1]
    while True:
        intercept, weights = _logistic_regression(scaled[:, used], right, weight)
        if (weights >= 0).all():
            break
        del used[int(weights.argmin())]
    slopes = np.zeros(2)
    slopes[used] = weights / spread[used]
    return Confidence(
        intercept=intercept - float(slopes @ centre),
        similarity=float(slopes[0]),
        lead=float(slopes[1]),
        unknown_share=unknown_share,
    )


def _logistic_regression(
    features: NDArray[np.float64], right: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and weights, by Newton's method with halved steps where a whole one would overshoot."""
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    ridge = np.full(design.shape[1], RIDGE)
    # The intercept is free, but for so little that one kind of answer alone does not drive it to infinity.
    ridge[0] = 1e-6

    def loss(at: NDArray[np.float64]) -> float:
        logit = design @ at
        return float(weight @ (np.logaddexp(0, logit) - right * logit) + ridge @ at**2 / 2)

    found = np.zeros(design.shape[1])
    here = loss(found)
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ found, -500, 500)))
        gradient = design.T @ (weight * (probability - right)) + ridge * found
        curvature = (design.T * (weight * probability * (1 - probability))) @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (there := loss(found - size * step)) > here and size > 1e-6:
            size /= 2
        found = found - size * step
        if here - there <= NEWTON_ENOUGH * max(1.0, abs(here)):
            break
        here = there
    return float(found[0]), found[1:]


@dataclass(frozen=True)
class HeldOut:
    """How N queries were judged by what was fitted without their products.

    Attributes:
        result: (N,) places in RESULTS.
        confidence: (N,), 0..1.
    """

    result: NDArray[np.int8]
    confidence: NDArray[np.float64]


def cross_fit(
    known: Answers, strangers: Answers, false_accepts: float, unknown_share: float, *, seed: int = 0
) -> tuple[HeldOut, HeldOut]:
    """Judge each query by thresholds and confidence that were fitted to other queries.

    The products are dealt to FOLDS parts; each part is judged by a fit over the others. So a product is judged as a new
    one. But where it has thresholds of its own, a fit without it could not have them, and would say nothing of what
    they do: the known queries of such a product are dealt instead, a tenth of them in a row to each part, since
    neighbours often come from one shooting. As strangers they stay together: for those the product is always a new one.

    A part's fit has fewer queries than all have; where they are too few for the rate, it takes the least that they can
    tell, and where a product's are too few for thresholds of its own, the general ones.

    Returns:
        Of the known, and of the strangers, in their order.
    Raises:
        ValueError: fewer than two products.
    """
    products = np.unique(np.concatenate([known.product, strangers.product]))
    if len(products) < 2:
        raise ValueError(f"{len(products)} products; to hold one out takes two at least")
    part_of = np.random.default_rng(seed).permutation(len(products)) % FOLDS
    parts = [part_of[np.searchsorted(products, answers.product)] for answers in (known, strangers)]
    if len(known) and len(strangers):
        fewest = fewest_queries(told_rate(len(known), len(strangers), false_accepts))
        for product in _products_with_own(known, strangers, fewest):
            rows = np.flatnonzero(known.product == product)
            parts[0][rows] = np.arange(len(rows)) * FOLDS // max(len(rows), 1)
    held_out = tuple(HeldOut(np.zeros(len(one), np.int8), np.zeros(len(one))) for one in (known, strangers))
    for part in np.unique(np.concatenate(parts)):
        others = [one.take(of != part) for one, of in zip((known, strangers), parts, strict=True)]
        thresholds = fit_as_told(others[0], others[1], false_accepts)
        confidence = fit_confidence(others[0], others[1], unknown_share) if min(map(len, others)) else None
        for answers, of, judged in zip((known, strangers), parts, held_out, strict=True):
            rows = np.flatnonzero(of == part)
            judged.result[rows] = judge(answers.take(rows), thresholds)
            if confidence is not None:
                judged.confidence[rows] = confidence.of(answers.similarity[rows], answers.lead[rows])
    return held_out[0], held_out[1]


def told_rate(n_known: int, n_strangers: int, false_accepts: float) -> float:
    """The rate, or the least that so many queries can tell where that is more: 1 / (n + 1)."""
    return max(false_accepts, 1 / (min(n_known, n_strangers) + 1))


def fit_as_told(known: Answers, strangers: Answers, false_accepts: float) -> Thresholds:
    """Fit for the rate, or for the least that the queries can tell where they are too few for it.

    Returns:
        Thresholds.cautious() where there is no query of a kind.
    """
    if not len(known) or not len(strangers):
        return Thresholds.cautious()
    return fit_thresholds(known, strangers, told_rate(len(known), len(strangers), false_accepts))
