"""`reconcile_gallery` over large galleries: its seconds, and the memory of its process at the most."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from django.db import connection
from django.db.models import F
from rich.table import Table

from backend.catalogue.models import ReferenceImage
from backend.gallery.loading import get_gallery
from backend.gallery.models import (
    Embedding,
    Generation,
    GenerationState,
    InstalledModel,
    ModelTask,
)
from recognition.embedder import Embeddings
from recognition.gallery import Gallery
from recognition.model_card import load_model_folder
from tests.bench.scale.filling import Filled, entries_of, fill_catalogue
from tests.live import REPOSITORY, shipped_embedder

# Of each kind of drift, at both ends and in the middle of what is streamed.
DRIFTING = 200
EMPTY = "nothing in Milvus"
LOOKED_AT_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Reconciled:
    """What a run of the command said, and took."""

    rows: int
    state: str
    seconds: float
    peak_megabytes: float
    said: str


def measure_agreement(galleries: Sequence[Filled], embeddings: Embeddings) -> list[dict[str, Any]]:
    """The command on galleries that agree, that drift in each way, and that have lost all their entries.

    Args:
        galleries: of rising size, HNSW; what is done to them is undone. The database has nothing but what
            `fill_catalogue` makes.
    """
    found = []
    for filled in galleries:
        fill_catalogue(filled.rows)
        generation = _generation_of(filled)
        found.append(reconcile(generation, filled.rows, "agree"))
        drift(generation, filled)
        try:
            found.append(reconcile(generation, filled.rows, "drift"))
        finally:
            undo_drift(filled, embeddings)
        if filled is galleries[-1]:
            empty = replace_collections(generation)
            found.append(reconcile(generation, filled.rows, EMPTY))
            empty.drop()
        Embedding.objects.filter(generation=generation).delete()
    return [vars(one) for one in found]


def reconcile(generation: Generation, rows: int, state: str) -> Reconciled:
    """Run the command in a process of its own."""
    command = [sys.executable, "manage.py", "reconcile_gallery", "--generation", str(generation.pk)]
    started, peak = perf_counter(), 0
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None:
            peak = max(peak, _peak_kilobytes(process.pid))
            sleep(LOOKED_AT_EVERY_SECONDS)
        seconds = perf_counter() - started
        assert process.stdout is not None
        said = process.stdout.read()
    return Reconciled(rows, state, seconds, peak / 1024, said.strip())


def _peak_kilobytes(pid: int) -> int:
    """The most that a process held so far. What `wait` tells would count the memory of this one, its parent, too."""
    try:
        held = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return 0
    return int(held[1]) if held else 0


def drifting_rows(rows: int) -> list[int]:
    """The rows that drift: some at the start, in the middle and at the end; no two kinds meet."""
    third = DRIFTING // 2
    starts = (0, rows // 2, rows - 3 * third)
    return [start + step for start in starts for step in range(3 * third)]


def drift(generation: Generation, filled: Filled) -> None:
    """Lose entries, leave entries of pictures that are gone, and change pictures behind the ledger's back."""
    ids = [row + 1 for row in drifting_rows(filled.rows)]
    filled.gallery.delete(ids[0::3])  # missing
    ReferenceImage.objects.filter(pk__in=ids[1::3]).delete()
    Embedding.objects.filter(generation=generation, reference_image_id__in=ids[1::3]).delete()  # orphaned
    ReferenceImage.objects.filter(pk__in=ids[2::3]).update(revision=F("revision") + 1)  # stale


def undo_drift(filled: Filled, embeddings: Embeddings) -> None:
    """As before, but for the ledger."""
    rows = drifting_rows(filled.rows)
    filled.gallery.upsert([entry for row in rows[0::3] for entry in entries_of(embeddings, row, row + 1)])
    fill_catalogue(filled.rows)
    ReferenceImage.objects.filter(pk__in=[row + 1 for row in rows[2::3]]).update(revision=1)


def replace_collections(generation: Generation) -> Gallery:
    """Let the generation name collections that are empty, as after Milvus has lost all it had."""
    generation.collection = "scale_empty"
    generation.save(update_fields=["collection"])
    empty = get_gallery(generation)
    empty.create()
    empty.load()
    return empty


# By hand, as in `fill_catalogue`.
_LEDGER = f"""
    INSERT INTO {Embedding._meta.db_table} (reference_image_id, generation_id, state, revision, attempts, error)
    SELECT n, %s, 'embedded', 1, 0, '' FROM generate_series(1, %s) n
"""  # noqa: S608


def _generation_of(filled: Filled) -> Generation:
    """A generation that says to have embedded a picture into each row of these collections."""
    card = load_model_folder(shipped_embedder()).card
    model, _ = InstalledModel.objects.get_or_create(
        name=card.name,
        version=card.version,
        task=ModelTask.EMBEDDER,
        sha256=card.sha256,
        defaults={"card": card.to_dict()},
    )
    generation = Generation.objects.create(
        embedder=model,
        index={"type": filled.index},
        collection=filled.gallery.name,
        state=GenerationState.READY,
    )
    with connection.cursor() as cursor:
        cursor.execute(_LEDGER, [generation.pk, filled.rows])
    return generation


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each run."""
    table = Table(title="reconcile_gallery: one generation, both collections, both directions")
    for column in ("pictures", "state", "seconds", "peak MB", "says"):
        table.add_column(column)
    for one in found:
        said = one["said"].splitlines()[0]
        table.add_row(
            f"{one['rows']:,}", one["state"], f"{one['seconds']:.1f}", f"{one['peak_megabytes']:.0f}", said
        )
    return table
