"""`reconcile_gallery` over large galleries: its seconds, and the memory of its process at the most."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.core.management import call_command
from django.db.models import F
from rich.table import Table

from backend.catalogue.models import Product, ReferenceImage
from backend.gallery.loading import get_gallery
from backend.gallery.models import (
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
    ModelTask,
)
from recognition.embedder import Embeddings
from recognition.model_card import load_model_folder
from tests.bench.scale.embeddings import product_of
from tests.bench.scale.filling import Filled, entries_of
from tests.live import REPOSITORY

MODELS = REPOSITORY / "fixtures" / "models"
BATCH = 5_000
# Of each kind of drift, at both ends and in the middle of what is streamed.
DRIFTING = 200
EMPTY = "nothing in Milvus"


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
        galleries: of rising size, HNSW; what is done to them is undone. The database is empty.
    """
    call_command("migrate", verbosity=0)
    found = []
    for filled in galleries:
        _add_pictures(filled.rows)
        generation = _generation_of(filled.gallery.name, filled.rows)
        found.append(reconcile(generation, filled.rows, "agree"))
        drift(generation, filled)
        try:
            found.append(reconcile(generation, filled.rows, "drift"))
        finally:
            undo_drift(filled, embeddings)
        Embedding.objects.filter(generation=generation).delete()
    generation = _generation_of("scale_empty", galleries[-1].rows)
    empty = get_gallery(generation)
    empty.create()
    empty.load()
    found.append(reconcile(generation, galleries[-1].rows, EMPTY))
    empty.drop()
    return [vars(one) for one in found]


def reconcile(generation: Generation, rows: int, state: str) -> Reconciled:
    """Run the command in a process of its own."""
    command = [sys.executable, "manage.py", "reconcile_gallery", "--generation", str(generation.pk)]
    started = perf_counter()
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)  # `resource` knows only the largest of all children
        process.returncode = os.waitstatus_to_exitcode(status)
    return Reconciled(rows, state, perf_counter() - started, used.ru_maxrss / 1024, said.strip())


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
    rows = drifting_rows(filled.rows)
    filled.gallery.upsert([entry for row in rows[0::3] for entry in entries_of(embeddings, row, row + 1)])
    _create_pictures(rows[1::3])
    ReferenceImage.objects.filter(pk__in=[row + 1 for row in rows[2::3]]).update(revision=1)


def _add_pictures(rows: int) -> None:
    """Products and pictures up to so many; what is there stays."""
    there = ReferenceImage.objects.count()
    known = Product.objects.count()
    Product.objects.bulk_create(
        [
            Product(id=number, sku=f"SCALE-{number}", name=f"Product {number}")
            for number in range(known + 1, product_of(rows - 1) + 1)
        ],
        batch_size=BATCH,
    )
    for start in range(there, rows, BATCH):
        _create_pictures(range(start, min(start + BATCH, rows)))


def _create_pictures(rows: Sequence[int]) -> None:
    """Without files: the command reads none."""
    ReferenceImage.objects.bulk_create(
        [
            ReferenceImage(
                id=row + 1, product_id=product_of(row), width=1, height=1, sha256=str(row), image="none.jpg"
            )
            for row in rows
        ],
        batch_size=BATCH,
    )


def _generation_of(collection: str, rows: int) -> Generation:
    """A generation that says to have embedded so many pictures into these collections."""
    [folder] = [path for path in MODELS.iterdir() if (path / "card.json").exists()]
    card = load_model_folder(folder).card
    model, _ = InstalledModel.objects.get_or_create(
        name=card.name, version=card.version, task=ModelTask.EMBEDDER, sha256=card.sha256, card=card.to_dict()
    )
    generation = Generation.objects.create(
        embedder=model, index={"type": "HNSW"}, collection=collection, state=GenerationState.READY
    )
    for start in range(0, rows, BATCH):
        Embedding.objects.bulk_create(
            [
                Embedding(
                    reference_image_id=row + 1,
                    generation=generation,
                    state=EmbeddingState.EMBEDDED,
                    revision=1,
                )
                for row in range(start, min(start + BATCH, rows))
            ]
        )
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
