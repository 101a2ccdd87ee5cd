"""What is said of an index: its settings, what Milvus made of it, and its size."""

import dataclasses

import numpy as np
import pytest

from recognition.index import (
    HASH_INDEX,
    SEARCHED_EXACTLY,
    CollectionReport,
    IndexReport,
    IndexSettings,
    SegmentReport,
    computed_index_bytes,
)


def report(wanted: str, *segments: SegmentReport, building: bool = False) -> CollectionReport:
    rows = sum(segment.rows for segment in segments)
    return CollectionReport(
        kind="hash" if wanted == HASH_INDEX else "float",
        wanted=wanted,
        rows=rows,
        segments=segments,
        building=building,
    )


INDEXED = SegmentReport(rows=5_000, sealed=True, index="HNSW")
SMALL = SegmentReport(rows=800, sealed=True, index=SEARCHED_EXACTLY)
GROWING = SegmentReport(rows=300, sealed=False, index=SEARCHED_EXACTLY)
NOT_YET = SegmentReport(rows=5_000, sealed=False, index=SEARCHED_EXACTLY)


@pytest.mark.parametrize(
    "settings", [IndexSettings(), IndexSettings("IVF_FLAT", nlist=64), IndexSettings("FLAT")]
)
def test_settings_come_back_from_their_plain_values(settings: IndexSettings) -> None:
    assert IndexSettings.from_dict(settings.to_dict()) == settings


def test_the_default_is_the_papers_hnsw32() -> None:
    assert IndexSettings().build_parameters == {"M": 32, "efConstruction": 200}


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown index settings efSearch"):
        IndexSettings.from_dict({"type": "HNSW", "efSearch": 5})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "ANNOY"}, "index type is 'ANNOY'; wanted one of HNSW, IVF_FLAT, FLAT"),
        ({"m": 3}, "m is 3; Milvus takes 4 to 64"),
        ({"ef_construction": 513}, "ef_construction is 513; Milvus takes 8 to 512"),
        ({"nlist": 0}, "nlist is 0; Milvus takes 1 to 65536"),
    ],
)
def test_a_setting_that_milvus_would_not_take_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IndexSettings.from_dict(change)


def test_only_rows_behind_a_loaded_index_count_as_indexed() -> None:
    found = report("HNSW", INDEXED, SMALL, GROWING)
    assert (found.indexed_rows, found.total_rows) == (5_000, 6_100)


def test_an_index_is_complete_when_only_small_parts_lie_beside_it() -> None:
    assert report("HNSW").complete
    assert report("HNSW", INDEXED, SMALL, GROWING).complete
    assert not report("HNSW", NOT_YET).complete
    assert not report("HNSW", INDEXED, dataclasses.replace(NOT_YET, sealed=True)).complete
    assert not report("HNSW", INDEXED, building=True).complete


@pytest.mark.parametrize("wanted", ["FLAT", HASH_INDEX])
def test_exact_indexes_wait_for_nothing_but_milvus_itself(wanted: str) -> None:
    assert report(wanted, NOT_YET).complete
    assert not report(wanted, NOT_YET, building=True).complete


def test_a_description_never_calls_an_exact_search_an_index() -> None:
    both = IndexReport(report("HNSW", SMALL, INDEXED, building=True), report(HASH_INDEX))
    assert both.describe() == (
        "float, HNSW wanted, 5,800 entries: 5,000 rows searched with HNSW (a sealed segment), "
        "800 rows searched exactly (a sealed segment); the index is still being built. "
        "hash, BIN_FLAT wanted, 0 entries: empty."
    )
    assert not both.complete


def test_sizes_of_exact_indexes_are_those_of_the_vectors() -> None:
    size = computed_index_bytes(IndexSettings("FLAT"), rows=1_000, dimension=512, bits=256)
    assert (size.float_index, size.hash_index) == (1_000 * 512 * 4, 1_000 * 32)


def test_ivf_adds_an_id_a_row_and_the_centroids() -> None:
    size = computed_index_bytes(IndexSettings("IVF_FLAT", nlist=128), rows=1_000, dimension=64, bits=64)
    assert size.float_index == 1_000 * 64 * 4 + 1_000 * 8 + 128 * 64 * 4


def test_hnsw_adds_the_links_of_a_simulated_graph() -> None:
    m, rows = 16, 200_000
    levels = np.floor(-np.log(np.random.default_rng(0).random(rows)) / np.log(m))
    per_row = 8 + 4 * (2 * m + 1)  # label; links and their count at the lowest level
    links = rows * per_row + int(levels.sum()) * 4 * (m + 1)
    size = computed_index_bytes(IndexSettings(m=m), rows, dimension=64, bits=64)
    assert size.float_index - rows * 64 * 4 == pytest.approx(links, rel=0.005)
