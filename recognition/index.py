"""The index over a gallery: the one that is asked for, the one that Milvus really uses, and how large it is.

Knows nothing of Milvus but its numbers; `recognition.gallery` builds the index and finds out what became of it.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

IndexType = Literal["HNSW", "IVF_FLAT", "FLAT"]
CollectionKind = Literal["float", "hash"]

HASH_INDEX = "BIN_FLAT"
SEARCHED_EXACTLY = "searched exactly"
# Milvus builds no index for a smaller segment (`rootCoord.minSegmentNumRowsToEnableIndex`).
MIN_INDEXED_ROWS = 1024


@dataclass(frozen=True)
class IndexSettings:
    """The index over the embeddings; hash codes always have BIN_FLAT.

    Attributes:
        type: HNSW; IVF_FLAT, the faster one where most searches are within product sets (see `Gallery.search`);
            FLAT.
        m: links per node of HNSW (twice as many at its lowest level), 4 to 64; 32 is PP-ShiTu's HNSW32.
        ef_construction: candidates kept while HNSW is built, 8 to 512.
        nlist: cells of IVF_FLAT, 1 to 65,536.
    """

    type: IndexType = "HNSW"
    m: int = 32
    ef_construction: int = 200
    nlist: int = 1024

    def __post_init__(self) -> None:
        if self.type not in get_args(IndexType):
            raise ValueError(f"index type is {self.type!r}; wanted one of {', '.join(get_args(IndexType))}")
        for name, low, high in (("m", 4, 64), ("ef_construction", 8, 512), ("nlist", 1, 65_536)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"index setting {name} is {getattr(self, name)}; Milvus takes {low} to {high}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for a generation's row."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings from `to_dict`'s values; a missing one has its default.

        Raises:
            ValueError: an unknown name, or a value that the index cannot have.
        """
        unknown = sorted(values.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(
                f"unknown index settings {', '.join(unknown)}; wanted {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)

    @property
    def build_parameters(self) -> dict[str, int]:
        """What Milvus wants to hear of these settings when it builds the index."""
        if self.type == "HNSW":
            return {"M": self.m, "efConstruction": self.ef_construction}
        return {"nlist": self.nlist} if self.type == "IVF_FLAT" else {}


@dataclass(frozen=True)
class SegmentReport:
    """Rows that Milvus searches in one way.

    Attributes:
        rows: as Milvus counts them: in a sealed segment, deleted rows that are not compacted yet are among them.
        sealed: a sealed segment; otherwise all growing rows together, which Milvus does not list one by one.
        index: the approximate index that is loaded and searched ("HNSW", "IVF_FLAT"), or SEARCHED_EXACTLY.
    """

    rows: int
    sealed: bool
    index: str


@dataclass(frozen=True)
class CollectionReport:
    """What Milvus really searches in one collection.

    Attributes:
        kind: which of the two collections.
        wanted: the index that the collection was created with.
        rows: entries that can be found.
        segments: how each part of them is searched.
        building: Milvus still builds an index for a flushed segment. Its own "indexed rows" counts small segments as
            indexed, so it says when the work is done, not what is searched.
    """

    kind: CollectionKind
    wanted: str
    rows: int
    segments: tuple[SegmentReport, ...]
    building: bool

    @property
    def total_rows(self) -> int:
        """Rows of all segments, those deleted but not yet compacted among them."""
        return sum(segment.rows for segment in self.segments)

    @property
    def indexed_rows(self) -> int:
        """The rows among `total_rows` that are searched through an approximate index."""
        return sum(segment.rows for segment in self.segments if segment.index != SEARCHED_EXACTLY)

    @property
    def complete(self) -> bool:
        """Whether the index is as good as it gets: built and loaded for every segment that Milvus indexes at all."""
        exact_anyhow = self.wanted in ("FLAT", HASH_INDEX)
        return not self.building and all(
            exact_anyhow or segment.index != SEARCHED_EXACTLY or segment.rows < MIN_INDEXED_ROWS
            for segment in self.segments
        )

    def describe(self) -> str:
        """One sentence, such as "float, HNSW wanted, 300 entries: 300 rows searched exactly (growing)"."""
        parts = []
        for segment in sorted(self.segments, key=lambda segment: -segment.rows):
            where = "a sealed segment" if segment.sealed else "growing"
            how = segment.index if segment.index == SEARCHED_EXACTLY else f"searched with {segment.index}"
            parts.append(f"{segment.rows:,} rows {how} ({where})")
        state = "; the index is still being built" if self.building else ""
        return (
            f"{self.kind}, {self.wanted} wanted, {self.rows:,} entries: {', '.join(parts) or 'empty'}{state}"
        )


@dataclass(frozen=True)
class IndexReport:
    """Which index Milvus really uses, collection by collection and segment by segment."""

    float_collection: CollectionReport
    hash_collection: CollectionReport

    @property
    def complete(self) -> bool:
        """Whether both collections' indexes are built and loaded."""
        return self.float_collection.complete and self.hash_collection.complete

    @property
    def growing_rows(self) -> int:
        """The rows that nobody has sealed yet, of the collection that has more of them."""
        return max(
            sum(segment.rows for segment in collection.segments if not segment.sealed)
            for collection in (self.float_collection, self.hash_collection)
        )

    def describe(self) -> str:
        """Both collections in one sentence."""
        return f"{self.float_collection.describe()}. {self.hash_collection.describe()}."


@dataclass(frozen=True)
class IndexBytes:
    """Computed sizes of a generation's indexes, in bytes."""

    float_index: int
    hash_index: int


def computed_index_bytes(index: IndexSettings, rows: int, dimension: int, bits: int) -> IndexBytes:
    """The size of a generation's two indexes in memory, computed from their layouts, not measured.

    FLAT and BIN_FLAT are the vectors alone. IVF_FLAT adds an int64 id a row and nlist centroids (faiss,
    IndexIVFFlat). HNSW adds, in four-byte words, 2 M links and their count at the lowest level, and M links and a
    count at each level above, which 1 / (M - 1) of a row reaches on average (hnswlib: a row's level is
    floor(-ln(U) / ln(M))), and an eight-byte label. On disk Milvus compresses: seen were 0.87 (HNSW) and 0.93
    (IVF_FLAT) of this at 40,000 x 512.

    Args:
        rows: entries.
        dimension: of the embeddings.
        bits: of the hash codes.
    """
    vectors = 4 * rows * dimension
    extra = 0.0
    if index.type == "IVF_FLAT":
        extra = 8 * rows + 4 * index.nlist * dimension
    elif index.type == "HNSW":
        extra = rows * (4 * (2 * index.m + 1) + 4 * (index.m + 1) / (index.m - 1) + 8)
    return IndexBytes(float_index=vectors + round(extra), hash_index=rows * bits // 8)
