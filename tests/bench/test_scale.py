"""What `make bench-scale` measures is what it says, before an hour is spent on it."""

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from recognition.gallery import Gallery, IndexSettings
from tests.bench.scale import changes, sets, strategies
from tests.bench.scale.agreement import DRIFTING, drifting_rows
from tests.bench.scale.embeddings import BITS, DIMENSION, FAMILY, PICTURES, Catalogue, make_catalogue
from tests.bench.scale.filling import Filled, fill

N = 1_500


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return make_catalogue(N, N)


def test_a_smaller_gallery_is_the_start_of_a_larger_one(catalogue: Catalogue) -> None:
    smaller = make_catalogue(N // 2 + 1, N)
    np.testing.assert_array_equal(smaller.gallery.hash_codes, catalogue.gallery.hash_codes[: N // 2 + 1])
    np.testing.assert_allclose(smaller.gallery.vectors, catalogue.gallery.vectors[: N // 2 + 1], atol=1e-6)
    np.testing.assert_array_equal(smaller.query_products, catalogue.query_products)


def test_angles_are_those_of_real_pictures(catalogue: Catalogue) -> None:
    vectors = catalogue.gallery.vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    first, second = vectors[0::PICTURES], vectors[1::PICTURES]
    family = np.arange(len(first)) // FAMILY
    cosines = first @ second.T
    same = np.eye(len(first), dtype=bool)
    near = (family[:, None] == family) & ~same
    for pairs, mean, deviation in ((same, 0.79, 0.18), (near, 0.41, 0.25), (~same & ~near, 0.02, 0.15)):
        assert cosines[pairs].mean() == pytest.approx(mean, abs=0.06)
        assert cosines[pairs].std() == pytest.approx(deviation, abs=0.1)


def test_what_drifts_in_one_way_does_not_drift_in_another() -> None:
    rows = drifting_rows(30_000)
    assert len(set(rows)) == len(rows)
    assert 0 <= min(rows) <= max(rows) < 30_000
    assert len(rows[0::3]) >= DRIFTING


@pytest.fixture(scope="module")
def filled(milvus_uri: str, catalogue: Catalogue) -> Iterator[Filled]:
    """All of the catalogue, searched exactly."""
    gallery = Gallery(
        milvus_uri,
        name=f"test_{uuid.uuid4().hex}",
        dimension=DIMENSION,
        hash_bits=BITS,
        index=IndexSettings("FLAT"),
        timeout_seconds=20.0,
    )
    made = Filled(gallery, N)
    fill([made], catalogue.gallery)
    yield made
    gallery.drop()
    gallery.close()


def test_an_exact_search_finds_all_and_hash_codes_find_less(
    filled: Filled, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        strategies.Line(filled, strategy, strategies.SearchSettings(strategy=strategy), 0, True)  # type: ignore[arg-type]
        for strategy in ("float", "hash")
    ]
    monkeypatch.setattr(strategies, "lines_of", lambda _: lines)
    exact, by_code = strategies.measure_strategies([filled], catalogue, 4)
    assert (exact["recall_at_1"], exact["recall_at_10"]) == (1.0, 1.0)
    assert 0.3 < by_code["recall_at_10"] < 1.0
    assert exact["right_product_first"] > 0.7
    assert exact["p95_ms"] >= exact["p50_ms"] > 0
    page = strategies.page_of(
        strategies.draw_strategies(
            [line | {"rows": rows} for line in (exact, by_code) for rows in (N, 2 * N)]
        ),
        "",
    )
    assert page.count("<svg") == 4


def test_sets_in_an_exact_gallery_do_not_differ(filled: Filled, catalogue: Catalogue) -> None:
    found = sets.measure_sets([filled], catalogue, 2)
    assert [one["embeddings"] for one in found] == [3, 3, 12, 12, 999, 999]
    assert {one["differing"] for one in found} == {0}
    assert {one["recall_at_10"] for one in found} == {1.0}


@pytest.mark.django_db
def test_a_changed_set_shows_in_the_first_answer(filled: Filled) -> None:
    [found] = changes.measure_changes(filled, 6)
    assert (found["products"], found["changes"], found["shown_at_once"]) == (333, 6, 6)
    assert found["longest_ms"] >= found["p50_ms"] > 0
