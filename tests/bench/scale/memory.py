"""What Milvus holds in memory for one gallery alone: its process, started anew, with that gallery loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import psutil
from django.conf import settings
from pymilvus import MilvusClient
from rich.progress import track
from rich.table import Table

from backend.engines import embedded
from recognition.gallery import SearchSettings
from tests.bench.scale.filling import INDEX_SECONDS, Filled
from tests.bench.scale.strategies import index_megabytes

SEARCHES = 20
# After a start Milvus reads its log again, and holds what it read for a while.
SETTLING_SECONDS = 30.0


def measure_memory(galleries: Sequence[Filled], folder: Path) -> list[dict[str, Any]]:
    """Milvus' resident memory with nothing loaded, then with each gallery.

    Args:
        folder: of the embedded engines, which are stopped and started for each; all galleries are loaded at the end.
    """
    found: list[dict[str, Any]] = []
    with _client() as client:
        for name in client.list_collections():
            client.release_collection(name)
    found.append(
        {"rows": 0, "index": "nothing loaded", "resident_mb": _restarted(folder), "computed_mb": 0.0}
    )
    for filled in track(galleries, description="loading alone"):
        filled.gallery.load()
        filled.gallery.wait_indexed(INDEX_SECONDS)
        _restarted(folder)
        filled.gallery.wait_indexed(INDEX_SECONDS)
        for _ in range(SEARCHES):
            filled.gallery.probe(SearchSettings())
        found.append(
            {
                "rows": filled.rows,
                "index": filled.index,
                "resident_mb": _resident(folder),
                "computed_mb": index_megabytes(filled),
            }
        )
        with _client() as client:
            for kind in ("float", "hash"):
                client.release_collection(f"{filled.gallery.name}_{kind}")
    for filled in galleries:
        filled.gallery.load()
    return found


@contextmanager
def _client() -> Iterator[MilvusClient]:
    """For what the gallery has no verb for, since nobody but this wants a gallery out of memory."""
    client = MilvusClient(settings.MILVUS_URI, token=settings.MILVUS_TOKEN)
    try:
        yield client
    finally:
        client.close()


def _restarted(folder: Path) -> float:
    """What Milvus holds after a new start: less than after it has indexed and let go of what it wrote."""
    embedded.down(folder)
    embedded.up(folder)
    sleep(SETTLING_SECONDS)
    return _resident(folder)


def _resident(folder: Path) -> float:
    [milvus] = [engine for engine in embedded.status(folder) if engine.name == "milvus"]
    return psutil.Process(milvus.pid).memory_info().rss / 1e6


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each gallery."""
    table = Table(title="Milvus alone with one gallery, MB")
    for column in ("embeddings", "index", "resident", "more than with nothing", "computed for both indexes"):
        table.add_column(column, justify="left" if column == "index" else "right")
    for one in found:
        more = one["resident_mb"] - found[0]["resident_mb"]
        table.add_row(
            f"{one['rows']:,}",
            one["index"],
            f"{one['resident_mb']:.0f}",
            f"{more:.0f}",
            f"{one['computed_mb']:.0f}",
        )
    return table
