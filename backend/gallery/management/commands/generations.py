"""List the generations."""

from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table

from backend.gallery.models import EmbeddingState, Generation, GenerationState
from backend.gallery.reembedding import get_job
from backend.gallery.selectors import count_ledger
from backend.jobs.models import FINISHED

TABLE_WIDTH = 140


class Command(BaseCommand):
    help = "All generations: state, embedder, index, pictures, thresholds, and the job that fills one."

    def handle(self, *args: Any, **options: Any) -> None:
        table = Table()
        for column in ("id", "state", "embedder", "index", "embedded", "open", "failed", "activated", "job"):
            table.add_column(column, justify="right" if column in {"embedded", "open", "failed"} else "left")
        for generation in Generation.objects.select_related("embedder"):
            table.add_row(*_cells(generation))
        out = cast(TextIO, self.stdout)
        console = Console(file=out, width=None if out.isatty() else TABLE_WIDTH)
        if table.row_count:
            console.print(table)
        else:
            console.print("there is none yet: install an embedder and activate it (manage.py activate_model)")


def _cells(generation: Generation) -> list[str]:
    counts = count_ledger(generation)
    n_open = counts[EmbeddingState.PENDING] + counts[EmbeddingState.REMOVING]
    job = get_job(generation)
    at_work = job is not None and job.state not in FINISHED
    activated = generation.activated_at
    in_shadow = generation.shadows.filter(ended_at=None).exists()
    return [
        str(generation.pk),
        GenerationState(generation.state).value + (", in the shadow" if in_shadow else ""),
        str(generation.embedder),
        generation.index["type"],
        f"{counts[EmbeddingState.EMBEDDED]:,}",
        f"{n_open:,}",
        f"{counts[EmbeddingState.FAILED]:,}",
        f"{activated:%Y-%m-%d %H:%M}" if activated else "-",
        f"{job.pk} {job.state}" if job is not None and at_work else "-",
    ]
