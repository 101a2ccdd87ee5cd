"""The charts of an evaluation: what is risked at which coverage, and how well the confidence says it."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.safestring import SafeString

from backend.common.charts import Curve, draw_curves
from backend.gallery.fit_display import draw_reliability


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
    highest = max(risk for curve in curves for _, risk in curve.points)
    charts = [
        draw_curves(
            "Share of wrong answers when only the surest are given; a tenth of the queries show what the gallery lacks",
            curves,
            x="answered",
            y="of these wrong",
            top=_above(highest),
        )
    ]
    calibration = next(iter(first.values()))["calibration"]
    if calibration is not None:
        charts.append(draw_reliability(calibration["bins"]))
    return charts


def _above(share: float) -> float:
    """The next tenth, so that the curve fills its chart."""
    return min(1.0, max(0.1, -(-share * 10 // 1) / 10))
