"""Measuring what the gallery finds, how fast, and how large it is (docs/evaluation.md has the protocol).

Each query's embedding against all gallery embeddings, the query itself excluded when it is in the gallery: by exact
search in NumPy, and by Milvus in collections made for the purpose, which are dropped at the end whatever happens.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from backend.common.problems import Problem
from backend.evaluation.embedding import Cropping, EmbeddedPictures, Over, embed_pictures
from backend.evaluation.models import EvaluationRun
from backend.evaluation.pictures import Refusal, Subject
from backend.evaluation.report import (
    EXACT,
    EvaluatedModel,
    EvaluationReport,
    Line,
    LineIndex,
    Scores,
    describe_use,
)
from backend.evaluation.selectors import get_milvus_data_bytes
from backend.gallery.models import Generation
from backend.gallery.thresholds import search_settings
from recognition.embedder import Embeddings, ProductEmbedder
from recognition.gallery import Entry, Gallery, SearchSettings, Strategy, ping
from recognition.index import (
    HASH_INDEX,
    SEARCHED_EXACTLY,
    CollectionReport,
    IndexReport,
    IndexSettings,
    IndexType,
    computed_index_bytes,
)
from recognition.metrics import exact_search, mean_average_precision, recall_at_k

FLOAT_INDEXES: tuple[IndexType, ...] = ("FLAT", "HNSW", "IVF_FLAT")
INDEXES: tuple[LineIndex, ...] = (*FLOAT_INDEXES, HASH_INDEX)
STRATEGIES: tuple[Strategy, ...] = ("float", "hash", "hash_rerank")

DEPTH = 100  # R: pictures that an index is asked for
NEAREST = 10  # for the overlap with exact search
PRODUCTS = 5
WARM_UP = 10  # searches of each line before the first that counts
QUERIES_AT_ONCE = 64  # ranked over the whole gallery
ROUNDING = 1e-5  # of a cosine in float32

# Nobody waits at a till here, and building an index takes its time.
SEARCH_SECONDS = 30.0
INDEX_SECONDS = 3_600.0

Search = Callable[[Embeddings, int], NDArray[np.intp]]
"""One query's embedding and how many pictures are wanted -> their rows in the gallery, nearest first."""


@dataclass(frozen=True)
class Plan:
    """How to evaluate.

    Attributes:
        detector: name and version of the detector that crops, if one does.
        indexes: out of INDEXES; hash strategies search BIN_FLAT, float the others.
        strategies: out of STRATEGIES.
    """

    embedder: ProductEmbedder
    cropping: Cropping
    detector: str | None
    indexes: Sequence[LineIndex]
    strategies: Sequence[Strategy]

    def lines(self) -> list[tuple[LineIndex, Strategy]]:
        """What is to be measured.

        Raises:
            Problem: 400, no index goes with a strategy.
        """
        found = [
            (index, strategy)
            for index in INDEXES
            for strategy in STRATEGIES
            if index in self.indexes
            and strategy in self.strategies
            and (index == HASH_INDEX) == (strategy != "float")
        ]
        if not found:
            raise _nothing("the hash strategies search BIN_FLAT, and float the other indexes")
        return found


def _nothing(why: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "nothing-to-measure", f"nothing can be measured: {why}")


@dataclass(frozen=True)
class _Task:
    """Queries that have a right answer in the gallery.

    Attributes:
        gallery, query: embeddings of N and Q pictures.
        gallery_products, query_products: (N,) and (Q,), the product that each shows, as a number.
        own: (Q,), the row of the query itself in the gallery, or -1.
    """

    gallery: Embeddings
    query: Embeddings
    gallery_products: NDArray[np.intp]
    query_products: NDArray[np.intp]
    own: NDArray[np.intp]

    def one(self, row: int) -> Embeddings:
        """A query's embedding alone."""
        rows = slice(row, row + 1)
        return Embeddings(self.query.vectors[rows], self.query.hash_codes[rows])

    def n_relevant(self) -> NDArray[np.intp]:
        """(Q,): pictures in the gallery that show the query's product, itself not counted."""
        return np.bincount(self.gallery_products)[self.query_products] - (self.own >= 0)

    def relevant(self, found: NDArray[np.intp], queries: slice = slice(None)) -> NDArray[np.bool_]:
        """Whether each found picture (Q, K) shows the query's product; -1 is no picture."""
        return (found >= 0) & (self.gallery_products[found] == self.query_products[queries, None])


