"""See whether PostgreSQL and Milvus hold the same set."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.common.problems import Problem
from backend.gallery.agreement import find_drift
from backend.gallery.enrolment import count_waiting, enrol
from backend.gallery.models import Generation, GenerationState
from backend.gallery.selectors import get_generation, list_live_generations
from backend.gallery.services import plan_missing
from recognition.errors import RecognitionError


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
        try:
            if options["generation"] is None:
                chosen = list_live_generations()
            else:
                chosen = [get_generation(options["generation"])]
            n_left = sum(self._reconcile(generation, fix=options["fix"]) for generation in chosen)
        except Problem as problem:
            raise CommandError(problem.detail) from problem
        except RecognitionError as error:
            raise CommandError(str(error)) from error
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
