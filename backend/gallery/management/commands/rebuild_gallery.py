"""Build Milvus anew from PostgreSQL and the pictures."""

from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from backend.common.audit import acting
from backend.common.commands import refusals_shown
from backend.gallery.reembedding import rebuild
from backend.gallery.selectors import choose_live_generations
from backend.jobs.following import follow_job
from backend.jobs.models import JobState


class Command(BaseCommand):
    help = (
        "Drop the collections of each generation that lives, make them anew, and have the bulk worker fill them from"
        " PostgreSQL and the pictures. Until that is done recognitions find a part of the catalogue, or nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--generation", type=int, metavar="GEN", help="this one alone")
        parser.add_argument(
            "--follow", action="store_true", help="show the progress to the end; Ctrl-C leaves it to go on"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown():
            chosen = choose_live_generations(options["generation"])
            with acting("command rebuild_gallery"):
                jobs = [rebuild(generation, drop=True, asked_by="command") for generation in chosen]
        if not jobs:
            raise CommandError("there is no generation to rebuild; install an embedder and activate it")
        for job in jobs:
            self.stdout.write(f"job {job.pk}: {job.subject}")
        if not options["follow"]:
            return
        try:
            ended = [follow_job(job, Console(file=cast(TextIO, self.stdout))) for job in jobs]
        except KeyboardInterrupt as stop:
            raise CommandError("no longer followed; the jobs go on, and the admin shows them") from stop
        if unfinished := [job for job in ended if job.state != JobState.DONE]:
            raise CommandError(f"{unfinished[0]} is {unfinished[0].state}")
