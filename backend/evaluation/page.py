"""An evaluation as a page: for the admin, and as one HTML file that needs nothing beside it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from backend.evaluation.details import PRODUCTS_KEPT, with_pictures
from backend.evaluation.figures import draw_answers, draw_histograms
from backend.evaluation.models import EvaluationRun
from backend.evaluation.pairing import pair_runs, pair_with_exact
from backend.evaluation.table import (
    ANSWER_COLUMNS,
    BASKET_WORDS,
    BASKETS,
    FIGURE_COLUMNS,
    PAIRED_COLUMNS,
    describe_segments,
    make_answers_row,
    make_basket_rows,
    make_figure,
    make_paired_row,
    make_row,
)

# A folder may have thousands of bad rows; the JSON file names each.
REFUSALS_SHOWN = 50
STYLES = "common/checklane.css"


def make_page(run: EvaluationRun) -> dict[str, Any]:
    """What the template evaluation/body.html shows of a run; what an older run did not measure is left out."""
    report = run.report
    exact = report["lines"][0]
    details = report.get("details")
    answer_rows = [row for line in report["lines"] if (row := make_answers_row(line)) is not None]
    return {
        "run": run,
        "report": report,
        "whole_map": make_figure(exact["scores"].get("map"), per=0.01),
        "figure_columns": FIGURE_COLUMNS,
        "rows": [_show(line) for line in report["lines"]],
        "paired_columns": PAIRED_COLUMNS,
        "paired_rows": [make_paired_row(one) for one in pair_with_exact(report)],
        "answer_columns": ANSWER_COLUMNS,
        "answer_rows": answer_rows,
        "exact_answers": exact.get("answers"),
        "charts": draw_answers(report["lines"]),
        "basket_columns": [words for words, _ in BASKET_WORDS.values()],
        "basket_rows": make_basket_rows(report["scenes"]) if report.get("scenes") else [],
        "refused": report["refused"][:REFUSALS_SHOWN],
        "n_more_refused": max(0, len(report["refused"]) - REFUSALS_SHOWN),
        "products_kept": PRODUCTS_KEPT,
    } | ({} if details is None else _show_details(details, run.pictures))


def _show_details(details: dict[str, Any], pictures: dict[str, str]) -> dict[str, Any]:
    products = [
        one | {"right_words": "-" if one["right"] is None else f"{100 * one['right']:.0f} %"}
        for one in details["products"]
    ]
    return {
        "details": details | {"products": products},
        "histogram": draw_histograms(details["histograms"]),
        "confusions": with_pictures(details["confusions"], pictures),
        "worst": with_pictures(details["worst"], pictures),
    }


def _show(line: dict[str, Any]) -> dict[str, Any]:
    index, strategy, used, *figures = make_row(line)
    # One segment alone is searched as the line is; several may differ.
    segments = describe_segments(line) if len(line["segments"]) > 1 else ""
    return {"index": index, "strategy": strategy, "used": used, "segments": segments, "figures": figures}


def render_page(run: EvaluationRun) -> str:
    """The page as one file: styles, charts and pictures are in it."""
    found = finders.find(STYLES)
    assert isinstance(found, str)
    # Our own file: nothing in it wants escaping.
    css = SafeString(Path(found).read_text(encoding="utf-8"))
    return render_to_string("evaluation/page.html", make_page(run) | {"css": css, "links": False})


COMPARED = {
    "R@1 %": ("scores", "recall_at_1"),
    "R@5 %": ("scores", "recall_at_5"),
    "mAP@100 %": ("scores", "map_at_100"),
    "recognised %": ("answers", "known", "recognised"),
    "wrong %": ("answers", "known", "wrong_accepts"),
    "ECE %": ("answers", "calibration", "error"),
    "AUROC %": ("open_set", "auroc"),
    "FPR95 %": ("open_set", "fpr_at_95_tpr"),
    "DIR@1 %": ("open_set", "identification_at_1_percent"),
    "DIR@0.1 %": ("open_set", "identification_at_01_percent"),
}


def make_comparison(first: EvaluationRun, second: EvaluationRun) -> list[dict[str, Any]]:
    """Two runs line by line: for each index and strategy that either has, and each of COMPARED, both values and the
    second less the first; recall@1 query by query where both were asked the same; and at last the baskets of scenes.
    """
    lines = [{(one["index"], one["strategy"]): one for one in run.report["lines"]} for run in (first, second)]
    compared = []
    paired = {one.line: make_paired_row(one)[1:] for one in pair_runs(first.report, second.report)}
    for key in dict.fromkeys([*lines[0], *lines[1]]):
        name = " ".join(key)
        figures = [(label, 0.01, path) for label, path in COMPARED.items()]
        rows = _compare([side.get(key) for side in lines], figures)
        compared.append({"line": name, "rows": rows, "paired": paired.get(name)})
    for basket, words in BASKETS.items():
        rows = _compare(
            [run.report.get("scenes") for run in (first, second)],
            [(label, per, (basket, name)) for name, (label, per) in BASKET_WORDS.items()],
        )
        if rows:
            compared.append({"line": f"baskets, {words}", "rows": rows, "paired": None})
    return compared


def _compare(
    sides: Sequence[Any], figures: Iterable[tuple[str, float, tuple[str, ...]]]
) -> list[dict[str, Any]]:
    """A row for each figure that either side has: (its name, its unit, where it stands)."""
    rows = []
    for name, per, path in figures:
        values = [_value(side, path) for side in sides]
        if values == [None, None]:
            continue
        difference = "" if None in values else f"{(values[1] - values[0]) / per:+.2f}"  # type: ignore[operator]
        rows.append(
            {
                "name": name,
                "values": [make_figure(value, per=per) for value in values],
                "difference": difference,
            }
        )
    return rows


def _value(line: Any, path: tuple[str, ...]) -> float | None:
    """A figure of a line; None where the run did not measure it."""
    for step in path:
        line = None if line is None else line.get(step)
    return line[0] if isinstance(line, list) else line
