"""Galleries of several sizes and indexes, filled once and kept: filling takes longer than all that is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from django.conf import settings
from django.db import connection
from rich.progress import track

from backend.catalogue.models import Product, ReferenceImage
from recognition.embedder import Embeddings
from recognition.gallery import Entry, Gallery
from recognition.index import IndexSettings, IndexType
from tests.bench.milvus import INDEX_SECONDS
from tests.bench.scale.embeddings import BITS, DIMENSION, PICTURES, product_of

SIZES = (10_000, 30_000, 100_000, 300_000)
INDEXES: tuple[IndexType, ...] = ("HNSW", "IVF_FLAT", "FLAT")
BATCH = 1_000
# Nobody waits at a till here: a search that a busy machine holds up is a slow one, and no failure.
SEARCH_SECONDS = 60.0


@dataclass(frozen=True)
class Filled:
    """A gallery of so many rows."""

    gallery: Gallery
    rows: int

    @property
    def index(self) -> IndexType:
        return self.gallery.index.type


def open_gallery(index: IndexType, rows: int) -> Filled:
    """Named, not filled."""
    gallery = Gallery(
        settings.MILVUS_URI,
        name=f"scale_{index.lower()}_{rows}",
        dimension=DIMENSION,
        hash_bits=BITS,
        index=IndexSettings(index),
        token=settings.MILVUS_TOKEN,
        timeout_seconds=SEARCH_SECONDS,
    )
    return Filled(gallery, rows)


def entries_of(embeddings: Embeddings, start: int, stop: int) -> list[Entry]:
    """These rows, as enrolled once."""
    return [
        Entry(row + 1, product_of(row), 1, embeddings.vectors[row], embeddings.hash_codes[row])
        for row in range(start, stop)
    ]


def fill(galleries: Sequence[Filled], embeddings: Embeddings) -> dict[str, float]:
    """Write what is missing, flush, load, and wait until every index is complete.

    Args:
        embeddings: at least as many as the largest has rows.
    Returns:
        The seconds that each one took which was not there already, by name.
    """
    seconds = {}
    for filled in galleries:
        gallery, started = filled.gallery, perf_counter()
        gallery.create()
        gallery.load()
        there = gallery.count("hash") // BATCH * BATCH  # a run before this one may have been cut off
        if there < filled.rows:
            for start in track(range(there, filled.rows, BATCH), description=gallery.name):
                gallery.upsert(entries_of(embeddings, start, min(start + BATCH, filled.rows)))
            gallery.flush()
            seconds[gallery.name] = perf_counter() - started
    for filled in galleries:
        print(filled.gallery.wait_indexed(INDEX_SECONDS).describe(), flush=True)
    return seconds


# By hand: Django takes minutes for 300,000 rows, PostgreSQL seconds.
_PRODUCTS = f"""
    INSERT INTO {Product._meta.db_table} (id, sku, gtin, name, brand, category, description, currency, sold_by,
                                          attributes, state, created_at, updated_at)
    SELECT n, 'SCALE-' || n, '', 'Product ' || n, '', '', '', '', 'unit', '{{}}', 'active', now(), now()
    FROM generate_series(1, %s) n ON CONFLICT DO NOTHING
"""  # noqa: S608  table names of our own models
_PICTURES = f"""
    INSERT INTO {ReferenceImage._meta.db_table} (id, product_id, image, thumbnail, width, height, sha256, box_source,
                                                 box_detector, quality_findings, revision, created_at, updated_at)
    SELECT n, (n - 1) / {PICTURES} + 1, 'none.jpg', '', 1, 1, n, '', '', '{{}}', 1, now(), now()
    FROM generate_series(1, %s) n ON CONFLICT DO NOTHING
"""  # noqa: S608


def fill_catalogue(rows: int) -> None:
    """Products and pictures in PostgreSQL up to so many, without files: nobody here reads one. What is there stays."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")  # rows for 300,000 pictures in one statement
        cursor.execute(_PRODUCTS, [product_of(rows - 1)])
        cursor.execute(_PICTURES, [rows])
