"""The charts of an evaluation: what is risked at which coverage, and how well the confidence says it."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.safestring import SafeString

from backend.common.charts import Curve, draw_curves
from backend.gallery.fit_display import draw_reliability
from backend.gallery.thresholds import UNKNOWN_SHARE


def draw_answers(lines: Sequence[Mapping[str, Any]]) -> list[SafeString]:
    """Risk and coverage by search strategy, and the reliability of exact search; none of a run that knows no answers.

    Args:
        lines: of a report. Of each strategy the first line stands for all: they differ in the index alone.
    """
    first: dict[str, Any] = {}
    for line in lines:
        if line.get("answers"):
            first.setdefault(line["strategy"], line["answers"])
    if not first:
        return []
    curves = [
        Curve(strategy, [(coverage, risk) for coverage, risk in answers["risk_coverage"]])
        for strategy, answers in first.items()
    ]
    share = next(iter(first.values())).get("unknown_share", UNKNOWN_SHARE)
    highest = max(risk for curve in curves for _, risk in curve.points)
    charts = [
        draw_curves(
            f"Share of wrong answers when only the surest are given; {share:.0%} of the queries show what the gallery"
            " lacks",
            curves,
            x="answered",
            y="of these wrong",
            top=_above(highest),
        )
    ]
    open_set = {
        line["strategy"]: line["open_set"]["curve"] for line in reversed(lines) if line.get("open_set")
    }
    if open_set:
        charts.append(
            draw_curves(
                "Share of the known that are answered rightly, by the share of strangers that pass as well",
                [Curve(strategy, open_set[strategy]) for strategy in first if strategy in open_set],
                x="strangers accepted",
                y="identified",
            )
        )
    calibration = next(iter(first.values()))["calibration"]
    if calibration is not None:
        charts.append(draw_reliability(calibration["bins"]))
    return charts


def draw_histograms(histograms: Mapping[str, Sequence[int]]) -> SafeString:
    """How similar the best candidate was, where it was right, where it was wrong, and of strangers.

    Each kind as shares of its own, for they are of different numbers.
    """
    kinds = [(name, counts) for name, counts in histograms.items() if sum(counts)]
    shares = [(name, [n / sum(counts) for n in counts]) for name, counts in kinds]
    highest = max((share for _, of in shares for share in of), default=0.1)
    return draw_curves(
        "How similar the best candidate was: shares of the right, of the wrong, and of the strangers",
        [
            Curve(name, [((number + 0.5) / len(of), share) for number, share in enumerate(of)])
            for name, of in shares
        ],
        x="similarity",
        y="share",
        top=_above(highest),
        x_words=lambda place: f"{2 * place - 1:g}",
    )


def _above(share: float) -> float:
    """The next tenth, so that the curve fills its chart."""
    return min(1.0, max(0.1, -(-share * 10 // 1) / 10))
