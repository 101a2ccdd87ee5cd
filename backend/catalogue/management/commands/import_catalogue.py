"""Import a folder of products and pictures."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backend.catalogue.imports import IMPORT_KIND, import_folder
from backend.common.problems import Problem
from backend.jobs.models import SUBJECT_LENGTH, Job, JobState
from backend.jobs.services import Progress as JobProgress


class Command(BaseCommand):
    help = "Import products.csv and gallery.csv of a folder; bad rows are named, the rest is imported."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        job = Job.objects.create(
            kind=IMPORT_KIND,
            subject=options["folder"].resolve().name[-SUBJECT_LENGTH:],
            asked_by="command",
            state=JobState.RUNNING,
            started_at=timezone.now(),
        )
        console = Console(stderr=True)
        columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            try:
                import_folder(options["folder"], _ShownProgress(job, bar))
            except Problem as problem:
                job.failures.append({"reason": problem.detail})
                _finish(job, JobState.FAILED)
                raise CommandError(problem.detail) from problem
        _finish(job, JobState.DONE)
        for failure in job.failures:
            self.stderr.write(f"{failure.get('file')}:{failure.get('row')}: {failure['reason']}")
        counted = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in job.result.items())
        self.stdout.write(f"imported: {counted}; {job.failed:,} rows refused")


def _finish(job: Job, state: JobState) -> None:
    job.state, job.finished_at = state, timezone.now()
    job.save()


class _ShownProgress(JobProgress):
    """The job's progress, also drawn in the terminal."""

    def __init__(self, job: Job, bar: Progress) -> None:
        super().__init__(job)
        self._bar, self._row = bar, bar.add_task("rows", total=None)

    def over(self, steps: Any) -> Any:
        for step in super().over(steps):
            self._bar.update(self._row, total=self.job.total, completed=self.job.cursor)
            yield step
