"""The comparison query by query against its definition, on made-up lines."""

import numpy as np
import pytest

from backend.evaluation.pairing import Paired, pair_runs, pair_with_exact

PRODUCTS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]


def make_report(sha256: str, **right: str) -> dict:
    lines = [
        {"index": "HNSW" if name == "float" else "BIN_FLAT", "strategy": name, "right_at_1": digits}
        for name, digits in right.items()
    ]
    return {"queries": {"sha256": sha256, "products": PRODUCTS}, "lines": lines}


def test_a_line_is_compared_with_the_exact_search_query_by_query() -> None:
    report = make_report("a", float="1111011001", hash="1101011100", hash_rerank="1111011001")
    hashed, reranked = pair_with_exact(report)
    assert (hashed.line, hashed.n_better, hashed.n_worse) == ("BIN_FLAT hash", 1, 2)
    assert hashed.difference == pytest.approx(-0.1)
    assert reranked == Paired("BIN_FLAT hash_rerank", 0.0, (0.0, 0.0), 0, 0, 1.0)
    # Products are drawn with all of their queries: -1 of 3, 0 of 2, 0 of 1, 0 of 4.
    random = np.random.default_rng(0)
    sums, sizes = np.array([-1, 0, 0, 0]), np.array([3, 2, 1, 4])
    drawn = random.integers(4, size=(1_000, 4))
    wanted = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    assert hashed.interval == pytest.approx(tuple(wanted))


def test_two_runs_are_compared_where_both_were_asked_the_same() -> None:
    first = make_report("a", float="1100000000", hash="0000000000")
    second = make_report("a", float="1111000000")
    [paired] = pair_runs(first, second)
    assert (paired.line, paired.difference) == ("HNSW float", pytest.approx(0.2))
    assert (paired.n_better, paired.n_worse) == (2, 0)
    assert list(pair_runs(first, make_report("b", float="1111000000"))) == []


def test_a_run_from_before_has_nothing_to_compare() -> None:
    old = {"lines": [{"index": "HNSW", "strategy": "float"}]}
    assert list(pair_with_exact(old)) == []
    assert list(pair_runs(old, make_report("a", float="1111000000"))) == []
    assert list(pair_runs(old, old)) == []
