"""Build a gallery beside the active one."""

from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from backend.common.audit import acting
from backend.common.commands import refusals_shown
from backend.gallery.models import ModelTask
from backend.gallery.reembedding import start_reembedding
from backend.gallery.selectors import get_active_generation, get_installed_model
from backend.jobs.following import follow_job
from backend.jobs.models import JobState
from recognition.gallery import IndexSettings


class Command(BaseCommand):
    help = (
        "Open a generation beside the active one and have the bulk worker fill it: embed every reference picture, or,"
        " with the active generation's embedder and another index, copy its vectors. Nobody is answered by it until"
        " `switch_generation`."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--model",
            metavar="NAME",
            help="an installed embedder, name or name:version; default: the active generation's",
        )
        parser.add_argument("--index", choices=["HNSW", "IVF_FLAT", "FLAT"], default="HNSW")
        parser.add_argument(
            "--redetect",
            action="store_true",
            help="have the active detector propose the main bodies anew, but for boxes that people drew or sent; a"
            " picture has one box for all generations, so the active one embeds those that change again too",
        )
        parser.add_argument(
            "--follow",
            action="store_true",
            help="show the progress until it is ready; Ctrl-C leaves it to go on",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        active = get_active_generation()
        name = options["model"] or (f"{active.embedder.name}:{active.embedder.version}" if active else "")
        with refusals_shown(), acting("command reembed"):
            job = start_reembedding(
                get_installed_model(name, ModelTask.EMBEDDER),
                IndexSettings(type=options["index"]),
                redetect=options["redetect"],
                asked_by="command",
            )
        self.stdout.write(f"job {job.pk}: {job.subject}")
        if not options["follow"]:
            return
        try:
            job = follow_job(job, Console(file=cast(TextIO, self.stdout)))
        except KeyboardInterrupt as stop:
            raise CommandError("no longer followed; the job goes on, and the admin shows it") from stop
        if job.state != JobState.DONE:
            raise CommandError(f"the job is {job.state}")
        number = job.parameters["generation"]
        self.stdout.write(
            f"generation {number} is ready; compare and switch: manage.py switch_generation {number}"
        )
