"""A report's lines as people read them: the cells of the command's table and of the admin's page.

They are made of the JSON form, which stored runs have; a key that is newer than a run is an empty cell.
"""

from collections.abc import Mapping
from typing import Any

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


def make_figure(value: float | None, *, per: float = 1, digits: int = 2) -> str:
    """`value` in units of `per`; empty where nothing was measured."""
    return "" if value is None else f"{value / per:.{digits}f}"


def describe_segments(line: Mapping[str, Any]) -> str:
    """What searches each of the segments that Milvus has loaded; empty for the exact line."""
    return ", ".join(f"{segment['rows']:,} rows {segment['index']}" for segment in line["segments"])
