"""What Milvus holds in memory for one gallery alone: its process, started anew, with that gallery loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from django.conf import settings
from pymilvus import MilvusClient
from rich.progress import track
from rich.table import Table

from backend.engines import embedded
from recognition.errors import GalleryUnavailable
from recognition.gallery import Gallery, SearchSettings
from tests.bench.milvus import INDEX_SECONDS, resident_megabytes
from tests.bench.scale.filling import Filled, open_gallery
from tests.bench.scale.strategies import index_megabytes

SEARCHES = 20
# After a start Milvus reads its log again, and holds what it read for a while.
SETTLING_SECONDS = 30.0
ANSWERS_WITHIN_SECONDS = 300.0


def measure_memory(galleries: Sequence[Filled], folder: Path) -> list[dict[str, Any]]:
    """Milvus' resident memory with nothing loaded, with each gallery, and after that was let go as by a retirement.

    Args:
        folder: of the embedded engines, which are stopped and started for each; nothing is loaded at the end.
    """
    found: list[dict[str, Any]] = []
    with _client() as client:
        for name in client.list_collections():
            client.release_collection(name)
    _restart(folder)
    found.append(
        {"rows": 0, "index": "nothing loaded", "resident_mb": resident_megabytes(folder), "computed_mb": 0.0}
    )
    for filled in track([(one.index, one.rows) for one in galleries], description="loading alone"):
        loaded = open_gallery(*filled)
        loaded.gallery.load()
        loaded.gallery.wait_indexed(INDEX_SECONDS)
        _restart(folder)
        loaded = open_gallery(*filled)  # where Milvus listens now
        _wait_until_it_answers(loaded.gallery)
        for _ in range(SEARCHES):
            loaded.gallery.probe(SearchSettings())
        found.append(
            {
                "rows": loaded.rows,
                "index": loaded.index,
                "resident_mb": resident_megabytes(folder),
                "computed_mb": index_megabytes(loaded),
            }
        )
        with _client() as client:
            for kind in ("float", "hash"):
                client.release_collection(f"{loaded.gallery.name}_{kind}")
        sleep(SETTLING_SECONDS)
        found[-1]["released_mb"] = resident_megabytes(folder)
    return found


@contextmanager
def _client() -> Iterator[MilvusClient]:
    """For what the gallery has no verb for, since nobody but this wants a gallery out of memory."""
    client = MilvusClient(settings.MILVUS_URI, token=settings.MILVUS_TOKEN)
    try:
        yield client
    finally:
        client.close()


def _restart(folder: Path) -> None:
    """A new Milvus holds less than one that has indexed and let go of what it wrote. It may listen elsewhere."""
    embedded.down(folder)
    settings.MILVUS_URI = embedded.provide(folder, {}).milvus
    sleep(SETTLING_SECONDS)


def _wait_until_it_answers(gallery: Gallery) -> None:
    """A restarted Milvus loads by itself what was loaded, and says meanwhile that it cannot answer."""
    ends = monotonic() + ANSWERS_WITHIN_SECONDS
    while True:
        try:
            gallery.probe(SearchSettings())
            return
        except GalleryUnavailable:
            if monotonic() > ends:
                raise
            sleep(1.0)


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each gallery."""
    table = Table(title="Milvus alone with one gallery, MB")
    for column in (
        "embeddings",
        "index",
        "resident",
        "more than with nothing",
        "computed for both indexes",
        "released",
    ):
        table.add_column(column, justify="left" if column == "index" else "right")
    for one in found:
        more = one["resident_mb"] - found[0]["resident_mb"]
        table.add_row(
            f"{one['rows']:,}",
            one["index"],
            f"{one['resident_mb']:.0f}",
            f"{more:.0f}",
            f"{one['computed_mb']:.0f}",
            f"{one['released_mb']:.0f}" if "released_mb" in one else "",
        )
    return table
