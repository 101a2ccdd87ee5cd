"""Measure recall, mAP, latency and size by index and search strategy."""

import json
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from backend.common.commands import refusals_shown
from backend.evaluation.evaluate import INDEXES, STRATEGIES, evaluate, make_plan, store_run
from backend.evaluation.models import EvaluationRun
from backend.evaluation.page import render_page
from backend.evaluation.pairing import Paired, pair_runs, pair_with_exact
from backend.evaluation.pictures import folder_subject, live_subject
from backend.evaluation.progress import name_refused, progress_bars
from backend.evaluation.report import EvaluationReport
from backend.evaluation.table import (
    ANSWER_COLUMNS,
    BASKET_WORDS,
    FIGURE_COLUMNS,
    PAIRED_COLUMNS,
    TEXT_COLUMNS,
    describe_segments,
    make_answers_row,
    make_basket_rows,
    make_paired_row,
    make_row,
)
from backend.evaluation.task import OpenSet

TABLE_WIDTH = 150


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
        parser.add_argument(
            "--open-set",
            type=float,
            metavar="SHARE",
            help="hold this share of the products out of the gallery: their queries are unknown",
        )
        parser.add_argument("--seed", type=int, default=0, help="of the products held out; default: 0")
        parser.add_argument(
            "--scenes",
            type=Path,
            metavar="DIR",
            help="with scenes.json: whole scenes through the detector and the rest, and their baskets",
        )
        parser.add_argument(
            "--against",
            type=int,
            metavar="ID",
            help="of a stored evaluation of the same queries, such as another model's: compare query by query",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
        parser.add_argument(
            "--html",
            type=Path,
            metavar="FILE",
            help="write the report as a page that needs nothing beside it",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("json", "html"):
            if options[name] is not None and not options[name].parent.is_dir():
                raise CommandError(f"--{name}: there is no folder {options[name].parent}")
        against = _find_run(options["against"])
        # As Ctrl-C does, so that the collections made for the evaluation are dropped then too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with refusals_shown():
                plan = make_plan(
                    options["model"],
                    options["crop"],
                    options["index"] or INDEXES,
                    options["strategy"] or STRATEGIES,
                    None if options["open_set"] is None else OpenSet(options["open_set"], options["seed"]),
                    options["scenes"],
                )
                if options["folder"] is None:
                    subject = live_subject()
                else:
                    subject = folder_subject(options["folder"], options["gallery"], options["query"])
                with progress_bars() as bars:
                    report = evaluate(subject, plan, bars.over)
        except KeyboardInterrupt as stop:
            raise CommandError("stopped; what was made for the evaluation is removed") from stop
        run = store_run(report, plan.generation, "command")
        if options["json"] is not None:
            options["json"].write_text(json.dumps(report.to_dict(), indent=2) + "\n")
        if options["html"] is not None:
            options["html"].write_text(render_page(run), encoding="utf-8")
        name_refused(report.refused, self.stderr)
        _show(report, against, cast(TextIO, self.stdout))
        self.stdout.write(f"stored as {run}")


def _find_run(pk: int | None) -> EvaluationRun | None:
    if pk is None:
        return None
    run = EvaluationRun.objects.filter(pk=pk).first()
    if run is None:
        newest = EvaluationRun.objects.order_by("-pk").first()
        known = "there is none yet" if newest is None else f"the newest is {newest.pk}"
        raise CommandError(f"--against: there is no evaluation {pk}; {known}")
    return run


def _show(report: EvaluationReport, against: EvaluationRun | None, out: TextIO) -> None:
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
    values = report.to_dict()
    lines = values["lines"]
    for line in lines:
        table.add_row(*make_row(line))
    # A file or pipe has no width of its own; the table needs this much.
    console = Console(file=out, width=None if out.isatty() else TABLE_WIDTH)
    console.print(table)
    for line in lines:
        if segments := describe_segments(line):
            console.print(f"{line['index']} {line['strategy']}, by segment: {segments}")
    _show_paired("Recall@1 beside the exact search, query by query", pair_with_exact(values), console)
    if against is not None:
        paired = list(pair_runs(against.report, values))
        if not paired:
            console.print(f"{against} was asked other queries; nothing can be compared query by query.")
        _show_paired(f"Recall@1 beside {against}, query by query", paired, console)
    _show_answers(lines, console)
    if report.scenes is not None:
        _show_scenes(report.scenes, console)
    console.print(report.summary())


def _show_paired(title: str, paired: Iterable[Paired], console: Console) -> None:
    rows = [make_paired_row(one) for one in paired]
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    table.add_column("index and strategy", no_wrap=True)
    for column in PAIRED_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _show_answers(lines: Sequence[Mapping[str, Any]], console: Console) -> None:
    rows = [row for line in lines if (row := make_answers_row(line)) is not None]
    if not rows:
        console.print("No query met a second product, so nothing can be said of answers and thresholds.")
        return
    answers = lines[0]["answers"]
    strangers = "strangers" if answers["strangers"] else "their own product left out"
    table = Table(
        title=f"Answers by thresholds ({answers['thresholds']}): of known queries, then of {strangers}",
        title_justify="left",
    )
    table.add_column("index and strategy", no_wrap=True)
    for column in ANSWER_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _show_scenes(scenes: Mapping[str, Any], console: Console) -> None:
    table = Table(
        title=f"{scenes['n_scenes']:,} scenes with {scenes['n_pieces']:,} pieces, {scenes['found']:.1%} of them found"
        f" by {scenes['detector']}; {scenes['index']} {scenes['strategy']}, thresholds: {scenes['thresholds']}",
        title_justify="left",
    )
    table.add_column("basket of")
    for column, _ in BASKET_WORDS.values():
        table.add_column(column, justify="right", no_wrap=True)
    for row in make_basket_rows(scenes):
        table.add_row(*row)
    console.print(table)
    results = ", ".join(
        f"{share:.1%} {name.replace('_', ' ')}"
        for name, share in scenes["results"].items()
        if share is not None
    )
    console.print(f"{scenes['n_items']:,} items: {results or 'none'}.")
    if scenes["n_pieces_unknown_sku"]:
        console.print(f"{scenes['n_pieces_unknown_sku']:,} pieces have a SKU that the gallery lacks.")
