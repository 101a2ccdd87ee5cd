"""`make bench-scale`: search, product sets and their changes, agreement and memory with up to 300,000 embeddings on
the real Milvus.

Filling takes longer than measuring, so name a folder that is kept: the next run finds its galleries there.

    make bench-scale ARGS="--data DIR strategies --html strategies.html"
    make bench-scale ARGS="--data DIR sets changes agreement memory"
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from backend.bootstrap import prepare_environment
from backend.engines import embedded
from recognition.index import IndexType

PARTS = ("strategies", "sets", "changes", "agreement", "memory")
# These want the catalogue in PostgreSQL too, and are measured on HNSW.
WITH_A_CATALOGUE = {"changes", "agreement"}
# A gallery that is searched exactly grows like its embeddings; to know that, the largest need not be held as well.
LARGEST_FLAT = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument(
        "--data", type=Path, help="folder of engines and galleries, kept; else a temporary one"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument(
        "--index", action="append", choices=get_args(IndexType), help="may be given again; default: all"
    )
    parser.add_argument("--calls", type=int, default=100, help="of each line that is timed, of five crops")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path, help="the strategies' curves")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; wanted some of {', '.join(PARTS)}")
    if options.index and "HNSW" not in options.index and WITH_A_CATALOGUE & {*(options.parts or PARTS)}:
        parser.error("changes and agreement are measured on HNSW: give --index HNSW too, or name other parts")
    kept = (
        nullcontext(options.data) if options.data else tempfile.TemporaryDirectory(prefix="checklane-scale-")
    )
    with kept as folder:
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """Fill what is missing, measure, and show; the folder's engines are stopped at the end."""
    os.environ |= {"CHECKLANE_DATA": str(folder), "SECRET_KEY": "only-for-the-benchmark-" * 3}
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    embedded.provide(folder)
    try:
        from tests.live import make_database

        os.environ["DATABASE_URL"] = make_database("scale")
        prepare_environment()
        import django

        django.setup()
        report = measure(folder, options)
    finally:
        embedded.down(folder)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The parts that are asked for, each shown when it is there."""
    # Django's settings must stand before these are read.
    from django.contrib.staticfiles import finders
    from django.core.management import call_command

    from tests.bench.scale import agreement, changes, memory, sets, strategies
    from tests.bench.scale.embeddings import make_catalogue
    from tests.bench.scale.filling import INDEXES, fill, open_gallery

    console = Console(width=150)
    sizes = sorted(options.sizes)
    parts = options.parts or PARTS
    if WITH_A_CATALOGUE & {*parts}:
        call_command("migrate", verbosity=0)
    catalogue = make_catalogue(sizes[-1], sizes[0])
    galleries = [
        open_gallery(index, rows)
        for rows in sizes
        for index in INDEXES
        if index in (options.index or INDEXES) and (index != "FLAT" or rows <= LARGEST_FLAT)
    ]
    report: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "fill_seconds": fill(galleries, catalogue.gallery),
    }
    largest = [one for one in galleries if one.rows == sizes[-1]]
    hnsw = [one for one in galleries if one.index == "HNSW"]
    measured: dict[str, tuple[Callable[[], list[dict[str, Any]]], Callable[..., Any]]] = {
        "strategies": (
            lambda: strategies.measure_strategies(galleries, catalogue, options.calls),
            strategies.table_of,
        ),
        "sets": (lambda: sets.measure_sets(largest, catalogue, options.calls), sets.table_of),
        "changes": (lambda: changes.measure_changes(hnsw[-1], options.calls), changes.table_of),
        "agreement": (
            lambda: agreement.measure_agreement(
                [one for one in hnsw if one.rows >= sizes[-1] // 10], catalogue.gallery
            ),
            agreement.table_of,
        ),
        "memory": (lambda: memory.measure_memory(galleries, folder), memory.table_of),
    }
    for part in parts:
        measure_part, table_of = measured[part]
        report[part] = measure_part()
        console.print(table_of(report[part]))
    report["load_after"] = os.getloadavg()[0]
    if options.html and "strategies" in report:
        css = Path(str(finders.find("common/checklane.css"))).read_text()
        options.html.write_text(strategies.page_of(strategies.draw_strategies(report["strategies"]), css))
    return report


if __name__ == "__main__":
    main()
