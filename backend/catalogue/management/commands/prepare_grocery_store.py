"""Prepare the public Grocery Store Dataset in our folder format."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import track

from backend.catalogue.grocery_store import SourceRefused, prepare_grocery_store


class Command(BaseCommand):
    help = "Prepare a clone of the Grocery Store Dataset (Klasson et al., WACV 2019, MIT) for import and evaluation."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", type=Path, help="the clone, with its folder 'dataset'")
        parser.add_argument("destination", type=Path, help="the folder to write")
        parser.add_argument(
            "--longest-side",
            type=int,
            metavar="PIXELS",
            help="reduce larger pictures (default: take them as they are)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["longest_side"] is not None and options["longest_side"] < 1:
            raise CommandError(f"--longest-side is {options['longest_side']}; 1 pixel or more is wanted")
        console = Console(stderr=True)
        try:
            prepared = prepare_grocery_store(
                options["source"],
                options["destination"],
                longest_side=options["longest_side"],
                over=lambda pictures: track(
                    pictures, "preparing", console=console, disable=not console.is_terminal
                ),
            )
        except SourceRefused as refused:
            raise CommandError(str(refused)) from refused
        for line in prepared.refused:
            self.stderr.write(line)
        counted = ", ".join(f"{count:,} pictures in {file}" for file, count in prepared.n_pictures.items())
        self.stdout.write(
            f"{options['destination']}: {prepared.n_products:,} products, {counted}; {len(prepared.refused):,} refused"
        )
