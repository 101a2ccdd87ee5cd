"""A report's lines as people read them: the cells of the command's table and of the admin's page.

They are made of the JSON form, which stored runs have; a key that is newer than a run is an empty cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backend.evaluation.pairing import Paired

TEXT_COLUMNS = ("index", "strategy", "searched by")
FIGURE_COLUMNS = (
    "R@1 %", "R@5 %", "mAP@100 %", "top 10 %", "p50 ms", "p95 ms", "index MB", "files MB",
)  # fmt: skip


def make_row(line: Mapping[str, Any]) -> tuple[str, ...]:
    """One cell for each of TEXT_COLUMNS and FIGURE_COLUMNS.

    Args:
        line: of a report's `lines` (docs/evaluation.md).
    """
    scores = line["scores"]
    return (
        line["index"],
        line["strategy"],
        line["used"],
        *(
            make_figure(scores.get(name), per=0.01)
            for name in ("recall_at_1", "recall_at_5", "map_at_100", "overlap_at_10")
        ),
        make_figure(line.get("p50_ms")),
        make_figure(line.get("p95_ms")),
        make_figure(line.get("computed_bytes"), per=1e6),
        make_figure(line.get("folder_growth_bytes"), per=1e6, digits=1),
    )


ANSWER_COLUMNS = (
    "recog. %", "ask %", "unkn. %", "wrong %", "recog. %", "ask %", "unkn. %", "ECE %",
    "AUROC %", "FPR95 %", "DIR@1 %", "DIR@0.1 %",
)  # fmt: skip
"""Of known queries what was recognised, asked, called unknown, and recognised as another product; of strangers the
first three; of both the calibration error; and how well the two are told apart."""


def make_answers_row(line: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Index and strategy, and a cell for each of ANSWER_COLUMNS; None of a run that knows no answers.

    Strangers are those that the gallery lacks; where there are none, the known with their own product left out.
    """
    answers = line.get("answers")
    if answers is None:
        return None
    open_set = line.get("open_set") or {}
    strangers = answers["strangers"] or answers["left_out"]
    results = ("recognised", "needs_confirmation", "unknown")
    return (
        f"{line['index']} {line['strategy']}",
        *(_per_cent(answers["known"][name]) for name in (*results, "wrong_accepts")),
        *(_per_cent(strangers[name]) for name in results),
        _per_cent(answers["calibration"] and answers["calibration"]["error"]),
        *(
            _per_cent(open_set.get(name))
            for name in (
                "auroc",
                "fpr_at_95_tpr",
                "identification_at_1_percent",
                "identification_at_01_percent",
            )
        ),
    )


def _per_cent(figure: Sequence[float] | None) -> str:
    return make_figure(None if figure is None else figure[0], per=0.01)


def with_interval(figure: Sequence[float] | None, *, per: float = 0.01, digits: int = 2) -> str:
    """Such as "52.36 (46.10 to 58.72)"; empty where nothing was measured."""
    if figure is None:
        return ""
    value, low, high = (make_figure(one, per=per, digits=digits) for one in figure)
    return f"{value} ({low} to {high})"


PAIRED_COLUMNS = ("points", "95 % interval", "better", "worse", "p")


def make_paired_row(paired: Paired) -> tuple[str, ...]:
    """The line, and a cell for each of PAIRED_COLUMNS."""
    low, high = (f"{100 * one:+.2f}" for one in paired.interval)
    return (
        paired.line,
        f"{100 * paired.difference:+.2f}",
        f"{low} to {high}",
        f"{paired.n_better:,}",
        f"{paired.n_worse:,}",
        f"{paired.p:.3f}",
    )


BASKET_WORDS = {
    "checkout_accuracy": ("cAcc %", 0.01),
    "average_counting_distance": ("ACD", 1.0),
    "mean_category_counting_distance": ("mCCD", 1.0),
    "mean_category_iou": ("mCIoU %", 0.01),
}
BASKETS = {"recognised": "recognised", "proposed": "with what needs confirmation"}


def make_basket_rows(scenes: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What was counted, and a cell with its interval for each of BASKET_WORDS."""
    return [
        (words, *(with_interval(scenes[key][name], per=per) for name, (_, per) in BASKET_WORDS.items()))
        for key, words in BASKETS.items()
    ]


def make_figure(value: float | None, *, per: float = 1, digits: int = 2) -> str:
    """`value` in units of `per`; empty where nothing was measured."""
    return "" if value is None else f"{value / per:.{digits}f}"


def describe_segments(line: Mapping[str, Any]) -> str:
    """What searches each of the segments that Milvus has loaded; empty for the exact line."""
    return ", ".join(f"{segment['rows']:,} rows {segment['index']}" for segment in line["segments"])
