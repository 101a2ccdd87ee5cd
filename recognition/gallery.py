"""The gallery in Milvus: the few verbs that we use of it, typed, and nothing of its breadth.

One `Gallery` is one generation: two collections with the same rows, one holding embeddings (`float`), one holding hash
codes (`hash`). Milvus is an index that can always be rebuilt: what a product is, and whether it may still be answered,
is for the caller to know. This is the only module that imports pymilvus, and none of pymilvus' or gRPC's errors leave
it. It stays inside what Milvus 2.3 to 2.6 share: one vector field per collection, no nullable fields, no filter
templates, and a consistency named with every read.

The server's interim index must be off (`queryNode.segcore.interimIndex.enableIndex: false`): it searches growing rows
approximately and says so nowhere, so neither an exact search nor `IndexReport` could be trusted.
"""

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NoReturn, get_args
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.types import SegmentState
from pymilvus.client.utils import check_status
from pymilvus.exceptions import ErrorCode

from recognition.embedder import Embeddings
from recognition.errors import GalleryMismatch, GalleryUnavailable, RecognitionError
from recognition.index import (
    HASH_INDEX,
    SEARCHED_EXACTLY,
    CollectionKind,
    CollectionReport,
    IndexReport,
    IndexSettings,
    SegmentReport,
)

__all__ = ["Entry", "Gallery", "IndexReport", "IndexSettings", "Match", "SearchSettings", "Strategy", "ping"]

# pymilvus logs every failure with a traceback. The caller hears of it from our error, which keeps the cause.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

Strategy = Literal["float", "hash", "hash_rerank"]

# Up to so many entries a search within a product set equals brute force over them, whatever the index.
EXACT_SET_ENTRIES = 20_000

_MAX_LIMIT = 16_384  # of Milvus, for the rows of one query
_WRITE_SECONDS = 60.0
_MAINTENANCE_SECONDS = 600.0  # loading and flushing grow with the gallery
_ROWS_PER_WRITE = 1_000  # 2 MB at 512 dimensions; Milvus takes 64 MB
_ROWS_PER_READ = 10_000
_POLL_SECONDS = 0.5
_RERANKED_TOGETHER = 5  # crops in one search; its answer grows with their number squared
# Crops searched at once within a product set, where each takes tens of milliseconds.
_WITHIN_TOGETHER = 10

# A larger set (see `Gallery.search`): so many times the wanted matches are looked through first, then as many as the
# share that was of the set asks for, and half more; deeper than this a filter is cheaper.
_FIRST_DEPTH = 2
_RESERVE = 1.5
_DEEPEST = 4_096
# HNSW in a set that is large, but rare among what looks alike.
_WIDE_EF = 2_048
_SPARSE_SHARE = 0.2  # of the gallery's entries: below it filtered HNSW loses whole neighbourhoods ...
_SCANNED_SHARE = 0.05  # ... and below this it scans, so that a sparse set is searched in parts of this size

_ID = "reference_image_id"
_VECTOR = "vector"  # the field's name and its index's


@dataclass(frozen=True)
class SearchSettings:
    """How a crop's matches are found.

    Attributes:
        strategy: float (embeddings), hash (hash codes), or hash_rerank (hash codes, then exact cosine on the best).
        matches: matches per crop (K), 1 to 16,384.
        ef: candidates kept while HNSW is searched; raised to the number of matches.
        nprobe: cells of IVF_FLAT that are searched.
        rerank: matches by hash code that hash_rerank looks at again (N), at least `matches`.
    """

    strategy: Strategy = "float"
    matches: int = 100
    ef: int = 128
    nprobe: int = 16
    rerank: int = 200

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"strategy is {self.strategy!r}; wanted one of {', '.join(get_args(Strategy))}")
        if not 1 <= self.matches <= self.rerank <= _MAX_LIMIT:
            raise ValueError(
                f"matches is {self.matches} and rerank {self.rerank}; wanted 1 <= matches <= rerank <= {_MAX_LIMIT}"
            )
        if self.ef < 1 or self.nprobe < 1:
            raise ValueError(f"ef is {self.ef} and nprobe {self.nprobe}; both must be at least 1")


@dataclass(frozen=True)
class Entry:
    """One reference image as the gallery holds it.

    Attributes:
        reference_image_id: its primary key in both collections.
        product_id: the product that the picture shows.
        revision: of the picture and its box, as embedded.
        vector: the embedding, (D,) float32, L2 norm 1.
        hash_code: the packed hash code, (bits // 8,) uint8.
    """

    reference_image_id: int
    product_id: int
    revision: int
    vector: NDArray[np.float32]
    hash_code: NDArray[np.uint8]


