"""Check a model folder and install it."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from backend.common.commands import refusals_shown
from backend.gallery.services import activate_model, install_model


class Command(BaseCommand):
    help = "Check a model folder (model.onnx and card.json) against its SHA-256, run it once, and install it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument(
            "--activate", action="store_true", help="and activate it, as `activate_model` does"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown():
            model = install_model(options["folder"])
            self.stdout.write(f"installed {model} ({model.task}) in {model.folder}")
            if options["activate"]:
                activate_model(model)
                self.stdout.write(f"{model} is active")
