"""Searching a task's queries: exactly in NumPy, and through Milvus in galleries made for the purpose."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from backend.evaluation.embedding import Over
from backend.evaluation.report import LineIndex
from backend.evaluation.selectors import get_milvus_index_bytes
from backend.evaluation.task import Task
from backend.gallery.thresholds import search_settings
from recognition.embedder import Embeddings
from recognition.gallery import Entry, Gallery, IndexReport, IndexSettings, SearchSettings, Strategy
from recognition.metrics import exact_search

DEPTH = 100  # pictures that an index is asked for: R of the protocol
WARM_UP = 10  # searches of each line before the first that counts

# Nobody waits at a till here, and building an index takes its time.
SEARCH_SECONDS = 30.0
INDEX_SECONDS = 3_600.0

Search = Callable[[Embeddings, int], NDArray[np.intp]]
"""One query's embedding and how many pictures are wanted -> their rows in the gallery, nearest first."""


@dataclass(frozen=True)
class BuiltGallery:
    """A gallery made for an evaluation, what became of its index, and the bytes that it added to the index files."""

    gallery: Gallery
    report: IndexReport
    folder_growth: int | None


@contextmanager
def built_gallery(index: IndexSettings, task: Task) -> Iterator[BuiltGallery]:
    """The task's gallery in collections of their own, flushed, indexed and loaded; dropped at the end.

    Raises:
        GalleryUnavailable: Milvus does not answer, or its index is not complete within INDEX_SECONDS.
    """
    gallery = Gallery(
        settings.MILVUS_URI,
        name=f"evaluate_{uuid.uuid4().hex[:12]}_{index.type.lower()}",
        dimension=task.gallery.vectors.shape[1],
        hash_bits=8 * task.gallery.hash_codes.shape[1],
        index=index,
        token=settings.MILVUS_TOKEN,
        timeout_seconds=SEARCH_SECONDS,
    )
    rows = zip(task.gallery_products, task.gallery.vectors, task.gallery.hash_codes, strict=True)
    before = get_milvus_index_bytes()
    try:
        gallery.create()
        gallery.upsert(
            [Entry(row, int(product), 1, vector, code) for row, (product, vector, code) in enumerate(rows)]
        )
        gallery.flush()
        gallery.load()
        report = gallery.wait_indexed(INDEX_SECONDS)
        after = get_milvus_index_bytes()
        yield BuiltGallery(gallery, report, None if before is None or after is None else after - before)
    finally:
        gallery.drop()
        gallery.close()


def depth_settings(strategy: Strategy) -> SearchSettings:
    """As this deployment searches, but for DEPTH pictures."""
    how = search_settings(strategy)
    return replace(how, matches=DEPTH, rerank=max(how.rerank, DEPTH))


def through_milvus(gallery: Gallery, strategy: Strategy) -> Search:
    """A search of the gallery, whose reference image ids are the rows."""
    how = depth_settings(strategy)

    def search(query: Embeddings, wanted: int) -> NDArray[np.intp]:
        [matches] = gallery.search(query, how, limit=wanted)
        return np.array([match.reference_image_id for match in matches], np.intp)

    return search


def exactly(task: Task) -> Search:
    """Exact search by cosine in NumPy."""

    def search(query: Embeddings, wanted: int) -> NDArray[np.intp]:
        rows, _ = exact_search(query.vectors, task.gallery.vectors, wanted)
        nearest: NDArray[np.intp] = rows[0]
        return nearest

    return search


@dataclass
class Measurement:
    """A line while it is measured.

    Attributes:
        found: for each query DEPTH rows of the gallery, nearest first, the query's own left out; -1 is none.
        seconds: that each search took.
    """

    index: LineIndex
    strategy: Strategy
    search: Search
    found: list[NDArray[np.intp]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def latency_ms(self) -> tuple[float, float]:
        """p50 and p95."""
        p50, p95 = np.percentile(self.seconds, [50, 95])
        return 1_000 * float(p50), 1_000 * float(p95)


def search_in_turns(task: Task, measurements: Sequence[Measurement], over: Over[Any]) -> None:
    """Each query through each line, one at a time; whose turn is first moves on, so that noise hits all alike."""
    for row in range(min(WARM_UP, len(task.query))):
        for line in measurements:
            line.search(task.one(row), DEPTH)
    for row in over("searching", range(len(task.query))):
        query, own = task.one(row), task.own[row][task.own[row] >= 0]
        first = row % len(measurements)
        for line in (*measurements[first:], *measurements[:first]):
            started = time.perf_counter()
            # The query itself would be its own nearest neighbour: so many more, then without them.
            found = line.search(query, DEPTH + len(own))
            line.seconds.append(time.perf_counter() - started)
            others = found[~np.isin(found, own)][:DEPTH]
            line.found.append(np.pad(others, (0, DEPTH - len(others)), constant_values=-1))
