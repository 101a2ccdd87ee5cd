"""Exact search and the figures against slow, plain versions written from their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from recognition.metrics import (
    GALLERY_BLOCK,
    QUERIES_AT_ONCE,
    auroc,
    average_precision,
    basket_figures,
    bootstrap_interval,
    bootstrap_interval_of_mean,
    exact_hash_search,
    exact_search,
    false_positive_rate,
    identification_curve,
    identification_rate,
    mean_average_precision,
    nearest_products,
    recall_at_k,
    reliability,
    risk_coverage,
    sign_test,
    wilson_interval,
)


def unit_vectors(n: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_search(similarities: NDArray[np.float64], k: int, exclude: list[list[int]]) -> list[list[int]]:
    """Sort all rows by similarity, then row; leave the excluded ones out; cut."""
    return [
        sorted((row for row in range(len(line)) if row not in own), key=lambda row: (-line[row], row))[:k]
        for line, own in zip(similarities, exclude, strict=True)
    ]


def some_rows(n_query: int, n_gallery: int) -> st.SearchStrategy[list[list[int]]]:
    """Two rows of the gallery for each query, or one, or none."""
    rows = st.lists(st.integers(-1, n_gallery - 1), min_size=2, max_size=2)
    return st.lists(rows, min_size=n_query, max_size=n_query)


# Few distinct values: many ties, negative ones and both zeros among them.
coarse = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 1.0])


@given(st.data())
@settings(max_examples=100)
def test_exact_search_is_a_full_sort_with_ties_by_row(data: st.DataObject) -> None:
    n_query, n_gallery = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    query = data.draw(arrays.arrays(np.float32, (n_query, 2), elements=coarse.map(np.float32)))
    gallery = data.draw(arrays.arrays(np.float32, (n_gallery, 2), elements=coarse.map(np.float32)))
    k = data.draw(st.integers(1, 14))
    exclude = data.draw(some_rows(n_query, n_gallery))
    indices, similarities = exact_search(
        query, gallery, k, np.array(exclude), block=data.draw(st.integers(1, 13))
    )
    assert indices.shape == similarities.shape == (n_query, min(k, n_gallery))
    all_similarities = query.astype(np.float64) @ gallery.T.astype(np.float64)
    for line, wanted, got, values in zip(
        all_similarities, plain_search(all_similarities, k, exclude), indices, similarities, strict=True
    ):
        assert [row for row in got if row >= 0] == wanted
        np.testing.assert_allclose(values[: len(wanted)], line[wanted], atol=1e-6)
        assert (got[len(wanted) :] == -1).all()
        assert np.isneginf(values[len(wanted) :]).all()


def test_exact_search_in_many_blocks_equals_one_product() -> None:
    n_query, n_gallery = QUERIES_AT_ONCE + 3, 2 * GALLERY_BLOCK + 5
    query, gallery = unit_vectors(n_query, 16), unit_vectors(n_gallery, 16, seed=1)
    indices, similarities = exact_search(query, gallery, 10)
    everything = query @ gallery.T
    wanted = -np.sort(-everything, axis=1)[:, :10]
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(everything, indices, 1), wanted, atol=1e-6)


def test_a_query_of_the_gallery_does_not_find_itself() -> None:
    gallery = unit_vectors(50, 8)
    indices, _ = exact_search(gallery, gallery, 50, np.arange(50)[:, None])
    assert (indices[:, 0] != np.arange(50)).all()
    assert (indices[:, -1] == -1).all()
    assert all(set(row[:-1]) == set(range(50)) - {own} for own, row in enumerate(indices))


def test_an_empty_gallery_and_no_query_give_empty_answers() -> None:
    assert exact_search(unit_vectors(3, 8), np.empty((0, 8), np.float32), 5)[0].shape == (3, 0)
    assert exact_search(np.empty((0, 8), np.float32), unit_vectors(3, 8), 5)[0].shape == (0, 3)


@given(st.data())
@settings(max_examples=50)
def test_exact_hash_search_counts_differing_bits(data: st.DataObject) -> None:
    n_bytes = data.draw(st.sampled_from([1, 3, 8, 16]))  # whole 64-bit words and others
    n_query, n_gallery = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 10))
    query = data.draw(arrays.arrays(np.uint8, (n_query, n_bytes)))
    gallery = data.draw(arrays.arrays(np.uint8, (n_gallery, n_bytes)))
    k = data.draw(st.integers(1, 10))
    exclude = data.draw(some_rows(n_query, n_gallery))
    indices, similarities = exact_hash_search(query, gallery, k, np.array(exclude), block=4)
    distances = np.array(
        [
            [sum((a ^ b).bit_count() for a, b in zip(q.tolist(), g.tolist(), strict=True)) for g in gallery]
            for q in query
        ]
    )
    for line, wanted, got, values in zip(
        distances, plain_search(-distances, k, exclude), indices, similarities, strict=True
    ):
        assert [row for row in got if row >= 0] == wanted
        np.testing.assert_allclose(values[: len(wanted)], 1 - 2 * line[wanted] / (8 * n_bytes), atol=1e-6)


def test_nearest_products_count_each_product_once() -> None:
    products = np.array([[7, 7, 3, 7, 5], [2, 2, 2, 2, -1], [-1, -1, -1, -1, -1]])
    assert nearest_products(products, 2).tolist() == [[7, 3], [2, -1], [-1, -1]]


def test_recall_asks_for_the_right_product_among_the_nearest_products() -> None:
    # Four pictures of a wrong product hide the right one from recall@2 of pictures, not from recall@2 of products.
    products = np.array([[4, 4, 4, 4, 9], [9, 4, 4, 4, 4]])
    right = nearest_products(products, 2) == np.array([[9], [9]])
    assert recall_at_k(right, 1) == 0.5
    assert recall_at_k(right, 2) == 1.0


rankings = arrays.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 12)))


@given(rankings, st.data())
def test_recall_equals_its_definition(ranked: NDArray[np.bool_], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, ranked.shape[1]))
    assert recall_at_k(ranked, k) == pytest.approx(sum(any(row[:k]) for row in ranked) / len(ranked))


@given(rankings, st.data())
def test_average_precision_equals_its_definition(ranked: NDArray[np.bool_], data: st.DataObject) -> None:
    unseen = data.draw(arrays.arrays(np.intp, len(ranked), elements=st.integers(0, 20)))
    n_relevant = ranked.sum(axis=1) + unseen
    wanted = []
    for row, relevant in zip(ranked.tolist(), n_relevant.tolist(), strict=True):
        precisions = [sum(row[: rank + 1]) / (rank + 1) for rank, right in enumerate(row) if right]
        wanted.append(sum(precisions) / min(relevant, len(row)) if relevant else 0.0)
    np.testing.assert_allclose(average_precision(ranked, n_relevant), wanted)
    assert mean_average_precision(ranked, n_relevant) == pytest.approx(np.mean(wanted))


def test_average_precision_by_hand() -> None:
    # Relevant at ranks 1, 3 and 4 of 5, and a fourth one not found: (1/1 + 2/3 + 3/4) / 4.
    ranked = np.array([[True, False, True, True, False]])
    assert average_precision(ranked, np.array([4]))[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 4)


def test_the_best_ranking_is_1_even_with_more_relevant_pictures_than_ranks() -> None:
    assert mean_average_precision(np.ones((1, 100), bool), np.array([250])) == pytest.approx(1.0)


@pytest.mark.parametrize("k", [0, 6])
def test_recall_beyond_the_ranks_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"recall@{k} of 2 queries with 5 ranks"):
        recall_at_k(np.zeros((2, 5), bool), k)


def test_figures_of_no_query_are_refused() -> None:
    with pytest.raises(ValueError, match="0 queries"):
        recall_at_k(np.zeros((0, 5), bool), 1)
    with pytest.raises(ValueError, match="0 queries"):
        mean_average_precision(np.zeros((0, 5), bool), np.zeros(0, int))


scores = arrays.arrays(np.float64, st.integers(1, 8), elements=st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8]))


class TestOpenSet:
    @given(scores, scores)
    def test_auroc_is_the_share_of_pairs_in_order(
        self, known: NDArray[np.float64], strangers: NDArray[np.float64]
    ) -> None:
        pairs = [(one > other) + (one == other) / 2 for one in known for other in strangers]
        assert auroc(known, strangers) == pytest.approx(sum(pairs) / len(pairs))

    @given(scores, scores, st.sampled_from([0.5, 0.95, 1.0]))
    def test_false_positive_rate_equals_its_definition(
        self, known: NDArray[np.float64], strangers: NDArray[np.float64], rate: float
    ) -> None:
        threshold = max(one for one in known if (known >= one).mean() >= rate)
        assert false_positive_rate(known, strangers, rate) == (strangers >= threshold).mean()

    @given(scores, scores, st.sampled_from([0.1, 0.34, 0.5]), st.data())
    def test_identification_rate_equals_its_definition(
        self,
        known: NDArray[np.float64],
        strangers: NDArray[np.float64],
        rate: float,
        data: st.DataObject,
    ) -> None:
        right = data.draw(arrays.arrays(np.bool_, len(known)))
        wanted = None
        if rate * len(strangers) >= 1:
            # Of all thresholds that keep the rate the one that lets most through: just above a stranger, or below all.
            tried = [np.nextafter(one, 2) for one in strangers] + [-1.0]
            wanted = max(
                sum(s >= t and r for s, r in zip(known, right, strict=True)) / len(known)
                for t in tried
                if (strangers >= t).mean() <= rate
            )
        assert identification_rate(known, right, strangers, rate) == wanted

    @given(scores, scores, st.data())
    def test_the_identification_curve_goes_through_the_rates(
        self, known: NDArray[np.float64], strangers: NDArray[np.float64], data: st.DataObject
    ) -> None:
        right = data.draw(arrays.arrays(np.bool_, len(known)))
        rates, identified = identification_curve(known, right, strangers)
        assert len(rates) == len(strangers) + 1
        assert identified[0] == sum(
            s > max(strangers) and r for s, r in zip(known, right, strict=True)
        ) / len(known)
        for rate, share in zip(rates[1:], identified[1:], strict=True):
            assert share == identification_rate(known, right, strangers, rate)

    def test_too_few_strangers_tell_no_rate(self) -> None:
        known, right = np.array([0.9]), np.array([True])
        assert identification_rate(known, right, np.full(99, 0.1), 0.01) is None
        assert identification_rate(known, right, np.full(100, 0.1), 0.01) == 1.0

    def test_one_kind_alone_is_refused(self) -> None:
        some, none = np.array([0.5]), np.zeros(0)
        for figure in (auroc, false_positive_rate):
            with pytest.raises(ValueError, match="1 known queries and 0 strangers"):
                figure(some, none)
        with pytest.raises(ValueError, match="true positive rate is 0"):
            false_positive_rate(some, some, 0)

    @given(scores, st.data())
    def test_risk_and_coverage_equal_their_definition(
        self, sure: NDArray[np.float64], data: st.DataObject
    ) -> None:
        right = data.draw(arrays.arrays(np.bool_, len(sure)))
        weight = data.draw(arrays.arrays(np.float64, len(sure), elements=st.sampled_from([1.0, 2.5])))
        coverage, risk = risk_coverage(sure, right, weight)
        wanted = []
        for threshold in sorted(set(sure), reverse=True):
            given_out = sure >= threshold
            total = weight[given_out].sum()
            wanted.append((total / weight.sum(), (weight * ~right)[given_out].sum() / total))
        np.testing.assert_allclose(np.stack([coverage, risk], axis=1), wanted)
        assert coverage[-1] == pytest.approx(1)


class TestCalibration:
    def test_by_hand(self) -> None:
        """Two answers of 0.52 (one right), one of 0.98 (right), one of 1 (wrong): bins 7 and 14 of 15."""
        curve = reliability(np.array([0.52, 0.52, 0.98, 1.0]), np.array([True, False, True, False]))
        assert curve.confidence.tolist() == pytest.approx([0.52, 0.99])
        assert curve.accuracy.tolist() == [0.5, 0.5]
        assert curve.share.tolist() == [0.5, 0.5]
        assert curve.error == pytest.approx((0.02 + 0.49) / 2)

    @given(st.data())
    def test_weights_are_as_good_as_repetition(self, data: st.DataObject) -> None:
        sure = data.draw(arrays.arrays(np.float64, st.integers(1, 6), elements=st.floats(0, 1)))
        right = data.draw(arrays.arrays(np.bool_, len(sure)))
        times = data.draw(arrays.arrays(np.int64, len(sure), elements=st.integers(1, 3)))
        weighted = reliability(sure, right, times.astype(np.float64))
        repeated = reliability(np.repeat(sure, times), np.repeat(right, times))
        assert weighted.error == pytest.approx(repeated.error)
        np.testing.assert_allclose(weighted.share, repeated.share)

    def test_who_is_as_often_right_as_he_says_has_no_error(self) -> None:
        random = np.random.default_rng(0)
        sure = random.random(200_000)
        assert reliability(sure, random.random(200_000) < sure).error < 0.01
        assert reliability(sure, random.random(200_000) < sure / 2).error == pytest.approx(0.25, abs=0.01)


class TestBootstrap:
    random = np.random.default_rng(0)

    def test_the_interval_of_a_mean_is_as_wide_as_theory_says(self) -> None:
        values = self.random.normal(5, 2, 400)
        low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), np.arange(400))
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
        assert bootstrap_interval_of_mean(values, np.arange(400)) == pytest.approx((low, high))

    def test_queries_of_one_product_are_drawn_together(self) -> None:
        """Twenty products of ten equal queries each tell no more than twenty queries."""
        values, products = np.repeat(self.random.normal(0, 1, 20), 10), np.repeat(np.arange(20), 10)
        together = bootstrap_interval(lambda rows: float(values[rows].mean()), products)
        alone = bootstrap_interval(lambda rows: float(values[rows].mean()), np.arange(200))
        assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])
        assert bootstrap_interval_of_mean(values, products) == pytest.approx(together)

    def test_draws_that_tell_nothing_do_not_count(self) -> None:
        none = bootstrap_interval(lambda rows: float("nan"), np.arange(5), resamples=10)
        assert np.isnan(none).all()


class TestBaskets:
    def test_by_hand(self) -> None:
        truth = [{"A": 2, "B": 1}, {"A": 1}, {"C": 3}]
        said = [{"A": 2, "B": 1}, {"A": 2, "X": 1}, {"C": 1}]
        found = basket_figures(truth, said)
        assert found.checkout_accuracy == pytest.approx(1 / 3)
        assert found.average_counting_distance == pytest.approx((0 + 2 + 2) / 3)
        # A: 1 too many of 3; B: right; C: 2 too few of 3.
        assert found.mean_category_counting_distance == pytest.approx((1 / 3 + 0 + 2 / 3) / 3)
        assert found.mean_category_iou == pytest.approx((3 / 4 + 1 + 1 / 3) / 3)

    @given(
        st.lists(st.dictionaries(st.sampled_from("ABC"), st.integers(0, 3)), min_size=1, max_size=4),
        st.data(),
    )
    def test_the_published_sums(self, truth: list[dict[str, int]], data: st.DataObject) -> None:
        said = [data.draw(st.dictionaries(st.sampled_from("ABCX"), st.integers(0, 3))) for _ in truth]
        if not any(sum(one.values()) for one in truth):
            with pytest.raises(ValueError, match="0 pieces"):
                basket_figures(truth, said)
            return
        found = basket_figures(truth, said)
        distances = [
            sum(abs(q.get(k, 0) - p.get(k, 0)) for k in "ABCX") for p, q in zip(truth, said, strict=True)
        ]
        assert found.checkout_accuracy == pytest.approx(distances.count(0) / len(truth))
        assert found.average_counting_distance == pytest.approx(sum(distances) / len(truth))
        counting, iou = [], []
        for k in "ABC":
            pairs = [(p.get(k, 0), q.get(k, 0)) for p, q in zip(truth, said, strict=True)]
            if sum(p for p, _ in pairs):
                counting.append(sum(abs(p - q) for p, q in pairs) / sum(p for p, _ in pairs))
                iou.append(sum(min(one) for one in pairs) / sum(max(one) for one in pairs))
        assert found.mean_category_counting_distance == pytest.approx(np.mean(counting))
        assert found.mean_category_iou == pytest.approx(np.mean(iou))

    def test_as_many_answers_as_baskets_are_wanted(self) -> None:
        with pytest.raises(ValueError, match="1 baskets with 1 pieces, 2 answered"):
            basket_figures([{"A": 1}], [{"A": 1}, {}])


class TestWilsonInterval:
    @pytest.mark.parametrize(("n_hits", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (380, 400), (1, 1)])
    def test_its_ends_are_where_the_score_test_just_rejects(self, n_hits: int, n: int) -> None:
        """Wilson 1927: the shares p for which |seen - p| is 1.96 standard errors of p itself, sought by halving."""
        seen = n_hits / n
        low, high = wilson_interval(n_hits, n)
        for end, (inside, outside) in ((low, (seen, 0.0)), (high, (seen, 1.0))):
            for _ in range(60):
                p = (inside + outside) / 2
                rejected = abs(seen - p) > 1.959964 * (p * (1 - p) / n) ** 0.5
                inside, outside = (inside, p) if rejected else (p, outside)
            assert end == pytest.approx(inside, abs=1e-9)

    @pytest.mark.parametrize(("n_hits", "n"), [(0, 0), (2, 1), (-1, 5)])
    def test_counts_that_are_none_are_refused(self, n_hits: int, n: int) -> None:
        with pytest.raises(ValueError, match="wanted 0 <= hits <= n"):
            wilson_interval(n_hits, n)


def test_the_sign_test_against_the_binomial_distribution() -> None:
    """Four products that got worse and none better: 2 of 16 ways, however many queries did not change."""
    groups = np.repeat(np.arange(50), 3)
    differences = np.zeros(150)
    differences[[0, 3, 6, 9]] = -1
    assert sign_test(differences, groups) == pytest.approx(2 / 16)
    differences[12:15] = 1, 1, -1  # better on the whole
    assert sign_test(differences, groups) == pytest.approx(2 * (1 + 5) / 32)
    differences[15:18] = 1, -1, 0  # neither
    assert sign_test(differences, groups) == pytest.approx(2 * (1 + 5) / 32)
    assert sign_test(np.zeros(150), groups) == 1.0
    assert sign_test(np.r_[-np.ones(5), np.ones(5)], np.arange(10)) == 1.0
