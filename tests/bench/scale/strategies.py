"""How well and how fast each search strategy finds, over the gallery's size and over the settings of a search."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import log10
from time import perf_counter
from typing import Any

import numpy as np
from django.utils.safestring import SafeString, mark_safe
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from backend.common.charts import Curve, draw_curves
from recognition.embedder import Embeddings
from recognition.gallery import SearchSettings
from recognition.index import computed_index_bytes
from recognition.metrics import exact_search
from tests.bench.scale.embeddings import BITS, DIMENSION, Catalogue, product_of
from tests.bench.scale.filling import Filled

CROPS = 5  # of one photo, searched in one call
K = 10
EFS = (100, 128, 256, 512, 1_024)  # below the 100 matches that are asked for HNSW takes 100
NPROBES = (1, 4, 16, 64, 256)
DEPTHS = (100, 200, 400, 800, 1_600)
WARM_UP = 3
MISSED = "% of the ten nearest missed"
LEAST_MISSED = 1e-4  # drawn at the bottom, with what is less


@dataclass
class Line:
    """One gallery searched in one way.

    Attributes:
        curve: the lines that differ from it in `setting` alone have the same.
        setting: the value of ef, nprobe or rerank; 0 where there is none to choose.
        default: searched as a deployment does that sets nothing.
        seconds: of each call, for CROPS queries.
        shares: of each query's 1 and K nearest pictures by exact cosine those found, (Q, 2).
        right: whether each query's best match shows its product, (Q,).
    """

    filled: Filled
    curve: str
    settings: SearchSettings
    setting: int
    default: bool
    seconds: list[float] = field(default_factory=list)
    shares: list[tuple[float, float]] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Its figures, as plain values."""
        recall_1, recall_k = np.mean(self.shares, axis=0)
        p50, p95 = np.percentile(self.seconds, [50, 95])
        return {
            "rows": self.filled.rows,
            "curve": self.curve,
            "setting": self.setting,
            "default": self.default,
            "recall_at_1": float(recall_1),
            "recall_at_10": float(recall_k),
            "right_product_first": statistics.fmean(self.right),
            "p50_ms": 1_000 * float(p50),
            "p95_ms": 1_000 * float(p95),
        }


def lines_of(filled: Filled) -> list[Line]:
    """All ways in which a gallery is searched. Hash codes are the same beside every index: BIN_FLAT."""
    usual = SearchSettings()

    def line(curve: str, setting: int = 0, *, default: bool = True, **changes: Any) -> Line:
        return Line(filled, curve, replace(usual, **changes), setting, default)

    if filled.index == "FLAT":
        return [line("float FLAT")]
    if filled.index == "IVF_FLAT":
        return [line("float IVF_FLAT", n, default=n == usual.nprobe, nprobe=n) for n in NPROBES]
    return [
        *(line("float HNSW", ef, default=ef == usual.ef, ef=ef) for ef in EFS),
        *(
            line("hash_rerank", depth, default=depth == usual.rerank, strategy="hash_rerank", rerank=depth)
            for depth in DEPTHS
        ),
        line("hash", strategy="hash"),
    ]


def measure_strategies(galleries: Sequence[Filled], catalogue: Catalogue, calls: int) -> list[dict[str, Any]]:
    """Each call through every line in turn; whose turn is first moves on, so that a machine's noise hits all alike.

    Args:
        galleries: filled.
        calls: of each line, of CROPS queries.
    """
    lines = [line for filled in galleries for line in lines_of(filled)]
    nearest = {
        rows: exact_search(catalogue.queries.vectors, catalogue.gallery.vectors[:rows], K)[0]
        for rows in {filled.rows for filled in galleries}
    }
    for line in lines:
        for call in range(WARM_UP):
            line.filled.gallery.search(_photo(catalogue, call)[1], line.settings)
    for call in track(range(calls), description="searching"):
        first = call % len(lines)
        for line in (*lines[first:], *lines[:first]):
            rows, photo = _photo(catalogue, call)
            started = perf_counter()
            matches = line.filled.gallery.search(photo, line.settings)
            line.seconds.append(perf_counter() - started)
            for row, found in zip(rows, matches, strict=True):
                wanted = nearest[line.filled.rows][row]
                ids = [match.reference_image_id - 1 for match in found[:K]]
                line.shares.append((float(ids[0] == wanted[0]), len(set(ids) & set(wanted.tolist())) / K))
                line.right.append(product_of(ids[0]) == catalogue.query_products[row])
    return [line.report() for line in lines]


def _photo(catalogue: Catalogue, call: int) -> tuple[NDArray[np.intp], Embeddings]:
    """The queries' rows that one call searches for, and their embeddings."""
    rows = np.arange(call * CROPS, (call + 1) * CROPS) % len(catalogue.queries)
    return rows, Embeddings(catalogue.queries.vectors[rows], catalogue.queries.hash_codes[rows])


def index_megabytes(filled: Filled) -> float:
    """Of both indexes, computed from their layouts."""
    size = computed_index_bytes(filled.gallery.index, filled.rows, DIMENSION, BITS)
    return (size.float_index + size.hash_index) / 1e6