def embeddings_of(entries: Sequence[Entry]) -> Embeddings:
    """What entries hold, as queries of a gallery.

    Args:
        entries: at least one.
    """
    return Embeddings(
        np.stack([entry.vector for entry in entries]), np.stack([entry.hash_code for entry in entries])
    )


@dataclass(frozen=True)
class Match:
    """One reference image found for a crop.

    Attributes:
        similarity: higher is nearer: the cosine, or 1 - 2 * distance / bits of a hash search; in [-1, 1].
    """

    reference_image_id: int
    product_id: int
    similarity: float


class _Deadline:
    """The moment until which a caller waits, shared by all calls that one answer takes."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never quite nothing, since pymilvus takes no timeout of zero."""
        return max(self._end - time.monotonic(), 0.001)


# gRPC waits up to 2 minutes before it tries a dead server again; a restarted one must be used at once.
_CHANNEL_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
# pymilvus connects under a lock of its own that is waited for without a bound: behind a hung server each thread would
# wait for all those before it. This one, taken first, has a bound.
_opening = threading.Lock()


class _Milvus:
    """A connection: opened on first use in each process, then repaired by gRPC itself; it translates every error."""

    def __init__(self, uri: str, token: str) -> None:
        self._uri = uri
        self._token = token
        self._address = urlsplit(uri).netloc.rpartition("@")[2] or uri  # messages name no password
        self._client: MilvusClient | None = None
        self._opened_in = 0  # process id

    @contextmanager
    def client(self, deadline: _Deadline) -> Iterator[MilvusClient]:
        """The client, whose failures leave the block as our errors."""
        try:
            yield self._open(deadline)
        except (MilvusException, grpc.RpcError) as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Let go of the connection; the next use opens another."""
        client, self._client = self._client, None
        if client is not None:
            _close(client, self._opened_in)

    def _open(self, deadline: _Deadline) -> MilvusClient:
        if self._client is not None and self._opened_in == os.getpid():
            return self._client
        if not _opening.acquire(timeout=deadline.left()):
            raise GalleryUnavailable(f"Milvus at {self._address} does not accept a connection; retry")
        try:
            if self._client is None or self._opened_in != os.getpid():
                client = MilvusClient(
                    self._uri,
                    token=self._token,
                    timeout=deadline.left(),
                    dedicated=True,
                    grpc_options=_CHANNEL_OPTIONS,
                )
                # pymilvus answers a lost connection with a reconnection under its lock, then retries with a new
                # timeout each. Raising from its hook leaves both out: gRPC reconnects, the caller decides on retries.
                client._get_connection()._on_rpc_error = _raise
                self._client, self._opened_in = client, os.getpid()
                weakref.finalize(self, _close, client, self._opened_in).atexit = False
            return self._client
        finally:
            _opening.release()

    def _translated(self, error: MilvusException | grpc.RpcError) -> RecognitionError:
        rpc_failed = isinstance(error, grpc.RpcError)
        code = error.code() if rpc_failed else error.code
        said = error.details() if rpc_failed else error.message
        if code in (ErrorCode.COLLECTION_NOT_FOUND, ErrorCode.INDEX_NOT_FOUND):
            return GalleryMismatch(
                f"Milvus at {self._address} says: {said}; rebuild this generation or choose another one"
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return GalleryUnavailable(f"Milvus at {self._address} did not answer in time; retry")
        return GalleryUnavailable(f"Milvus at {self._address} cannot answer now; retry. It says: {said}")


def _raise(error: Exception) -> NoReturn:
    raise error


def _close(client: MilvusClient, opened_in: int) -> None:
    if os.getpid() == opened_in:  # a forked child must not touch its parent's channel
        client.close()


def ping(uri: str, token: str, timeout_seconds: float) -> str:
    """The server's version, such as "v2.3.5".

    Raises:
        GalleryUnavailable: it does not answer within `timeout_seconds`.
    """
    deadline = _Deadline(timeout_seconds)
    milvus = _Milvus(uri, token)
    try:
        with milvus.client(deadline) as client:
            return str(client.get_server_version(timeout=deadline.left()))
    finally:
        milvus.close()


class Gallery:
    """All embeddings of one generation that can be found.

    Made cheaply: it connects on first use, and again in a process forked later. Threads may share one. Every method
    may raise GalleryUnavailable (Milvus does not answer: retry) and GalleryMismatch (a collection is missing: rebuild
    or choose another generation). A dead or hung server is told within `timeout_seconds`; the work itself may take
    longer, except in `search`, whose whole answer comes within it, or within a product set that of each ten crops. A
    restarted Milvus first says for half a minute that the collection is not loaded; that too is GalleryUnavailable,
    and it loads by itself.
    """

    def __init__(
        self,
        uri: str,
        *,
        name: str,
        dimension: int,
        hash_bits: int,
        index: IndexSettings,
        token: str = "",
        timeout_seconds: float = 2.0,
    ) -> None:
        """Name a gallery; nothing is sent yet.

        Args:
            uri: of Milvus, such as http://127.0.0.1:19530.
            name: letters, digits and underscores; the collections are `{name}_float` and `{name}_hash`.
            dimension: of the embeddings.
            hash_bits: of the hash codes, a multiple of 8.
            token: user:password, or empty.
            timeout_seconds: patience for a search, and for noticing that nobody answers.
        """
        self.name = name
        self.dimension = dimension
        self.hash_bits = hash_bits
        self.index = index
        self._timeout_seconds = timeout_seconds
        self._milvus = _Milvus(uri, token)
        self._collections: dict[CollectionKind, str] = {"float": f"{name}_float", "hash": f"{name}_hash"}

    # Life of the collections.

    def create(self) -> None:
        """Create both collections with their indexes, unless they are there; not loaded yet.

        Raises:
            GalleryMismatch: they are there and are not what this gallery wants.
        """
        for kind, collection in self._collections.items():
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(_ID, DataType.INT64, is_primary=True)
            schema.add_field("product_id", DataType.INT64)
            schema.add_field("revision", DataType.INT64)
            if kind == "float":
                schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=self.dimension)
            else:
                schema.add_field(_VECTOR, DataType.BINARY_VECTOR, dim=self.hash_bits)
            index = MilvusClient.prepare_index_params()
            index.add_index(_VECTOR, index_name=_VECTOR, **self._wanted_index(kind))
            with self._patient() as client:
                if not client.has_collection(collection, timeout=_WRITE_SECONDS):
                    client.create_collection(
                        collection, schema=schema, consistency_level="Bounded", timeout=_WRITE_SECONDS
                    )
                if client.describe_index(collection, _VECTOR, timeout=_WRITE_SECONDS) is None:
                    client.create_index(collection, index, sync=False, timeout=_WRITE_SECONDS)
        self.check()

    def exists(self) -> bool:
        """Whether both collections are there."""
        with self._patient() as client:
            return all(
                client.has_collection(name, timeout=_WRITE_SECONDS) for name in self._collections.values()
            )

    def check(self) -> None:
        """Compare dimensions, metrics and indexes in Milvus with what this gallery wants.

        Raises:
            GalleryMismatch: a collection is missing or another one; the message names the value found and wanted.
        """
        wanted_dimension = {"float": self.dimension, "hash": self.hash_bits}
        for kind, collection in self._collections.items():
            with self._patient() as client:
                fields = client.describe_collection(collection, timeout=_WRITE_SECONDS)["fields"]
                index = client.describe_index(collection, _VECTOR, timeout=_WRITE_SECONDS) or {}
            dimension = {field["name"]: field["params"].get("dim") for field in fields}.get(_VECTOR)
            wanted_index = self._wanted_index(kind)
            wanted: dict[str, object] = {
                "dimension": wanted_dimension[kind],
                "index_type": wanted_index["index_type"],
                "metric_type": wanted_index["metric_type"],
                **wanted_index["params"],
            }
            for name, value in wanted.items():
                found = dimension if name == "dimension" else index.get(name)
                if str(found) != str(value):  # Milvus answers index parameters as text
                    raise GalleryMismatch(
                        f"collection {collection} has {name} {found}, and this gallery wants {value}; "
                        "rebuild this generation or choose another one"
                    )

    def load(self) -> None:
        """Load both collections for searching and return when they are; rows that follow are searched too."""
        with self._patient() as client:
            for collection in self._collections.values():  # both at once: Milvus takes seconds for each
                client.load_collection(collection, timeout=_MAINTENANCE_SECONDS, _async=True)
            for collection in self._collections.values():
                client.load_collection(collection, timeout=_MAINTENANCE_SECONDS)

    def drop(self) -> None:
        """Drop both collections, whatever of them is there."""
        with self._patient() as client:
            for collection in self._collections.values():
                client.drop_collection(collection, timeout=_WRITE_SECONDS)

    def flush(self) -> None:
        """Seal all rows written so far, so that Milvus stores and indexes them. Needless for finding them."""
        with self._patient() as client:
            for collection in self._collections.values():
                client.flush(collection, timeout=_MAINTENANCE_SECONDS)

    def close(self) -> None:
        """Let go of the connection; a later call opens another."""
        self._milvus.close()

    # Writing.

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Write entries to both collections; writing them again changes nothing.

        Of several entries with one id the last counts: Milvus would keep them all (seen in 2.3.5).

        Raises:
            GalleryMismatch: an entry's embedding or hash code has another length; nothing is written.
        """
        latest = list({entry.reference_image_id: entry for entry in entries}.values())
        for entry in latest:
            self._check_lengths(entry.vector.shape[-1], entry.hash_code.shape[-1])
        for start in range(0, len(latest), _ROWS_PER_WRITE):
            chunk = latest[start : start + _ROWS_PER_WRITE]
            with self._patient() as client:
                for kind, collection in self._collections.items():
                    rows = [
                        {
                            _ID: entry.reference_image_id,
                            "product_id": entry.product_id,
                            "revision": entry.revision,
                            _VECTOR: entry.vector if kind == "float" else entry.hash_code.tobytes(),
                        }
                        for entry in chunk
                    ]
                    client.upsert(collection, rows, timeout=_WRITE_SECONDS)

    def delete(self, reference_image_ids: Sequence[int]) -> None:
        """Delete entries from both collections; those that are not there are no error."""
        ids = list(reference_image_ids)
        for start in range(0, len(ids), _ROWS_PER_WRITE):
            chosen = _is_in(_ID, ids[start : start + _ROWS_PER_WRITE])
            with self._patient() as client:
                for collection in self._collections.values():
                    client.delete(collection, filter=chosen, timeout=_WRITE_SECONDS)

    # Searching.

    def search(
        self,
        embeddings: Embeddings,
        settings: SearchSettings,
        *,
        product_ids: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[list[Match]]:
        """Find the matches of all crops of a query image, in one call to Milvus where the strategy allows it.

        A write is seen within seconds (Bounded consistency; 0.2 s measured).

        Within `product_ids` the answer equals brute force over the set's entries, up to EXACT_SET_ENTRIES of them.
        Milvus alone does not give that (seen in 2.3.5, 40,000 x 512, sets of 50 to 30,000 entries):

        - FLAT, BIN_FLAT, growing rows and segments without an index are searched exactly anyhow.
        - IVF_FLAT looks for the set's entries in the `nprobe` nearest cells only, and finds a tenth of them in small
          sets. So all cells are searched: exact for sets of any size, at about the cost of a scan over the set.
        - HNSW scans, and is exact, where less than 7 % of a segment's rows pass the filter. Above that, recall@100
          falls to 0.8, and no `ef` cures it: some entries cannot be reached through filtered links. But it also
          scans when a query asks for at least half of the entries that pass the filter (knowhere:
          kHnswSearchBFTopkThreshold), with a sharp edge: asked for 1,499 of 3,000 entries, 4 of 120 queries missed
          some of their nearest 100; asked for 1,500, none. So half of the set is asked for, and cut to `limit`
          here. That costs most where sets are large: within 20,000 entries it took 3 times what IVF_FLAT took.

        Beyond EXACT_SET_ENTRIES, or so many products, the whole gallery is searched deeper, and what is not of the set
        is left out here, with recall@10 of at least 0.99 of brute force. A filter would name each product, and Milvus
        reads it anew for each search: 30,000 ids took it half a second. Where that is too deep, the set is rare among
        what looks alike, and a filter it is: for HNSW with a wider `ef`, a sparse set in parts that are scanned, since
        with any `ef` 1 query of 100 found nothing near (20,500 entries of 200,000).

        Args:
            embeddings: of all crops.
            product_ids: only these products' entries are searched; None: all.
            limit: matches per crop in place of `settings.matches`; at most 16,384 are given.
        Returns:
            For each crop its matches, the most similar first, equal ones by id.
        Raises:
            GalleryMismatch: the embeddings' dimension or hash length is not the gallery's.
        """
        if not len(embeddings):
            return []
        self._check_lengths(embeddings.vectors.shape[1], embeddings.hash_codes.shape[1])
        products = None if product_ids is None else np.unique(np.asarray(product_ids, np.int64))
        if products is not None and not len(products):
            return [[] for _ in range(len(embeddings))]
        if products is not None and len(embeddings) > _WITHIN_TOGETHER:
            starts = range(0, len(embeddings), _WITHIN_TOGETHER)
            parts = (embeddings.take(slice(start, start + _WITHIN_TOGETHER)) for start in starts)
            searched = (self.search(part, settings, product_ids=product_ids, limit=limit) for part in parts)
            return list(chain.from_iterable(searched))
        limit = min(settings.matches if limit is None else limit, _MAX_LIMIT)
        deadline = _Deadline(self._timeout_seconds)
        if settings.strategy == "float":
            return self._search_float(embeddings.vectors, products, limit, settings, deadline)
        codes = [code.tobytes() for code in embeddings.hash_codes]
        if settings.strategy == "hash":
            return self._search_hash(codes, products, limit, deadline)
        n_nearest = max(settings.rerank, limit)
        nearest = self._search_hash(codes, products, n_nearest, deadline)
        together = min(_RERANKED_TOGETHER, _MAX_LIMIT // n_nearest)
        reranked: list[list[Match]] = []
        for start in range(0, len(nearest), together):
            part = slice(start, start + together)
            reranked += self._rerank(embeddings.vectors[part], nearest[part], limit, deadline)
        return reranked

    def wait_found(self, ids: Sequence[int], timeout_seconds: float) -> None:
        """Wait until searches, which see a write only within seconds, see these entries.

        Raises:
            GalleryUnavailable: they do not after `timeout_seconds`.
        """
        wanted, deadline = sorted(set(ids)), time.monotonic() + timeout_seconds
        chosen = _is_in(_ID, wanted)
        for kind in self._collections:
            while True:
                with self._patient() as client:
                    n_found = self._count(client, kind, chosen, "Bounded", _WRITE_SECONDS)
                if n_found == len(wanted):
                    break
                if time.monotonic() > deadline:
                    raise GalleryUnavailable(
                        f"searches of {self.name} find {n_found} of {len(wanted)} entries {timeout_seconds} s after"
                        " they were written; wait longer"
                    )
                time.sleep(_POLL_SECONDS)

    def probe(self, settings: SearchSettings) -> None:
        """Search once, for nothing in particular: whether this gallery answers, which raises as `search` does."""
        anything = np.eye(1, self.dimension, dtype=np.float32)
        code = np.zeros((1, self.hash_bits // 8), np.uint8)
        self.search(Embeddings(anything, code), settings, limit=1)

    def _rerank(
        self, vectors: NDArray[np.float32], nearest: list[list[Match]], limit: int, deadline: _Deadline
    ) -> list[list[Match]]:
        """Order each query's matches by cosine: Milvus compares all of them with all queries in one search.

        At 5 crops of 200 matches that took a tenth of the time of fetching the vectors and comparing here, and 0.4 of
        the time of a search for each crop.
        """
        own = [{match.reference_image_id for match in matches} for matches in nearest]
        ids = sorted(set().union(*own))
        found = self._search_exactly(vectors, _is_in(_ID, ids), len(ids), len(ids), deadline)
        return [
            [match for match in matches if match.reference_image_id in mine][:limit]
            for matches, mine in zip(found, own, strict=True)
        ]

    def _search_float(
        self,
        vectors: NDArray[np.float32],
        products: NDArray[np.int64] | None,
        limit: int,
        settings: SearchSettings,
        deadline: _Deadline,
    ) -> list[list[Match]]:
        """Search embeddings; within `products`, where given, as `search` says."""
        if products is None:
            effort = self._effort(max(settings.ef, limit), settings.nprobe)
            return self._nearest("float", vectors, "", limit, effort, deadline)
        all_cells = self.index.nlist

        def deeply(rows: Sequence[int], depth: int) -> list[list[Match]]:
            effort = self._effort(max(settings.ef, depth), all_cells)
            return self._nearest(
                "float", vectors[rows], "", limit, effort, deadline, asked=depth, of=products
            )

        def filtered(rows: Sequence[int]) -> list[list[Match]]:
            if self.index.type == "HNSW":
                return self._search_hnsw_within(products, vectors[rows], limit, settings, deadline)
            chosen = _is_in("product_id", products)
            return self._nearest(
                "float", vectors[rows], chosen, limit, self._effort(limit, all_cells), deadline
            )

        if len(products) > EXACT_SET_ENTRIES:
            return _search_deeper(len(vectors), limit, deeply, filtered)
        if self.index.type != "HNSW":
            return filtered(range(len(vectors)))
        chosen = _is_in("product_id", products)
        with self._milvus.client(deadline) as client:
            entries = self._count(client, "float", chosen, "Bounded", deadline.left())
        if entries <= EXACT_SET_ENTRIES:
            return self._search_exactly(vectors, chosen, entries, limit, deadline)
        return _search_deeper(len(vectors), limit, deeply, filtered)

    def _search_hash(
        self, codes: list[bytes], products: NDArray[np.int64] | None, limit: int, deadline: _Deadline
    ) -> list[list[Match]]:
        """Search hash codes; within `products`, where given."""

        def deeply(rows: Sequence[int], depth: int) -> list[list[Match]]:
            some = [codes[row] for row in rows]
            return self._nearest("hash", some, "", limit, {}, deadline, asked=depth, of=products)

        def filtered(rows: Sequence[int]) -> list[list[Match]]:
            chosen = "" if products is None else _is_in("product_id", products)
            return self._nearest("hash", [codes[row] for row in rows], chosen, limit, {}, deadline)

        if products is None or len(products) <= EXACT_SET_ENTRIES:
            return filtered(range(len(codes)))
        return _search_deeper(len(codes), limit, deeply, filtered)

    def _search_hnsw_within(
        self,
        products: NDArray[np.int64],
        vectors: NDArray[np.float32],
        limit: int,
        settings: SearchSettings,
        deadline: _Deadline,
    ) -> list[list[Match]]:
        """Search a large set through HNSW by filters, in parts that are scanned where it is sparse."""
        with self._milvus.client(deadline) as client:
            entries = self._count(client, "float", _is_in("product_id", products), "Bounded", deadline.left())
            share = entries / max(self._count(client, "float", "", "Bounded", deadline.left()), 1)
        parts = max(math.ceil(share / _SCANNED_SHARE), 1) if share < _SPARSE_SHARE else 1
        effort = self._effort(max(settings.ef, limit, _WIDE_EF), settings.nprobe)
        found = [
            self._nearest(
                "float", vectors, _is_in("product_id", products[part::parts]), limit, effort, deadline
            )
            for part in range(parts)
        ]
        return [_best_first(chain.from_iterable(near))[:limit] for near in zip(*found, strict=True)]

    def _search_exactly(
        self, vectors: NDArray[np.float32], chosen: str, entries: int, limit: int, deadline: _Deadline
    ) -> list[list[Match]]:
        """Search as brute force would among the few `entries` that `chosen` lets pass; `search` says how."""
        if not entries:
            return [[] for _ in vectors]
        asked = limit
        if self.index.type == "HNSW":
            # A little more than half: entries may have been added since they were counted.
            asked = min(max(limit, entries * 11 // 20 + 10), _MAX_LIMIT)
        effort = self._effort(asked, self.index.nlist)
        return self._nearest("float", vectors, chosen, limit, effort, deadline, asked=asked)

    def _effort(self, ef: int, nprobe: int) -> dict[str, int]:
        """The search parameters that this gallery's index knows."""
        if self.index.type == "HNSW":
            return {"ef": ef}
        return {"nprobe": min(nprobe, self.index.nlist)} if self.index.type == "IVF_FLAT" else {}

    def _nearest(
        self,
        kind: CollectionKind,
        queries: NDArray[np.float32] | list[bytes],
        chosen: str,
        limit: int,
        effort: dict[str, int],
        deadline: _Deadline,
        *,
        asked: int | None = None,
        of: NDArray[np.int64] | None = None,
    ) -> list[list[Match]]:
        """One search call: for each query its nearest entries among those that the filter `chosen` lets pass.

        `asked` is how many Milvus is asked for, where that is to be more than the `limit` that are given. Of what it
        gives only entries `of` these products, ascending, are kept, where products are named.
        """
        with self._milvus.client(deadline) as client:
            pending = client.search(
                self._collections[kind],
                data=queries,
                filter=chosen,
                limit=asked or limit,
                output_fields=["product_id"],
                search_params={"metric_type": self._wanted_index(kind)["metric_type"], "params": effort},
                consistency_level="Bounded",
                timeout=deadline.left(),
                _async=True,
            )
            pending.exception()
            # The answer as it came: pymilvus makes three objects of each row, which takes longer than the search
            # does where half of a product set is asked for.
            answer = pending._future.result()
            check_status(answer.status)
        ids, distances = answer.results.ids.int_id.data, answer.results.scores
        products: Sequence[int] = next(
            (field.scalars.long_data.data for field in answer.results.fields_data), []
        )
        matches: list[list[Match]] = []
        start = 0
        for n_found in answer.results.topks:
            rows: Sequence[int] = range(start, start + n_found)
            if of is not None:
                kept = _are_in(of, np.asarray(products[start : start + n_found], np.int64))
                rows = [row for row, is_kept in zip(rows, kept, strict=True) if is_kept]
            matches.append(
                _best_first(
                    Match(ids[row], products[row], self._similarity(kind, distances[row]))
                    for row in rows[:limit]
                )
            )
            start += n_found
        # Of an empty collection Milvus says nothing at all.
        return matches or [[] for _ in queries]

    def _similarity(self, kind: CollectionKind, distance: float) -> float:
        if kind == "hash":
            return 1.0 - 2.0 * distance / self.hash_bits
        return min(max(distance, -1.0), 1.0)  # rounding may carry a product of unit vectors a little beyond 1

    # Verification: with Strong consistency, so that every write that has returned is seen.

    def count(self, kind: CollectionKind = "float") -> int:
        """How many entries a collection holds."""
        with self._patient() as client:
            return self._count(client, kind, "", "Strong", _WRITE_SECONDS)

    def entries(self, kind: CollectionKind = "float") -> Iterator[tuple[int, int, int]]:
        """Stream (reference image id, product id, revision) of a collection's entries, by ascending id.

        Each page is as new as its reading; what is written meanwhile may or may not be among them. pymilvus' own
        iterator is not used: it takes the collection's default consistency, trusts the clock of this machine with
        Milvus 2.3, and opens without a timeout.
        """
        last: int | None = None
        while True:
            with self._patient() as client:
                rows = client.query(
                    self._collections[kind],
                    filter="" if last is None else f"{_ID} > {last}",
                    output_fields=[_ID, "product_id", "revision"],
                    limit=_ROWS_PER_READ,
                    reduce_stop_for_best="True",  # the lowest ids of all segments, not any `limit` of them
                    consistency_level="Strong",
                    timeout=_WRITE_SECONDS,
                )
            if not rows:
                return
            for row in rows:
                yield row[_ID], row["product_id"], row["revision"]
            last = rows[-1][_ID]

    def find(
        self, reference_image_ids: Sequence[int], kind: CollectionKind = "float"
    ) -> list[tuple[int, int, int]]:
        """(reference image id, product id, revision) of those of these entries that a collection has.

        Args:
            reference_image_ids: at most a few thousand.
        """
        with self._patient() as client:
            rows = client.query(
                self._collections[kind],
                filter=_is_in(_ID, list(reference_image_ids)),
                output_fields=[_ID, "product_id", "revision"],
                consistency_level="Strong",
                timeout=_WRITE_SECONDS,
            )
        return [(row[_ID], row["product_id"], row["revision"]) for row in rows]

    def fetch(self, reference_image_ids: Sequence[int]) -> list[Entry]:
        """Read entries back, by ascending id; those that are not in both collections are left out.

        Args:
            reference_image_ids: at most a few thousand, since whole vectors come back.
        """
        fields = {"float": [_ID, "product_id", "revision", _VECTOR], "hash": [_ID, _VECTOR]}
        chosen = _is_in(_ID, list(reference_image_ids))
        with self._patient() as client:
            rows = {
                kind: {
                    row[_ID]: row
                    for row in client.query(
                        collection,
                        filter=chosen,
                        output_fields=fields[kind],
                        consistency_level="Strong",
                        timeout=_WRITE_SECONDS,
                    )
                }
                for kind, collection in self._collections.items()
            }
        return [
            Entry(
                pk,
                row["product_id"],
                row["revision"],
                np.asarray(row[_VECTOR], np.float32),
                np.frombuffer(rows["hash"][pk][_VECTOR][0], np.uint8),
            )
            for pk, row in sorted(rows["float"].items())
            if pk in rows["hash"]
        ]

    def index_report(self) -> IndexReport:
        """Which index Milvus really uses, from the segments that are loaded."""
        return IndexReport(self._collection_report("float"), self._collection_report("hash"))

    def wait_indexed(self, timeout_seconds: float) -> IndexReport:
        """Wait until all that is flushed is indexed as far as Milvus indexes it, and those indexes are loaded.

        Raises:
            GalleryUnavailable: it was not within `timeout_seconds`; the message says what is missing.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (report := self.index_report()).complete:
            if time.monotonic() > deadline:
                raise GalleryUnavailable(
                    f"the index of {self.name} is not complete after {timeout_seconds} s; wait longer. "
                    f"{report.describe()}"
                )
            time.sleep(_POLL_SECONDS)
        return report

    def _collection_report(self, kind: CollectionKind) -> CollectionReport:
        collection = self._collections[kind]
        with self._patient() as client:
            index = client.describe_index(collection, _VECTOR, timeout=_WRITE_SECONDS)
            # A segment without the name of a loaded index is scanned. Milvus loads none for FLAT and BIN_FLAT.
            segments = [
                SegmentReport(
                    rows=segment.num_rows,
                    sealed=True,
                    index=self.index.type
                    if segment.index_name and self._approximate(kind)
                    else SEARCHED_EXACTLY,
                )
                for segment in client.list_loaded_segments(collection, timeout=_WRITE_SECONDS)
                if segment.state == SegmentState.Sealed and segment.num_rows
            ]
            sealed = self._count(client, kind, "", "Strong", _WRITE_SECONDS, ignore_growing=True)
            rows = self._count(client, kind, "", "Strong", _WRITE_SECONDS)
        if rows > sealed:
            segments.append(SegmentReport(rows=rows - sealed, sealed=False, index=SEARCHED_EXACTLY))
        return CollectionReport(
            kind=kind,
            wanted=self._wanted_index(kind)["index_type"],
            rows=rows,
            segments=tuple(segments),
            building=index["indexed_rows"] < index["total_rows"] or index["pending_index_rows"] > 0,
        )

    # What the methods above share.

    @contextmanager
    def _patient(self) -> Iterator[MilvusClient]:
        """A client for work that may take long, once the server has answered within `timeout_seconds`."""
        deadline = _Deadline(self._timeout_seconds)
        with self._milvus.client(deadline) as client:
            client.get_server_version(timeout=deadline.left())
            yield client

    def _count(
        self,
        client: MilvusClient,
        kind: CollectionKind,
        chosen: str,
        consistency: Literal["Bounded", "Strong"],
        timeout_seconds: float,
        *,
        ignore_growing: bool = False,
    ) -> int:
        rows = client.query(
            self._collections[kind],
            filter=chosen,
            output_fields=["count(*)"],
            ignore_growing=ignore_growing,
            consistency_level=consistency,
            timeout=timeout_seconds,
        )
        return int(rows[0]["count(*)"])

    def _approximate(self, kind: CollectionKind) -> bool:
        return kind == "float" and self.index.type != "FLAT"

    def _wanted_index(self, kind: CollectionKind) -> dict[str, Any]:
        if kind == "hash":
            return {"index_type": HASH_INDEX, "metric_type": "HAMMING", "params": {}}
        return {"index_type": self.index.type, "metric_type": "IP", "params": self.index.build_parameters}

    def _check_lengths(self, dimension: int, code_bytes: int) -> None:
        if (dimension, code_bytes * 8) != (self.dimension, self.hash_bits):
            raise GalleryMismatch(
                f"embeddings have {dimension} dimensions and {code_bytes * 8} bits, and gallery {self.name} wants "
                f"{self.dimension} and {self.hash_bits}; use the embedder that this generation was built with"
            )


def _best_first(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.similarity, match.reference_image_id))


def _search_deeper(
    n_queries: int,
    limit: int,
    deeply: Callable[[Sequence[int], int], list[list[Match]]],
    filtered: Callable[[Sequence[int]], list[list[Match]]],
) -> list[list[Match]]:
    """Search everything, deeper and deeper, until each query has its matches out of a set, or by a filter at last.

    Args:
        deeply: given rows of queries and a depth, the matches among the `depth` nearest of all.
        filtered: given rows of queries, the matches by a filter.
    """
    found: list[list[Match]] = [[] for _ in range(n_queries)]
    short, depth = list(range(n_queries)), _FIRST_DEPTH * limit
    while short and depth <= _DEEPEST:
        for row, matches in zip(short, deeply(short, depth), strict=True):
            found[row] = matches
        short = [row for row in short if len(found[row]) < limit]
        n_found = sum(len(found[row]) for row in short)
        depth = math.ceil(depth * max(2.0, _RESERVE * limit * len(short) / max(n_found, 1)))
    if short:
        for row, matches in zip(short, filtered(short), strict=True):
            found[row] = matches
    return found


def _are_in(values: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of those asked for are among the values, which ascend; NumPy's own sorts both."""
    places = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    return np.equal(values[places], asked)


def _is_in(field: str, values: Sequence[int] | NDArray[np.int64]) -> str:
    """A filter expression: the field's value is one of these."""
    return f"{field} in [{','.join(str(int(value)) for value in values)}]"
