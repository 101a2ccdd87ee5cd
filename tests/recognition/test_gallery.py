"""The gallery on the real Milvus: against brute force in NumPy, and when the server is dead, hung or restarted."""

import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition import gallery as gallery_module
from recognition.embedder import Embeddings
from recognition.errors import GalleryMismatch, GalleryUnavailable
from recognition.gallery import Entry, Gallery, IndexSettings, Match, SearchSettings, embeddings_of, ping
from recognition.index import SEARCHED_EXACTLY, CollectionKind
from recognition.metrics import exact_hash_search, exact_search
from tests.live import REPOSITORY

DIMENSION, BITS = 32, 64
PICTURES = 10  # of each product
SEALED, GROWING, SMALL = 6_000, 300, 500
SAME = 1e-5  # cosines by two libraries


def make_entries(n: int, seed: int = 0) -> list[Entry]:
    """Pictures of products that lie in families, as products do; ids from 1, PICTURES for each product."""
    random = np.random.default_rng(seed)
    n_products = -(-n // PICTURES)
    families = random.normal(size=(n_products // 10 + 1, DIMENSION))
    products = families[random.integers(len(families), size=n_products)] + 0.7 * random.normal(
        size=(n_products, DIMENSION)
    )
    vectors = np.repeat(products, PICTURES, axis=0)[:n] + 0.5 * random.normal(size=(n, DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    codes = np.packbits(vectors @ random.normal(size=(DIMENSION, BITS)) > 0, axis=1)
    return [
        Entry(row + 1, row // PICTURES + 1, 1, vector, code)
        for row, (vector, code) in enumerate(zip(vectors, codes, strict=True))
    ]


ENTRIES = make_entries(SEALED + GROWING)
QUERIES = embeddings_of(
    make_entries(200, seed=7)[::20] + ENTRIES[::1_500]
)  # new pictures, and some of the gallery
FLOAT = SearchSettings(matches=100, rerank=100)


def make_gallery(uri: str, index: IndexSettings, **changes: object) -> Gallery:
    wanted = {"name": f"test_{uuid.uuid4().hex}", "dimension": DIMENSION, "hash_bits": BITS}
    return Gallery(uri, index=index, **(wanted | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def galleries(milvus_uri: str) -> Iterator[dict[str, Gallery]]:
    """Sealed and indexed rows with growing ones beside them, by index type; built side by side, to save time."""
    made = {
        "HNSW": make_gallery(milvus_uri, IndexSettings("HNSW"), timeout_seconds=20.0),
        "IVF_FLAT": make_gallery(milvus_uri, IndexSettings("IVF_FLAT", nlist=64), timeout_seconds=20.0),
        "small": make_gallery(milvus_uri, IndexSettings("HNSW"), timeout_seconds=20.0),
    }

    def build(name: str) -> None:
        gallery = made[name]
        gallery.create()
        gallery.load()
        gallery.upsert(ENTRIES[: SMALL if name == "small" else SEALED])
        gallery.flush()
        gallery.wait_indexed(120)
        if name != "small":
            gallery.upsert(ENTRIES[SEALED:])
            assert gallery.count() == gallery.count("hash") == len(ENTRIES)

    with ExitStack() as stack:
        for gallery in made.values():
            stack.callback(gallery.close)
            stack.callback(gallery.drop)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(build, made))
        yield made


@pytest.fixture
def hnsw(galleries: dict[str, Gallery]) -> Gallery:
    return galleries["HNSW"]


@pytest.fixture
def small(galleries: dict[str, Gallery]) -> Gallery:
    """500 sealed rows; what a test adds or changes, it takes back."""
    return galleries["small"]


def brute_force(entries: list[Entry], queries: Embeddings, limit: int) -> NDArray[np.float32]:
    """Cosines of the nearest entries, (Q, limit)."""
    return exact_search(queries.vectors, embeddings_of(entries).vectors, limit)[1]


def similarities(found: list[list[Match]]) -> NDArray[np.float64]:
    return np.array([[match.similarity for match in matches] for matches in found])


def assert_true_matches(found: list[list[Match]], queries: Embeddings) -> None:
    """Every match names its entry's product, has its cosine, and stands in order, once."""
    by_id = {entry.reference_image_id: entry for entry in ENTRIES}
    for matches, query in zip(found, queries.vectors, strict=True):
        entries = [by_id[match.reference_image_id] for match in matches]
        assert [match.product_id for match in matches] == [entry.product_id for entry in entries]
        assert len({entry.reference_image_id for entry in entries}) == len(entries)
        cosines = [float(entry.vector @ query) for entry in entries]
        np.testing.assert_allclose([match.similarity for match in matches], cosines, atol=SAME)
        assert matches == sorted(matches, key=lambda match: (-match.similarity, match.reference_image_id))


def test_what_was_waited_for_is_found_by_the_next_search(small: Gallery) -> None:
    [wanted] = make_entries(1, seed=99)
    entry = replace(wanted, reference_image_id=10**6)
    try:
        small.upsert([entry])
        small.wait_found([entry.reference_image_id, 1], 30)
        for strategy in ("float", "hash"):
            found = small.search(embeddings_of([entry]), replace(FLOAT, strategy=strategy))[0]
            assert entry.reference_image_id in [match.reference_image_id for match in found]
        with pytest.raises(GalleryUnavailable, match="find 0 of 1 entries"):
            small.wait_found([10**7], 0.1)
    finally:
        small.delete([entry.reference_image_id])
        assert small.count() == SMALL


# Which index is really used.


@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT"])
def test_the_report_tells_indexed_from_exactly_searched_rows(
    galleries: dict[str, Gallery], index: str
) -> None:
    report = galleries[index].index_report()
    assert report.complete
    found = report.float_collection
    assert (found.wanted, found.rows, found.total_rows) == (index, len(ENTRIES), len(ENTRIES))
    assert found.indexed_rows == SEALED
    assert {(segment.sealed, segment.index) for segment in found.segments} == {
        (True, index),
        (False, SEARCHED_EXACTLY),
    }
    assert report.hash_collection.rows == len(ENTRIES)
    assert report.hash_collection.indexed_rows == 0
    assert f"{SEALED:,} rows searched with {index} (a sealed segment)" in report.describe()
    assert f"{GROWING:,} rows searched exactly (growing)" in report.describe()


def test_a_sealed_segment_too_small_for_an_index_is_searched_exactly(small: Gallery) -> None:
    until = time.monotonic() + 60  # Milvus hands a flushed segment over within seconds
    while not any(segment.sealed for segment in small.index_report().float_collection.segments):
        assert time.monotonic() < until
        time.sleep(0.5)
    report = small.index_report().float_collection
    assert report.wanted == "HNSW"
    assert report.indexed_rows == 0
    assert [segment.index for segment in report.segments] == [SEARCHED_EXACTLY]
    assert report.complete


def test_an_index_that_does_not_become_complete_in_time_is_told(
    hnsw: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = hnsw.index_report()
    never = replace(never, float_collection=replace(never.float_collection, building=True))
    monkeypatch.setattr(hnsw, "index_report", lambda: never)
    with pytest.raises(GalleryUnavailable, match="still being built"):
        hnsw.wait_indexed(0.1)


# Searching.


@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT"])
def test_a_search_of_everything_finds_nearly_all_that_brute_force_finds(
    galleries: dict[str, Gallery], index: str
) -> None:
    found = galleries[index].search(QUERIES, replace(FLOAT, nprobe=32))
    assert_true_matches(found, QUERIES)
    wanted = brute_force(ENTRIES, QUERIES, 100)
    assert (similarities(found)[:, :10] >= wanted[:, 9:10] - SAME).mean() >= 0.95
    assert {match.reference_image_id > SEALED for matches in found for match in matches} == {True, False}


@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT"])
@pytest.mark.parametrize("spread", ["in a row", "at random"])
@pytest.mark.parametrize("n_products", [1, 30, 60, 150, 300, 630])
def test_a_search_within_a_product_set_equals_brute_force_over_it(
    galleries: dict[str, Gallery], index: str, spread: str, n_products: int
) -> None:
    # 10 to all 6,300 entries, sealed and growing ones, above and below the share that HNSW scans by itself.
    products = np.arange(1, 631)
    if spread == "at random":
        products = np.random.default_rng(n_products).permutation(products)
    chosen = products[-n_products:].tolist()
    found = galleries[index].search(QUERIES, FLOAT, product_ids=chosen)
    assert_true_matches(found, QUERIES)
    members = [entry for entry in ENTRIES if entry.product_id in set(chosen)]
    np.testing.assert_allclose(similarities(found), brute_force(members, QUERIES, 100), atol=SAME)


@pytest.mark.parametrize("deepest", [4_096, 0], ids=["deeper", "by a filter"])
@pytest.mark.parametrize("n_products", [60, 200])
@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT"])
def test_a_set_that_is_too_large_for_an_exact_search_is_searched_well(
    galleries: dict[str, Gallery], index: str, n_products: int, deepest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real bound would need 20,000 entries. 60 products are sparse, 200 are not, nor are they counted.
    monkeypatch.setattr(gallery_module, "EXACT_SET_ENTRIES", 100)
    monkeypatch.setattr(gallery_module, "_DEEPEST", deepest)
    chosen = np.random.default_rng(0).permutation(630)[:n_products] + 1
    found = galleries[index].search(QUERIES, FLOAT, product_ids=chosen.tolist())
    assert_true_matches(found, QUERIES)
    assert {len(matches) for matches in found} == {100}
    assert {match.product_id for matches in found for match in matches} <= set(chosen.tolist())
    members = [entry for entry in ENTRIES if entry.product_id in set(chosen.tolist())]
    wanted = brute_force(members, QUERIES, 10)
    assert (similarities(found)[:, :10] >= wanted[:, 9:] - SAME).mean() >= 0.99


@pytest.mark.parametrize("deepest", [4_096, 0], ids=["deeper", "by a filter"])
def test_a_hash_search_within_a_large_set_equals_brute_force(
    hnsw: Gallery, deepest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_module, "EXACT_SET_ENTRIES", 100)
    monkeypatch.setattr(gallery_module, "_DEEPEST", deepest)
    chosen = list(range(100, 400))
    found = hnsw.search(QUERIES, replace(FLOAT, strategy="hash"), product_ids=chosen)
    members = [entry for entry in ENTRIES if entry.product_id in set(chosen)]
    wanted = exact_hash_search(QUERIES.hash_codes, embeddings_of(members).hash_codes, 100)[1]
    np.testing.assert_allclose(similarities(found), wanted, atol=SAME)


@pytest.mark.parametrize("product_ids", [None, list(range(1, 101))])
def test_a_hash_search_equals_brute_force(hnsw: Gallery, product_ids: list[int] | None) -> None:
    found = hnsw.search(QUERIES, replace(FLOAT, strategy="hash"), product_ids=product_ids)
    members = [entry for entry in ENTRIES if product_ids is None or entry.product_id in set(product_ids)]
    wanted = exact_hash_search(QUERIES.hash_codes, embeddings_of(members).hash_codes, 100)[1]
    np.testing.assert_allclose(similarities(found), wanted, atol=SAME)
    product_of = {entry.reference_image_id: entry.product_id for entry in ENTRIES}
    assert all(match.product_id == product_of[match.reference_image_id] for near in found for match in near)


@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT"])
def test_hash_rerank_orders_the_nearest_codes_by_cosine(galleries: dict[str, Gallery], index: str) -> None:
    settings = SearchSettings(strategy="hash_rerank", matches=50, rerank=200)
    found = galleries[index].search(QUERIES, settings)
    assert all(len(matches) == 50 for matches in found)
    assert_true_matches(found, QUERIES)
    by_code, code_similarities = exact_hash_search(
        QUERIES.hash_codes, embeddings_of(ENTRIES).hash_codes, len(ENTRIES)
    )
    vectors = embeddings_of(ENTRIES).vectors
    for matches, rows, values, query in zip(found, by_code, code_similarities, QUERIES.vectors, strict=True):
        # Which of the codes as near as the 200th are among the 200 is Milvus' choice; all nearer ones must be.
        certain, possible = rows[values > values[199]], rows[values >= values[199]]
        assert {match.reference_image_id for match in matches} <= {int(row) + 1 for row in possible}
        worst = matches[-1].similarity
        missing = set(certain.tolist()) - {match.reference_image_id - 1 for match in matches}
        assert all(float(vectors[row] @ query) <= worst + SAME for row in missing)


def test_hash_rerank_of_all_codes_within_a_set_equals_brute_force(hnsw: Gallery) -> None:
    settings = SearchSettings(strategy="hash_rerank", matches=100, rerank=2_000)
    chosen = list(range(500, 631))
    found = hnsw.search(QUERIES, settings, product_ids=chosen)
    members = [entry for entry in ENTRIES if entry.product_id in chosen]
    np.testing.assert_allclose(similarities(found), brute_force(members, QUERIES, 100), atol=SAME)


@pytest.mark.parametrize("strategy", ["float", "hash", "hash_rerank"])
def test_a_limit_stands_in_for_the_number_of_matches(hnsw: Gallery, strategy: str) -> None:
    settings = SearchSettings(strategy=strategy, matches=10, rerank=20)  # type: ignore[arg-type]
    assert [len(matches) for matches in hnsw.search(QUERIES, settings)] == [10] * len(QUERIES)
    assert [len(matches) for matches in hnsw.search(QUERIES, settings, limit=300)] == [300] * len(QUERIES)


@pytest.mark.parametrize("strategy", ["float", "hash", "hash_rerank"])
def test_products_without_entries_and_no_crops_give_empty_answers(hnsw: Gallery, strategy: str) -> None:
    settings = replace(FLOAT, strategy=strategy)  # type: ignore[arg-type]
    nothing = [[] for _ in range(len(QUERIES))]
    assert hnsw.search(QUERIES, settings, product_ids=[]) == nothing
    assert hnsw.search(QUERIES, settings, product_ids=[99_999]) == nothing
    no_crops = Embeddings(QUERIES.vectors[:0], QUERIES.hash_codes[:0])
    assert hnsw.search(no_crops, settings) == []


@pytest.mark.parametrize("kind", ["vectors", "hash_codes"])
def test_embeddings_of_another_embedder_are_refused(hnsw: Gallery, kind: str) -> None:
    other = replace(QUERIES, **{kind: getattr(QUERIES, kind)[:, ::2]})
    with pytest.raises(GalleryMismatch, match=r"embeddings have .* wants 32 and 64"):
        hnsw.search(other, FLOAT)


@pytest.mark.parametrize(
    "wrong", [{"strategy": "cosine"}, {"matches": 0}, {"matches": 300}, {"rerank": 20_000}, {"ef": 0}]
)
def test_search_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SearchSettings(**wrong)  # type: ignore[arg-type]


# Writing.


@pytest.fixture
def extra(small: Gallery) -> Iterator[list[Entry]]:
    """Three entries that are not in the small gallery yet."""
    entries = [
        replace(entry, reference_image_id=9_001 + n) for n, entry in enumerate(make_entries(3, seed=3))
    ]
    yield entries
    small.delete([entry.reference_image_id for entry in entries])


def test_writing_the_same_entries_again_changes_nothing(small: Gallery, extra: list[Entry]) -> None:
    small.upsert(extra)
    small.upsert(extra)
    for kind in ("float", "hash"):
        assert small.count(kind) == SMALL + 3
        assert list(small.entries(kind))[SMALL:] == [(9_001, 1, 1), (9_002, 1, 1), (9_003, 1, 1)]


def test_of_entries_with_one_id_the_last_counts(small: Gallery, extra: list[Entry]) -> None:
    moved = replace(extra[0], product_id=77, revision=2, vector=-extra[0].vector)
    small.upsert([extra[0], moved])
    assert small.count() == SMALL + 1
    assert list(small.entries())[-1] == list(small.entries("hash"))[-1] == (9_001, 77, 2)
    best = small.search(embeddings_of([moved]), FLOAT)[0][0]
    assert (best.reference_image_id, best.product_id) == (9_001, 77)
    assert best.similarity == pytest.approx(1.0, abs=SAME)


def test_what_is_deleted_is_not_found_again_and_may_be_deleted_again(
    small: Gallery, extra: list[Entry]
) -> None:
    small.upsert(extra)
    small.delete([9_001, 9_002, 123_456])
    small.delete([9_001, 9_002, 123_456])
    small.delete([])
    assert small.count() == small.count("hash") == SMALL + 1
    for strategy in ("float", "hash", "hash_rerank"):
        found = small.search(embeddings_of(extra), replace(FLOAT, strategy=strategy))  # type: ignore[arg-type]
        assert {match.reference_image_id for near in found for match in near} & {9_001, 9_002} == set()


def test_a_new_entry_is_found_within_seconds(small: Gallery, extra: list[Entry]) -> None:
    small.upsert(extra)
    until = time.monotonic() + 5
    while small.search(embeddings_of(extra[:1]), FLOAT, limit=1)[0][0].reference_image_id != 9_001:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_equally_similar_matches_are_all_given_in_the_order_of_their_ids(
    small: Gallery, extra: list[Entry]
) -> None:
    twins = [
        replace(entry, vector=extra[0].vector, hash_code=extra[0].hash_code) for entry in reversed(extra)
    ]
    small.upsert(twins)
    assert small.count() == SMALL + 3  # Strong: seen from here on
    until = time.monotonic() + 5
    while True:
        nearest = small.search(embeddings_of(extra[:1]), FLOAT, limit=3)[0]
        if [match.reference_image_id for match in nearest] == [9_001, 9_002, 9_003]:
            break
        assert time.monotonic() < until, nearest
        time.sleep(0.05)


def test_an_entry_of_another_length_is_refused_before_anything_is_written(
    small: Gallery, extra: list[Entry]
) -> None:
    with pytest.raises(GalleryMismatch, match="embeddings have 16 dimensions and 64 bits"):
        small.upsert([*extra, replace(extra[0], vector=extra[0].vector[:16])])
    assert small.count() == SMALL


@pytest.mark.parametrize("kind", ["float", "hash"])
def test_entries_are_found_by_id_without_their_vectors(small: Gallery, kind: CollectionKind) -> None:
    wanted = [entry for entry in ENTRIES[:SMALL] if entry.reference_image_id in (3, 5)]
    found = small.find([5, 3, 10**12], kind)
    assert sorted(found) == [(one.reference_image_id, one.product_id, one.revision) for one in wanted]


def test_entries_are_read_back_as_they_were_written(small: Gallery) -> None:
    found = small.fetch([3, 1, 123_456])
    assert [(entry.reference_image_id, entry.product_id, entry.revision) for entry in found] == [
        (1, 1, 1),
        (3, 1, 1),
    ]
    for entry, written in zip(found, (ENTRIES[0], ENTRIES[2]), strict=True):
        np.testing.assert_array_equal(entry.vector, written.vector)
        np.testing.assert_array_equal(entry.hash_code, written.hash_code)


@pytest.mark.parametrize("kind", ["float", "hash"])
def test_entries_stream_by_id_page_after_page(
    hnsw: Gallery, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_module, "_ROWS_PER_READ", 1_000)  # several pages over sealed and growing rows
    wanted = [(entry.reference_image_id, entry.product_id, entry.revision) for entry in ENTRIES]
    assert list(hnsw.entries(kind)) == wanted  # type: ignore[arg-type]


# Life of the collections.


def test_creating_what_is_there_changes_nothing(small: Gallery) -> None:
    assert small.exists()
    small.create()
    assert small.count() == SMALL


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dimension": 16}, "dimension 32, and this gallery wants 16"),
        ({"hash_bits": 128}, "dimension 64, and this gallery wants 128"),
        ({"index": IndexSettings("FLAT")}, "index_type HNSW, and this gallery wants FLAT"),
        ({"index": IndexSettings(m=16)}, "M 32, and this gallery wants 16"),
    ],
)
def test_collections_of_another_generation_are_refused(
    milvus_uri: str, small: Gallery, changes: dict[str, object], said: str
) -> None:
    wanted = {"name": small.name, "index": small.index} | changes
    other = make_gallery(milvus_uri, wanted.pop("index"), **wanted)  # type: ignore[arg-type]
    for act in (other.check, other.create):
        with pytest.raises(GalleryMismatch, match=said):
            act()
    other.close()


def test_a_missing_collection_is_the_operators_matter(milvus_uri: str) -> None:
    gallery = make_gallery(milvus_uri, IndexSettings())
    assert not gallery.exists()
    gallery.drop()
    acts: list[Callable[[], object]] = [
        gallery.check,
        gallery.load,
        gallery.flush,
        gallery.count,
        gallery.index_report,
        lambda: list(gallery.entries()),
        lambda: gallery.upsert(ENTRIES[:1]),
        lambda: gallery.delete([1]),
        lambda: gallery.fetch([1]),
        lambda: gallery.search(QUERIES, FLOAT),
        lambda: gallery.search(QUERIES, FLOAT, product_ids=[1]),
    ]
    for act in acts:
        with pytest.raises(GalleryMismatch, match="rebuild this generation"):
            act()
    gallery.close()


def test_an_empty_gallery_is_searched_and_reported(milvus_uri: str) -> None:
    gallery = make_gallery(milvus_uri, IndexSettings("FLAT"), timeout_seconds=20.0)
    try:
        gallery.create()
        gallery.load()
        assert gallery.search(QUERIES, FLOAT) == [[] for _ in range(len(QUERIES))]
        assert gallery.count() == 0
        assert list(gallery.entries()) == []
        assert gallery.index_report().complete
        gallery.upsert(ENTRIES[:1])
        assert gallery.count() == 1
        assert list(gallery.entries()) == [(1, 1, 1)]
    finally:
        gallery.drop()
        assert not gallery.exists()
        gallery.close()


# Servers that do not answer.


class Door:
    """A TCP door before Milvus that can be shut (refuses), blocked (accepts, but nothing passes) and opened again."""

    def __init__(self, uri: str) -> None:
        self._target = (urlsplit(uri).hostname, urlsplit(uri).port)
        self._passing = threading.Event()
        self._passing.set()
        self._sockets: list[socket.socket] = []
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def block(self) -> None:
        self._passing.clear()

    def unblock(self) -> None:
        self._passing.set()

    def shut(self) -> None:
        """As a killed server: its connections are gone and new ones are refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def open(self) -> None:
        self._listener = self._listen(self.port)


@pytest.fixture
def door(milvus_uri: str) -> Iterator[Door]:
    door = Door(milvus_uri)
    yield door
    door.unblock()
    door.shut()


PATIENCE = 1.0
A_LITTLE = 1.0  # for two cores that others use as well


@contextmanager
def unavailable_in_time() -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(GalleryUnavailable):
        yield
    assert time.monotonic() - started < PATIENCE + A_LITTLE


def works_again(act: Callable[[], object], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(GalleryUnavailable):
            act()
            return True
        time.sleep(0.1)
    return False


def test_ping_tells_the_version(milvus_uri: str) -> None:
    assert ping(milvus_uri, "", 5.0).startswith("v2.")


def test_a_dead_server_is_told_at_once_by_every_verb() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    dead = f"http://user:secret@127.0.0.1:{port}"
    gallery = make_gallery(dead, IndexSettings(), timeout_seconds=PATIENCE)
    acts: list[Callable[[], object]] = [
        gallery.create,
        gallery.exists,
        gallery.check,
        gallery.load,
        gallery.drop,
        gallery.flush,
        gallery.count,
        gallery.index_report,
        lambda: gallery.wait_indexed(60),
        lambda: list(gallery.entries()),
        lambda: gallery.upsert(ENTRIES[:1]),
        lambda: gallery.delete([1]),
        lambda: gallery.fetch([1]),
        lambda: gallery.search(QUERIES, FLOAT),
        lambda: ping(dead, "user:secret", PATIENCE),
    ]
    for act in acts:
        with unavailable_in_time():
            act()
    with pytest.raises(GalleryUnavailable) as told:
        gallery.count()
    assert f"127.0.0.1:{port}" in str(told.value)
    assert "secret" not in str(told.value)
    gallery.close()


def test_a_hung_server_is_told_in_time_to_all_that_wait_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says anything
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        gallery = make_gallery(uri, IndexSettings(), timeout_seconds=PATIENCE)

        def search(_: int) -> None:
            with unavailable_in_time():
                gallery.search(QUERIES, FLOAT)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(search, range(4)))
        with unavailable_in_time():
            gallery.count()
        with unavailable_in_time():
            ping(uri, "", PATIENCE)
        gallery.close()


def test_a_server_that_hangs_and_comes_back_is_used_again(small: Gallery, door: Door) -> None:
    gallery = make_gallery(door.uri, small.index, name=small.name, timeout_seconds=PATIENCE)
    assert works_again(lambda: gallery.search(QUERIES, FLOAT), 10)
    door.block()

    def search(_: int) -> None:
        with unavailable_in_time():
            gallery.search(QUERIES, FLOAT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(search, range(4)))
    with unavailable_in_time():
        gallery.count()
    door.unblock()
    assert works_again(lambda: gallery.search(QUERIES, FLOAT), 10)
    gallery.close()


def test_a_restarted_server_is_used_again_by_the_same_gallery(small: Gallery, door: Door) -> None:
    gallery = make_gallery(door.uri, small.index, name=small.name, timeout_seconds=PATIENCE)
    assert works_again(lambda: gallery.search(QUERIES, FLOAT), 10)
    for _ in range(2):
        door.shut()
        for act in (lambda: gallery.search(QUERIES, FLOAT), gallery.count):
            with unavailable_in_time():
                act()
        door.open()
        assert works_again(lambda: gallery.search(QUERIES, FLOAT), 10)
        assert works_again(gallery.count, 10)
    gallery.close()


def test_a_gallery_is_used_again_after_it_was_closed(milvus_uri: str, small: Gallery) -> None:
    gallery = make_gallery(milvus_uri, small.index, name=small.name)
    assert gallery.exists()
    gallery.close()
    gallery.close()
    assert gallery.exists()
    gallery.close()


FORKING = """
import multiprocessing
import sys
from recognition.index import IndexSettings
from tests.recognition.test_gallery import SMALL, make_gallery

small = make_gallery(sys.argv[1], IndexSettings("HNSW"), name=sys.argv[2], timeout_seconds=20.0)
assert small.count() == SMALL  # the parent is connected
fork = multiprocessing.get_context("fork")
answers = fork.Queue()
child = fork.Process(target=lambda: answers.put(small.count()))
child.start()
assert answers.get(timeout=60) == SMALL
child.join(60)
assert child.exitcode == 0
assert small.count() == SMALL
"""


def test_a_forked_process_connects_anew(milvus_uri: str, small: Gallery) -> None:
    """In a program of its own: over calls under way, which other tests may leave here, gRPC does not fork."""
    command = [sys.executable, "-c", FORKING, milvus_uri, small.name]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=200)
