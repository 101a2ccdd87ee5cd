"""Milvus under a benchmark: how long it may take, what its process holds in memory."""

from pathlib import Path

import psutil

from backend.engines import embedded

# An index of hundreds of thousands of embeddings takes a busy core half an hour.
INDEX_SECONDS = 7_200.0


def resident_megabytes(folder: Path) -> float:
    """Of the embedded Milvus of a data folder, in millions of bytes."""
    [milvus] = [engine for engine in embedded.status(folder) if engine.name == "milvus"]
    return psutil.Process(milvus.pid).memory_info().rss / 1e6
