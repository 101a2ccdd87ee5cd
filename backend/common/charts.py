"""Charts as plain inline SVG, so that a page needs no script for them and a saved page shows them too.

Colours are CSS classes and `currentColor`: they follow the page's light or dark theme (checklane.css, *charts*).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 10, 40
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A line through points, or dots where each has a weight.

    Attributes:
        name: in the legend.
        points: x and y, in the chart's units.
        weights: of each point, 0 to 1: its dot's area. None draws the line.
    """

    name: str
    points: Sequence[Point]
    weights: Sequence[float] | None = None


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g} %"


def draw_curves(
    title: str,
    curves: Sequence[Curve],
    *,
    x: str,
    y: str,
    top: float = 1.0,
    diagonal: bool = False,
    x_words: Callable[[float], str] = _per_cent,
    y_words: Callable[[float], str] = _per_cent,
) -> SafeString:
    """A chart of shares: x from 0 to 1, y from 0 to `top`, labelled in per cent unless other words are given.

    Args:
        title: what it shows, for who does not see it.
        x, y: the axes' names.
        diagonal: also draw y = x, where said and seen would agree.
        x_words: what is written at a place along x, 0 to 1.
        y_words: what is written at a place along y, 0 to `top`.
    """

    def place(point: Point) -> Point:
        across, up = min(max(point[0], 0), 1), min(max(point[1] / top, 0), 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def path(points: Sequence[Point]) -> str:
        return " ".join(
            f"{'L' if number else 'M'}{px:.1f} {py:.1f}" for number, (px, py) in enumerate(map(place, points))
        )

    grid = format_html_join(
        "",
        '<path class="ck-chart-grid" d="M{} {}H{}"/>'
        '<text class="ck-chart-tick" x="{}" y="{}" text-anchor="end">{}</text>'
        '<text class="ck-chart-tick" x="{}" y="{}" text-anchor="middle">{}</text>',
        (
            (
                LEFT, f"{place((0, tick * top))[1]:.1f}", WIDTH - RIGHT,
                LEFT - 5, f"{place((0, tick * top))[1] + 3.5:.1f}", y_words(tick * top),
                f"{place((tick, 0))[0]:.1f}", HEIGHT - BOTTOM + 15, x_words(tick),
            )
            for tick in TICKS
        ),
    )  # fmt: skip
    lines = format_html_join(
        "",
        "{}",
        (
            (
                format_html(
                    '<path class="ck-chart-line ck-chart-{}" d="{}"/>', number % 4 + 1, path(curve.points)
                )
                if curve.weights is None
                else _dots([place(point) for point in curve.points], curve.weights, number % 4 + 1),
            )
            for number, curve in enumerate(curves)
        ),
    )
    agreement = (
        format_html('<path class="ck-chart-diagonal" d="{}"/>', path([(0, 0), (min(1, top), min(1, top))]))
        if diagonal
        else ""
    )
    legend = format_html_join(
        "",
        '<li><span class="ck-chart-key ck-chart-{}"></span>{}</li>',
        ((number % 4 + 1, curve.name) for number, curve in enumerate(curves)),
    )
    return format_html(
        '<figure class="ck-chart"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}'
        '<text class="ck-chart-axis" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="ck-chart-axis" transform="rotate(-90)" x="{}" y="11" text-anchor="middle">{}</text></svg>'
        "<figcaption>{}</figcaption><ul>{}</ul></figure>",
        WIDTH, HEIGHT, title, grid, agreement, lines,
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x,
        -(TOP + HEIGHT - BOTTOM) / 2, y,
        title, legend if len(curves) > 1 else "",
    )  # fmt: skip


def _dots(places: Sequence[Point], weights: Sequence[float], number: int) -> SafeString:
    return format_html_join(
        "",
        '<circle class="ck-chart-dot ck-chart-{}" cx="{}" cy="{}" r="{}"/>',
        (
            (number, f"{px:.1f}", f"{py:.1f}", f"{2 + 14 * weight**0.5:.1f}")
            for (px, py), weight in zip(places, weights, strict=True)
        ),
    )