def table_of(lines: Sequence[dict[str, Any]]) -> Table:
    """A row for each line."""
    table = Table(title=f"Search of {CROPS} crops in one call; recall against exact cosine")
    for column in (
        "embeddings",
        "search",
        "setting",
        "p50 ms",
        "p95 ms",
        "recall@1",
        "recall@10",
        "right product",
    ):
        table.add_column(column, justify="left" if column == "search" else "right")
    for one in lines:
        table.add_row(
            f"{one['rows']:,}",
            one["curve"],
            f"{one['setting'] or ''}{' *' if one['default'] and one['setting'] else ''}",
            f"{one['p50_ms']:.1f}",
            f"{one['p95_ms']:.1f}",
            *(f"{100 * one[name]:.2f} %" for name in ("recall_at_1", "recall_at_10", "right_product_first")),
        )
    return table


# --- charts -----------------------------------------------------------------------------------------------
def draw_strategies(lines: Sequence[dict[str, Any]]) -> list[SafeString]:
    """Latency and recall over the size, by default settings; then recall over latency, a chart for each size."""
    sizes = sorted({one["rows"] for one in lines})
    low, high = log10(sizes[0]), log10(sizes[-1])
    usual = [one for one in lines if one["default"]]
    names = dict.fromkeys(one["curve"] for one in lines)
    approximate = [name for name in names if name != "float FLAT"]

    def over_size(value_of: Callable[[dict[str, Any]], float]) -> list[Curve]:
        rising = sorted(usual, key=lambda one: one["rows"])
        return [
            Curve(
                name,
                [
                    ((log10(one["rows"]) - low) / (high - low), value_of(one))
                    for one in rising
                    if one["curve"] == name
                ],
            )
            for name in approximate
        ]

    def size_words(place: float) -> str:
        rows = 10 ** (low + place * (high - low))
        return f"{float(f'{rows:.2g}'):,.0f}"

    slowest = _round_up(max(one["p50_ms"] for one in usual if one["curve"] in approximate))
    charts = [
        draw_curves(
            f"Median time to search {CROPS} crops, usual settings",
            over_size(lambda one: one["p50_ms"]),
            x="embeddings", y="ms", top=slowest, x_words=size_words, y_words=_number,
        ),
        draw_curves(
            "What the usual settings miss",
            over_size(_missed),
            x="embeddings", y=MISSED, x_words=size_words, y_words=_missed_words,
        ),
    ]  # fmt: skip
    for rows in sizes:
        charts.append(_draw_settings([one for one in lines if one["rows"] == rows], rows, approximate))
    return charts


def _draw_settings(lines: Sequence[dict[str, Any]], rows: int, names: Sequence[str]) -> SafeString:
    """What more ef, nprobe or depth buys, and what it costs."""
    shown = [one for one in lines if one["curve"] in names]
    low, high = log10(min(one["p50_ms"] for one in shown)), log10(max(one["p50_ms"] for one in shown))

    def along(one: dict[str, Any]) -> float:
        return (log10(one["p50_ms"]) - low) / ((high - low) or 1.0)

    curves = []
    for name in names:
        own = [(along(one), _missed(one)) for one in shown if one["curve"] == name]
        curves.append(Curve(name, own, [0.02] if len(own) == 1 else None))
    return draw_curves(
        f"{rows:,} embeddings: what is missed over time, with rising ef, nprobe and rerank",
        curves,
        x=f"median ms for {CROPS} crops, logarithmic",
        y=MISSED,
        x_words=lambda place: _number(10 ** (low + place * (high - low))),
        y_words=_missed_words,
    )


def _missed(line: dict[str, Any]) -> float:
    """The share of the ten nearest that was not found, as a place along its axis: a power of ten a quarter."""
    return (log10(max(1 - line["recall_at_10"], LEAST_MISSED)) - log10(LEAST_MISSED)) / -log10(LEAST_MISSED)


def _missed_words(place: float) -> str:
    return f"{100 * LEAST_MISSED ** (1 - place):.3g}"


def _round_up(value: float) -> float:
    """To a number whose quarters are short."""
    step = 4 * 10 ** max(0, int(log10(value)) - 1)
    return float(-(-value // step) * step)


def _number(value: float) -> str:
    return f"{value:.3g}"


PAGE = """<!doctype html><meta charset="utf-8"><title>Search strategies</title><style>
:root {{ --color-base-50: #f9fafb; --color-base-200: #e5e7eb; --color-base-500: #6b7280; --color-base-900: #111827; }}
{css}
body {{ background: #fff; font: 14px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem; padding: 1rem; }}
ul {{ list-style: none; margin: 0; padding: 0; }}
</style><div class="ck-charts">{charts}</div>"""


def page_of(charts: Sequence[SafeString], css: str) -> str:
    """One HTML file that needs nothing beside it.

    Args:
        css: the product's own, whose chart classes the charts use.
    """
    return PAGE.format(css=css, charts=mark_safe("".join(charts)))  # noqa: S308  our own charts, escaped there
