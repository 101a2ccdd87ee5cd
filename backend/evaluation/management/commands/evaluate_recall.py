"""Measure recall, mAP, latency and size by index and search strategy."""

import json
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from backend.common.problems import Problem
from backend.evaluation.evaluate import INDEXES, STRATEGIES, evaluate, make_plan, store_run
from backend.evaluation.pictures import folder_subject, live_subject
from backend.evaluation.report import EvaluationReport
from backend.evaluation.table import FIGURE_COLUMNS, TEXT_COLUMNS, describe_segments, make_row
from recognition.errors import RecognitionError

REFUSALS_SHOWN = 20
TABLE_WIDTH = 140


class Command(BaseCommand):
    help = (
        "Recall, mAP, latency and size of FLAT, HNSW, IVF_FLAT and BIN_FLAT in Milvus beside exact search, for a"
        " folder of pictures or, without --folder, for the live catalogue leaving one picture out at a time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--folder", type=Path, help="with gallery.csv and query.csv (docs/evaluation.md)")
        parser.add_argument("--gallery", default="gallery.csv", metavar="FILE", help="in the folder")
        parser.add_argument(
            "--query",
            default="query.csv",
            metavar="FILE",
            help="in the folder; the gallery's own file leaves one picture out at a time",
        )
        parser.add_argument(
            "--model",
            metavar="NAME",
            help="an installed embedder (name or name:version) or a model folder; default: the active generation's",
        )
        parser.add_argument(
            "--crop",
            choices=["none", "box", "detect"],
            default="box",
            help="embed the whole picture, the box given with it (else the whole), or what the active detector finds",
        )
        parser.add_argument(
            "--index", action="append", choices=INDEXES, help="may be given again; default: all"
        )
        parser.add_argument(
            "--strategy", action="append", choices=STRATEGIES, help="may be given again; default: all"
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["json"] is not None and not options["json"].parent.is_dir():
            raise CommandError(f"--json: there is no folder {options['json'].parent}")
        # As Ctrl-C does, so that the collections made for the evaluation are dropped then too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            plan = make_plan(
                options["model"],
                options["crop"],
                options["index"] or INDEXES,
                options["strategy"] or STRATEGIES,
            )
            if options["folder"] is None:
                subject = live_subject()
            else:
                subject = folder_subject(options["folder"], options["gallery"], options["query"])
            with _progress() as bars:
                report = evaluate(subject, plan, bars.over)
        except Problem as problem:
            raise CommandError(problem.detail) from problem
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt as stop:
            raise CommandError("stopped; what was made for the evaluation is removed") from stop
        run = store_run(report, plan.generation, "command")
        if options["json"] is not None:
            options["json"].write_text(json.dumps(report.to_dict(), indent=2) + "\n")
        self._name_refused(report)
        _show(report, cast(TextIO, self.stdout))
        self.stdout.write(f"stored as {run}")

    def _name_refused(self, report: EvaluationReport) -> None:
        for one in report.refused[:REFUSALS_SHOWN]:
            self.stderr.write(f"{one.file}:{one.row}: {one.picture}: {one.reason}")
        if len(report.refused) > REFUSALS_SHOWN:
            self.stderr.write(f"... {len(report.refused):,} in all; --json names each")


class _Bars(Progress):
    """A bar for each stage."""

    def over(self, stage: str, steps: Sequence[Any]) -> Iterable[Any]:
        yield from self.track(steps, description=stage)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


def _progress() -> _Bars:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return _Bars(*columns, console=console, disable=not console.is_terminal)


def _show(report: EvaluationReport, out: TextIO) -> None:
    model = f"{report.model.name} {report.model.version} ({report.model.provider} {report.model.precision})"
    title = (
        f"{report.subject}: {report.n_query:,} queries, {report.n_gallery:,} pictures of {report.n_products:,}"
        f" products; {model}; crop {report.crop}; Milvus {report.milvus_version};"
        f" {report.embedded_per_second:,.0f} pictures/s embedded; {len(report.refused):,} refused"
    )
    table = Table(title=title, title_justify="left")
    for column in TEXT_COLUMNS:
        table.add_column(column)
    for column in FIGURE_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    lines = report.to_dict()["lines"]
    for line in lines:
        table.add_row(*make_row(line))
    # A file or pipe has no width of its own; the table needs this much.
    console = Console(file=out, width=None if out.isatty() else TABLE_WIDTH)
    console.print(table)
    for line in lines:
        if segments := describe_segments(line):
            console.print(f"{line['index']} {line['strategy']}, by segment: {segments}")
    console.print(report.summary())
