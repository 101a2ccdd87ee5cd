"""See whether PostgreSQL and Milvus hold the same set."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.common.commands import refusals_shown
from backend.gallery.agreement import find_drift
from backend.gallery.enrolment import count_waiting, enrol
from backend.gallery.models import Generation, GenerationState
from backend.gallery.selectors import choose_live_generations
from backend.gallery.services import plan_missing


class Command(BaseCommand):
    help = (
        "Compare catalogue, ledger and both collections of each generation that lives, in both directions: entries"
        " that are missing, orphaned, or stale (of an older revision). Ends with 1 where any is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--generation", type=int, metavar="GEN", help="this one alone")
        parser.add_argument(
            "--fix", action="store_true", help="embed what is missing or stale, remove orphans"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown():
            chosen = choose_live_generations(options["generation"])
            n_left = sum(self._reconcile(generation, fix=options["fix"]) for generation in chosen)
        if n_left:
            advice = "run it once more" if options["fix"] else "mend it with --fix"
            raise CommandError(f"{n_left:,} differ; {advice}")

    def _reconcile(self, generation: Generation, *, fix: bool) -> int:
        """Tell what differs, and mend it; how many still do."""
        if generation.state == GenerationState.BUILDING:
            self.stdout.write(f"{generation}: is being built; its job compares it at the end")
            return 0
        found = find_drift(generation, mend=fix)
        waiting = count_waiting(generation)
        self.stdout.write(
            f"{generation}: {found.n_pictures:,} pictures, {found.n_entries['float']:,} float and"
            f" {found.n_entries['hash']:,} hash entries; {found.describe()}"
            + (f"; {waiting:,} wait to be embedded or removed" if waiting else "")
        )
        if not fix or not found.n_drift:
            return found.n_drift
        n_mended = enrol(generation)
        plan_missing(generation)  # an entry that was removed although its picture is there is made anew
        n_mended += enrol(generation)
        self.stdout.write(f"{generation}: embedded or removed {n_mended:,}")
        left = find_drift(generation)
        self.stdout.write(f"{generation}: now {left.describe()}")
        return left.n_drift