@dataclass
class _Measurement:
    """A line while it is measured."""

    index: LineIndex
    strategy: Strategy
    search: Search
    found: list[NDArray[np.intp]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def evaluate(subject: Subject, plan: Plan, over: Over[Any]) -> EvaluationReport:
    """Embed, index, search and score.

    Args:
        over: walks over the steps of a stage, and may show how far it is.
    Raises:
        Problem: 400, nothing can be measured.
        GalleryUnavailable: Milvus does not answer.
    """
    wanted = plan.lines()
    refused = subject.refused
    started = time.perf_counter()
    gallery = embed_pictures(
        "embedding the gallery", subject.gallery, plan.embedder, plan.cropping, refused, over
    )
    query = gallery
    if subject.query is not None:
        query = embed_pictures(
            "embedding the queries", subject.query, plan.embedder, plan.cropping, refused, over
        )
    n_embedded = len(gallery) + (0 if query is gallery else len(query))
    seconds = time.perf_counter() - started
    task = _set_task(gallery, query, refused)
    card = plan.embedder.card
    lines = _measure(task, wanted, over)
    return EvaluationReport(
        subject=subject.name,
        gallery_file=subject.gallery_file,
        query_file=subject.query_file,
        leave_one_out=subject.query is None,
        model=EvaluatedModel(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            provider=card.provider,
            precision=card.precision,
            dimension=card.dimension or 0,
            hash_bits=card.hash_bits or 0,
            hash_method=card.hash_method or "",
        ),
        detector=plan.detector,
        crop=plan.cropping.mode,
        crop_margin=plan.cropping.margin,
        milvus_version=ping(settings.MILVUS_URI, settings.MILVUS_TOKEN, SEARCH_SECONDS),
        search=_search_settings("float"),
        n_products=len(np.unique(task.gallery_products)),
        n_gallery=len(task.gallery),
        n_query=len(task.query),
        n_own_excluded=int((task.own >= 0).sum()),
        embedded_per_second=n_embedded / seconds,
        refused=tuple(refused),
        lines=tuple(lines),
    )


def store_run(report: EvaluationReport, generation: Generation | None, asked_by: str) -> EvaluationRun:
    """Keep a report; with the generation whose embedder it was, if it was one's."""
    return EvaluationRun.objects.create(
        generation=generation, subject=report.subject, asked_by=asked_by, report=report.to_dict()
    )


def _set_task(gallery: EmbeddedPictures, query: EmbeddedPictures, refused: list[Refusal]) -> _Task:
    """Number the products, find each query in the gallery, leave out queries that no answer could be right for."""
    if not len(gallery):
        raise _nothing(_first_reasons("no picture of the gallery could be embedded", refused))
    products = {sku: number for number, sku in enumerate(sorted({one.sku for one in gallery.pictures}))}
    row_of = {key: row for row, key in enumerate(gallery.keys)}
    gallery_products = np.array([products[one.sku] for one in gallery.pictures], np.intp)
    query_products = np.array([products.get(one.sku, -1) for one in query.pictures], np.intp)
    own = np.array([row_of.get(key, -1) for key in query.keys], np.intp)
    others = np.append(np.bincount(gallery_products), 0)[query_products] - (own >= 0)
    for row in np.flatnonzero(others == 0):
        picture = query.pictures[row]
        refused.append(Refusal.of(picture, f"the gallery has no other picture of product {picture.sku}"))
    kept = np.flatnonzero(others > 0)
    if not len(kept):
        raise _nothing(_first_reasons("no query has a right answer in the gallery", refused))
    embeddings = Embeddings(query.embeddings.vectors[kept], query.embeddings.hash_codes[kept])
    return _Task(gallery.embeddings, embeddings, gallery_products, query_products[kept], own[kept])


def _first_reasons(what: str, refused: list[Refusal]) -> str:
    reasons = "; ".join(f"{one.file}:{one.row}: {one.reason}" for one in refused[:3])
    return f"{what} ({len(refused):,} refused: {reasons})" if refused else what


# --- searching --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Built:
    """A gallery made for the evaluation."""

    gallery: Gallery
    report: IndexReport
    folder_growth: int | None


def _measure(task: _Task, wanted: list[tuple[LineIndex, Strategy]], over: Over[Any]) -> list[Line]:
    # A gallery's two collections hold embeddings and hash codes: BIN_FLAT lies beside any of the others.
    types = [index for index in FLOAT_INDEXES if (index, "float") in wanted] or ["FLAT"]
    with ExitStack() as stack:
        built = {
            index: stack.enter_context(_built_gallery(IndexSettings(type=index), task))
            for index in over("building indexes", types)
        }
        hashed = built[types[0]]
        measurements = [_Measurement(EXACT, "float", _exact(task))]
        for index, strategy in wanted:
            gallery = (hashed if index == HASH_INDEX else built[index]).gallery
            measurements.append(_Measurement(index, strategy, _through(gallery, strategy)))
        _search_in_turns(task, measurements, over)
        reference, *others = measurements
        nearest = np.stack(reference.found)
        return [
            _reference_line(task, reference, nearest),
            *(
                _line(task, one, hashed if one.index == HASH_INDEX else built[one.index], nearest)
                for one in others
            ),
        ]


@contextmanager
def _built_gallery(index: IndexSettings, task: _Task) -> Iterator[_Built]:
    """All of the task's gallery in collections of their own, flushed, indexed and loaded; dropped at the end."""
    gallery = Gallery(
        settings.MILVUS_URI,
        name=f"evaluate_{uuid.uuid4().hex[:12]}_{index.type.lower()}",
        dimension=task.gallery.vectors.shape[1],
        hash_bits=8 * task.gallery.hash_codes.shape[1],
        index=index,
        token=settings.MILVUS_TOKEN,
        timeout_seconds=SEARCH_SECONDS,
    )
    before = get_milvus_data_bytes()
    try:
        gallery.create()
        gallery.upsert(
            [
                Entry(row, int(product), 1, vector, hash_code)
                for row, (product, vector, hash_code) in enumerate(
                    zip(task.gallery_products, task.gallery.vectors, task.gallery.hash_codes, strict=True)
                )
            ]
        )
        gallery.flush()
        gallery.load()
        report = gallery.wait_indexed(INDEX_SECONDS)
        after = get_milvus_data_bytes()
        yield _Built(gallery, report, None if before is None or after is None else after - before)
    finally:
        gallery.drop()
        gallery.close()


def _search_settings(strategy: Strategy) -> SearchSettings:
    """As this deployment searches, but for DEPTH pictures."""
    how = search_settings(strategy)
    return replace(how, matches=DEPTH, rerank=max(how.rerank, DEPTH))


def _through(gallery: Gallery, strategy: Strategy) -> Search:
    how = _search_settings(strategy)

    def search(query: Embeddings, wanted: int) -> NDArray[np.intp]:
        [matches] = gallery.search(query, how, limit=wanted)
        return np.array([match.reference_image_id for match in matches], np.intp)

    return search


def _exact(task: _Task) -> Search:
    def search(query: Embeddings, wanted: int) -> NDArray[np.intp]:
        rows, _ = exact_search(query.vectors, task.gallery.vectors, wanted)
        return rows[0]

    return search


def _search_in_turns(task: _Task, measurements: list[_Measurement], over: Over[Any]) -> None:
    """Each query through each line, one at a time; whose turn is first moves on, so that noise hits all alike."""
    for row in range(min(WARM_UP, len(task.query))):
        for line in measurements:
            line.search(task.one(row), DEPTH)
    for row in over("searching", range(len(task.query))):
        query, own = task.one(row), task.own[row]
        first = row % len(measurements)
        for line in measurements[first:] + measurements[:first]:
            started = time.perf_counter()
            # The query itself would be its own nearest neighbour: one more, then without it.
            found = line.search(query, DEPTH + (own >= 0))
            line.seconds.append(time.perf_counter() - started)
            others = found[found != own][:DEPTH]
            line.found.append(np.pad(others, (0, DEPTH - len(others)), constant_values=-1))


# --- scoring ----------------------------------------------------------------------------------------------
def _reference_line(task: _Task, line: _Measurement, nearest: NDArray[np.intp]) -> Line:
    vectors = task.gallery.vectors
    p50, p95 = _latency(line)
    return Line(
        index=EXACT,
        strategy="float",
        used=SEARCHED_EXACTLY,
        segments=(),
        scores=replace(_score(task, line, nearest), map=_map_over_all(task)),
        p50_ms=p50,
        p95_ms=p95,
        computed_bytes=vectors.nbytes,
        folder_growth_bytes=None,
    )


def _line(task: _Task, line: _Measurement, built: _Built, nearest: NDArray[np.intp]) -> Line:
    hashed = line.index == HASH_INDEX
    collection: CollectionReport = built.report.hash_collection if hashed else built.report.float_collection
    computed = computed_index_bytes(
        built.gallery.index, len(task.gallery), built.gallery.dimension, built.gallery.hash_bits
    )
    p50, p95 = _latency(line)
    return Line(
        index=line.index,
        strategy=line.strategy,
        used=describe_use(collection),
        segments=collection.segments,
        scores=_score(task, line, nearest),
        p50_ms=p50,
        p95_ms=p95,
        computed_bytes=computed.hash_index if hashed else computed.float_index,
        folder_growth_bytes=None if hashed else built.folder_growth,
    )


def _latency(line: _Measurement) -> tuple[float, float]:
    p50, p95 = np.percentile(line.seconds, [50, 95])
    return 1_000 * float(p50), 1_000 * float(p95)


def _score(task: _Task, line: _Measurement, nearest: NDArray[np.intp]) -> Scores:
    """Score a line's found pictures.

    Args:
        nearest: (Q, DEPTH), the nearest pictures by exact cosine.
    """
    found = np.stack(line.found)
    by_product = _nearest_products(task, found) == task.query_products[:, None]
    return Scores(
        recall_at_1=recall_at_k(by_product, 1),
        recall_at_5=recall_at_k(by_product, PRODUCTS),
        map_at_100=mean_average_precision(task.relevant(found), task.n_relevant()),
        map=None,
        overlap_at_10=_overlap(task, found[:, :NEAREST], nearest[:, :NEAREST]),
    )


def _nearest_products(task: _Task, found: NDArray[np.intp]) -> NDArray[np.intp]:
    """(Q, PRODUCTS): the products of the found pictures (Q, K), each at its best picture's rank; -1 is none."""
    nearest = np.full((len(found), PRODUCTS), -1, np.intp)
    for row, pictures in zip(nearest, found, strict=True):
        products = list(dict.fromkeys(task.gallery_products[pictures[pictures >= 0]]))[:PRODUCTS]
        row[: len(products)] = products
    return nearest


def _map_over_all(task: _Task) -> float:
    """Mean average precision of exact search over the whole gallery, some queries at a time."""
    n_relevant, n_gallery = task.n_relevant(), len(task.gallery)
    total = 0.0
    for start in range(0, len(task.query), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        found, _ = exact_search(
            task.query.vectors[rows], task.gallery.vectors, n_gallery, exclude=task.own[rows]
        )
        total += len(found) * mean_average_precision(task.relevant(found, rows), n_relevant[rows])
    return total / len(task.query)


def _overlap(task: _Task, found: NDArray[np.intp], nearest: NDArray[np.intp]) -> float:
    """Share of the exact nearest pictures that were found; one exactly as near stands for another."""
    hits = total = 0
    for query, ours, exact in zip(task.query.vectors, found, nearest, strict=True):
        exact = exact[exact >= 0]
        furthest = task.gallery.vectors[exact[-1]] @ query
        hits += int((task.gallery.vectors[ours[ours >= 0]] @ query >= furthest - ROUNDING).sum())
        total += len(exact)
    return hits / total
