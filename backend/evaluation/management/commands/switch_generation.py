"""Let another generation answer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backend.checkout.shadow_report import describe_summary, summarise_shadow
from backend.common.audit import acting
from backend.common.commands import refusals_shown
from backend.common.problems import Problem
from backend.evaluation.comparison import DROP_LIMIT, Comparison, FolderQueries, ProductChange
from backend.evaluation.pictures import Refusal, list_folder_pictures
from backend.evaluation.progress import name_refused
from backend.evaluation.switching import compare_with_active, roll_back, switch_generation
from backend.gallery.selectors import get_generation, get_shadow

PLAIN_WIDTH = 120


class Command(BaseCommand):
    help = (
        "Compare a generation with the active one on the same queries and, unless it falls too far, let it answer from"
        " the next recognition on. The active one stands by and goes on receiving pictures; --rollback returns to it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "generation", type=int, nargs="?", metavar="GEN", help="its id (manage.py generations)"
        )
        parser.add_argument(
            "--rollback", action="store_true", help="return to the generation that answered before"
        )
        parser.add_argument(
            "--folder",
            type=Path,
            help="compare on the queries of a folder (docs/evaluation.md); default: the live catalogue, each picture"
            " in turn left out",
        )
        parser.add_argument("--query", default="query.csv", metavar="FILE", help="in the folder")
        parser.add_argument(
            "--limit",
            type=float,
            default=DROP_LIMIT,
            metavar="P",
            help=f"points (of 100) by which recall@1 or mAP may fall; default {DROP_LIMIT:g}",
        )
        parser.add_argument("--compare-only", action="store_true", help="show the comparison, switch nothing")
        parser.add_argument(
            "--force", action="store_true", help="in spite of what speaks against it; needs --reason"
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="kept in the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rollback"] == (options["generation"] is not None):
            raise CommandError("give the generation's id, or --rollback")
        with refusals_shown(), acting("command switch_generation"):
            answering = (
                roll_back(force=options["force"], reason=options["reason"])
                if options["rollback"]
                else self._switch(options)
            )
        if answering is not None:
            self.stdout.write(f"{answering} answers now")

    def _switch(self, options: dict[str, Any]) -> Any:
        generation = get_generation(options["generation"])
        console = Console(file=cast(TextIO, self.stdout), width=None if self.stdout.isatty() else PLAIN_WIDTH)
        how: dict[str, Any] = {}
        if options["folder"] is not None:
            refused: list[Refusal] = []
            pictures = list_folder_pictures(options["folder"], options["query"], refused)
            name_refused(refused, self.stderr)
            how["folder"] = FolderQueries(options["folder"].resolve().name, pictures, len(refused))
        try:
            show(compare_with_active(generation, _over, **how), console)
            shadow = get_shadow(generation)
            if shadow is not None:
                console.print(describe_summary(shadow, summarise_shadow(shadow)), highlight=False)
        except Problem as problem:
            # Nothing to measure is no reason to keep an operator who forces it, and says why, from switching.
            if not options["force"] or problem.code != "nothing-to-measure":
                raise
            console.print(problem.detail)
        if options["compare_only"]:
            return None
        return switch_generation(
            generation, limit=options["limit"], force=options["force"], reason=options["reason"]
        )


def _over(stage: str, steps: Sequence[Any]) -> Iterable[Any]:
    console = Console(stderr=True)
    return track(steps, description=stage, console=console, disable=not console.is_terminal)


def show(comparison: Comparison, console: Console) -> None:
    """Print what would change."""
    table = Table(
        title=f"{comparison.subject}: {comparison.n_queries:,} queries, {comparison.n_left_out:,} left out;"
        f" strategy {comparison.strategy}",
        title_justify="left",
    )
    for column in ("", "embedder, index"):
        table.add_column(column)
    for column in ("R@1 %", "R@5 %", "mAP@100 %", "p50 ms", "p95 ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for role, side in (("active", comparison.active), ("candidate", comparison.candidate)):
        table.add_row(
            f"{role} {side.generation}",
            side.name,
            *(f"{100 * share:.2f}" for share in (side.recall_at_1, side.recall_at_5, side.map_at_100)),
            f"{side.p50_ms:.2f}",
            f"{side.p95_ms:.2f}",
        )
    console.print(table)
    console.print(
        f"Answered rightly at first by the candidate alone: {comparison.n_gained:,} queries, by the active one alone:"
        f" {comparison.n_lost:,}. Products that get better: {comparison.n_better:,}, worse: {comparison.n_worse:,}."
    )
    for title, changes in (("worse", comparison.worse), ("better", comparison.better)):
        for change in changes:
            console.print(f"  {title}: {_describe(change)}", highlight=False)


def _describe(change: ProductChange) -> str:
    return (
        f"{change.sku} {change.name}: recall@1 {change.active:.0%} -> {change.candidate:.0%}"
        f" of {change.n_queries:,}"
    )
