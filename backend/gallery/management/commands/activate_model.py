"""Make an installed model the active one."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.common.commands import refusals_shown
from backend.gallery.models import InstalledModel
from backend.gallery.selectors import find_model
from backend.gallery.services import activate_model
from recognition.gallery import IndexSettings


class Command(BaseCommand):
    help = (
        "Let an installed detector work from now on, or open the first generation with an installed embedder."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the model's name, or name and version as 'name:version'")
        parser.add_argument(
            "--index",
            choices=["HNSW", "IVF_FLAT", "FLAT"],
            default="HNSW",
            help="of an embedder's generation",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        model = find_model(options["name"])
        if model is None:
            known = ", ".join(f"{one.name}:{one.version}" for one in InstalledModel.objects.all())
            raise CommandError(f"there is no model {options['name']!r}; installed: {known or 'none'}")
        with refusals_shown():
            activate_model(model, index=IndexSettings(type=options["index"]))
        self.stdout.write(f"{model} is active")
