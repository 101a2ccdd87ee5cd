"""Run a ready generation on a share of the live recognitions, beside the one that answers."""

from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.table import Table

from backend.checkout.models import Difference
from backend.checkout.shadow_report import ShadowSummary, describe_summary, summarise_shadow
from backend.common.audit import acting
from backend.common.commands import refusals_shown
from backend.gallery.models import Shadow
from backend.gallery.selectors import get_generation, get_shadow
from backend.gallery.shadows import end_shadow, start_shadow

NAME = "command shadow_generation"
PLAIN_WIDTH = 120
PRODUCTS_SHOWN = 10


class Command(BaseCommand):
    help = (
        "Run a generation that is ready in the shadow of the active one: a share of the live recognitions is run on it"
        " too, after their callers have their answer, and what differs is counted. Without an option, show that. It"
        " ends with --off, and by itself with a switch, or when the generation is retired."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("generation", type=int, metavar="GEN", help="its id (manage.py generations)")
        act = parser.add_mutually_exclusive_group()
        act.add_argument(
            "--share",
            type=float,
            metavar="S",
            help="of the live recognitions, 0 to 1: turn it on, or change it",
        )
        act.add_argument("--off", action="store_true", help="turn it off; what was found stays")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown(), acting(NAME):
            generation = get_generation(options["generation"])
            if options["off"]:
                end_shadow(generation, ended_by=NAME)
            elif options["share"] is not None:
                start_shadow(generation, share=options["share"], started_by=NAME)
        shadow = get_shadow(generation)
        if shadow is None:
            self.stdout.write(f"{generation} never ran in the shadow; turn it on with --share")
            return
        console = Console(file=cast(TextIO, self.stdout), width=None if self.stdout.isatty() else PLAIN_WIDTH)
        show(shadow, summarise_shadow(shadow), console)


def show(shadow: Shadow, summary: ShadowSummary, console: Console) -> None:
    """Print what it found, and whether it goes on."""
    state = (
        f"{shadow.generation} runs on {shadow.share:.4g} of the recognitions since {shadow.created_at:%Y-%m-%d %H:%M}"
        if shadow.ended_at is None
        else f"{shadow.generation} ran until {shadow.ended_at:%Y-%m-%d %H:%M}: {shadow.ended_because}"
    )
    console.print(state, highlight=False)
    console.print(describe_summary(shadow, summary), highlight=False)
    if shadow.last_failure:
        console.print(f"The last failure: {shadow.last_failure}", highlight=False)
    for kind, n in summary.differences.items():
        if n:
            console.print(f"  {Difference(kind).label}: {n:,}", highlight=False)
    if not summary.products:
        return
    table = Table(title=f"{summary.n_products:,} products gain or lose", title_justify="left")
    table.add_column("product")
    for column in ("recognised: active", "shadow", "named: active", "shadow"):
        table.add_column(column, justify="right")
    for one in summary.products[:PRODUCTS_SHOWN]:
        table.add_row(
            f"{one.sku} {one.name}",
            f"{one.recognised_active:,}",
            f"{one.recognised_candidate:,}",
            f"{one.named_active:,}",
            f"{one.named_candidate:,}",
        )
    console.print(table)
