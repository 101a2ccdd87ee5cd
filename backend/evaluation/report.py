"""What an evaluation found: the values behind the table, the JSON file and the stored run.

docs/evaluation.md has the JSON file's keys one by one; SCHEMA_VERSION rises when one changes its meaning or goes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.evaluation.details import Details
from backend.evaluation.embedding import Crop
from backend.evaluation.pictures import Refusal
from recognition.gallery import SearchSettings, Strategy
from recognition.index import SEARCHED_EXACTLY, CollectionReport, SegmentReport

SCHEMA_VERSION = 1

# Low and high.
Interval = tuple[float, float]

LineIndex = Literal["FLAT", "HNSW", "IVF_FLAT", "BIN_FLAT", "exact (NumPy)"]
EXACT: LineIndex = "exact (NumPy)"  # the reference line's name


@dataclass(frozen=True)
class Scores:
    """How good the answers to known queries are, 0..1.

    Attributes:
        recall_at_1: share of queries whose nearest product is the right one.
        recall_at_5: share of queries with the right product among the five nearest.
        map_at_100: mean average precision over the 100 nearest pictures.
        map: mean average precision over the whole gallery; None where only 100 were asked for.
        overlap_at_10: share of the ten nearest pictures by exact cosine that are found.
        intervals: 95 % intervals of the first three, by drawing products anew.
    """

    recall_at_1: float
    recall_at_5: float
    map_at_100: float
    map: float | None
    overlap_at_10: float
    intervals: Mapping[str, Interval]


@dataclass(frozen=True)
class Queries:
    """The known queries, in their order: two runs of the same can be compared query by query.

    Attributes:
        sha256: of their products and contents.
        products: that each shows, as a number.
    """

    sha256: str
    products: tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """One index under one search strategy.

    Attributes:
        index: that was asked for.
        used: what really searched: the index's name, "searched exactly", or how many rows the index covers.
        segments: the same, segment by segment.
        right_at_1: a digit for each known query: 1 where its nearest product is the right one.
        p50_ms, p95_ms: latency of a search for one query.
        computed_bytes: of the index that really searched, from its layout.
        folder_growth_bytes: of the embedded Milvus' index files; None where not measured.
        open_set: how well strangers are told from known queries (see `open_set.py`); None without strangers.
        answers: what would be answered, and how sure that is (likewise); None where no query met a second product.
    """

    index: LineIndex
    strategy: Strategy
    used: str
    segments: tuple[SegmentReport, ...]
    scores: Scores
    right_at_1: str
    p50_ms: float
    p95_ms: float
    computed_bytes: int
    folder_growth_bytes: int | None
    open_set: Mapping[str, Any] | None
    answers: Mapping[str, Any] | None

    @property
    def approximate(self) -> bool:
        """Whether any of it was searched through an index that may miss neighbours."""
        return self.used != SEARCHED_EXACTLY


@dataclass(frozen=True)
class EvaluatedModel:
    """The embedder, as its card names it."""

    name: str
    version: str
    sha256: str
    provider: str
    precision: str
    dimension: int
    hash_bits: int
    hash_method: str


@dataclass(frozen=True)
class Unknown:
    """The queries that the gallery has no right answer to.

    Attributes:
        n_query: strangers, all together.
        n_query_held_out: those among them whose product was held out.
        n_query_unknown_sku: those whose SKU the gallery lacks anyhow.
        share, seed: of the products that were held out; None where none were.
        held_out: their SKUs.
    """

    n_query: int
    n_query_held_out: int
    n_query_unknown_sku: int
    share: float | None
    seed: int | None
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationReport:
    """One run of `evaluate_recall`.

    `lines` opens with the exact search in NumPy; `scenes` is what `measure_scenes` gives.
    """

    subject: str
    gallery_file: str
    query_file: str
    leave_one_out: bool
    model: EvaluatedModel
    detector: str | None
    crop: Crop
    crop_margin: float
    milvus_version: str
    search: SearchSettings
    n_products: int
    n_gallery: int
    n_query: int
    n_own_excluded: int
    queries: Queries
    unknown: Unknown
    embedded_per_second: float
    refused: tuple[Refusal, ...]
    lines: tuple[Line, ...]
    scenes: Mapping[str, Any] | None
    details: Details

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; the thumbnails stay in `details.pictures`."""
        values = {"schema_version": SCHEMA_VERSION} | asdict(self)
        del values["search"]["strategy"]  # each line has its own
        del values["details"]["pictures"]
        return values

    def summary(self) -> str:
        """What the figures say, in a few sentences."""
        reference, *others = self.lines
        scores = reference.scores
        parts = [
            f"Exact search finds the right product first in {scores.recall_at_1:.2%} and among five in"
            f" {scores.recall_at_5:.2%} of {self.n_query:,} queries; its mAP@100 is {scores.map_at_100:.2%}, and"
            f" {scores.map:.2%} over the whole gallery."
        ]
        for line in others:
            if line.approximate:
                distance = _distance(line, reference)
                parts.append(
                    f"{line.index} is within {distance:.2f} points of it in recall@1, recall@5 and mAP@100."
                )
        exact = [line.index for line in others if not line.approximate and line.index in ("HNSW", "IVF_FLAT")]
        if self.unknown.n_query:
            parts.append(self._about_strangers(reference))
        if exact:
            parts.append(
                f"Milvus built no index for {' and '.join(exact)}: its segments have fewer than 1,024 rows and were"
                " searched exactly, so these lines say nothing about the index."
            )
        return " ".join(parts)

    def _about_strangers(self, reference: Line) -> str:
        unknown, figures = self.unknown, reference.open_set
        why = [
            f"{n:,} {what}"
            for n, what in (
                (unknown.n_query_held_out, f"show one of {len(unknown.held_out):,} products held out of it"),
                (unknown.n_query_unknown_sku, "have a SKU that it lacks"),
            )
            if n
        ]
        said = (
            f"{unknown.n_query:,} queries count as unknown, for the gallery has no answer: {', '.join(why)}."
        )
        if figures is None:
            return said
        return f"{said} Exact search tells them from the known with an AUROC of {figures['auroc'][0]:.3f}."


def _distance(line: Line, reference: Line) -> float:
    """The most that a line differs from the reference in recall@1, recall@5 and mAP@100, in points (0..100).

    Rounded up to the hundredth, so that no two figures of the table lie further apart than is said.
    """
    pairs = [
        (line.scores.recall_at_1, reference.scores.recall_at_1),
        (line.scores.recall_at_5, reference.scores.recall_at_5),
        (line.scores.map_at_100, reference.scores.map_at_100),
    ]
    points = 100 * max(abs(ours - exact) for ours, exact in pairs)
    return math.ceil(round(100 * points, 6)) / 100


def describe_use(collection: CollectionReport) -> str:
    """What Milvus does in a collection, in a word or two; an exact search is never given an index's name."""
    if collection.indexed_rows == 0:
        return SEARCHED_EXACTLY
    if collection.indexed_rows == collection.total_rows:
        return collection.wanted
    return f"{collection.wanted} for {collection.indexed_rows:,} of {collection.total_rows:,} rows, the rest exactly"
