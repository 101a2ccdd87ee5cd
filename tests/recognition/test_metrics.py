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
    average_precision,
    exact_hash_search,
    exact_search,
    mean_average_precision,
    nearest_products,
    recall_at_k,
)


def unit_vectors(n: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_search(similarities: NDArray[np.float64], k: int, exclude: list[int]) -> list[list[int]]:
    """Sort all rows by similarity, then row; leave the excluded one out; cut."""
    return [
        sorted((row for row in range(len(line)) if row != own), key=lambda row: (-line[row], row))[:k]
        for line, own in zip(similarities, exclude, strict=True)
    ]


# Few distinct values: many ties, negative ones and both zeros among them.
coarse = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 1.0])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_exact_search_is_a_full_sort_with_ties_by_row(data: st.DataObject) -> None:
    n_query, n_gallery = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    query = data.draw(arrays.arrays(np.float32, (n_query, 2), elements=coarse.map(np.float32)))
    gallery = data.draw(arrays.arrays(np.float32, (n_gallery, 2), elements=coarse.map(np.float32)))
    k = data.draw(st.integers(1, 14))
    exclude = data.draw(st.lists(st.integers(-1, n_gallery - 1), min_size=n_query, max_size=n_query))
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
    indices, _ = exact_search(gallery, gallery, 50, np.arange(50))
    assert (indices[:, 0] != np.arange(50)).all()
    assert (indices[:, -1] == -1).all()
    assert all(set(row[:-1]) == set(range(50)) - {own} for own, row in enumerate(indices))


def test_an_empty_gallery_and_no_query_give_empty_answers() -> None:
    assert exact_search(unit_vectors(3, 8), np.empty((0, 8), np.float32), 5)[0].shape == (3, 0)
    assert exact_search(np.empty((0, 8), np.float32), unit_vectors(3, 8), 5)[0].shape == (0, 3)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_exact_hash_search_counts_differing_bits(data: st.DataObject) -> None:
    n_bytes = data.draw(st.sampled_from([1, 3, 8, 16]))  # whole 64-bit words and others
    n_query, n_gallery = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 10))
    query = data.draw(arrays.arrays(np.uint8, (n_query, n_bytes)))
    gallery = data.draw(arrays.arrays(np.uint8, (n_gallery, n_bytes)))
    k = data.draw(st.integers(1, 10))
    exclude = data.draw(st.lists(st.integers(-1, n_gallery - 1), min_size=n_query, max_size=n_query))
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
