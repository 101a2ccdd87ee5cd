"""Give a generation up for good."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from backend.common.audit import acting
from backend.common.commands import refusals_shown
from backend.gallery.generations import free_dead_generations, retire
from backend.gallery.selectors import get_generation
from recognition.errors import GalleryUnavailable


class Command(BaseCommand):
    help = (
        "Retire a generation that is ready, stands by or failed: its collections and its ledger are dropped, and it"
        " cannot come back. The active one is never retired; one that is being built is cancelled through its job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("generation", type=int, metavar="GEN", help="its id (manage.py generations)")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown(), acting("command retire_generation"):
            generation = retire(get_generation(options["generation"]))
        self.stdout.write(f"{generation} is retired")
        try:
            freed = free_dead_generations()
        except GalleryUnavailable:
            freed = 0
        if not freed:
            self.stdout.write("its collections go with the next sweep, within two minutes")
