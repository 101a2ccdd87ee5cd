"""`make bench-models`: the models' own speed, stage by stage, without a service round them; ratios within one run.

Decoding, detecting, embedding and searching take turns, pair by pair, on a scene of five products: the shipped int8
pair, the same models at fp32, those on the plain provider too, and PP-ShiTu's pair for servers, whose weights are by
chance, for speed does not depend on them. All embed the five boxes that are known to be there, so that what a detector
finds changes nothing. Machines are shared and noisy: only the ratios are worth quoting (docs/performance.md).

    make bench-models ARGS="--rounds 40 --threads 1"
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from backend.engines import embedded
from recognition import images
from recognition.detector import MainBodyDetector, open_detector
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.gallery import Gallery, IndexSettings, SearchSettings
from recognition.images import Box
from recognition.model_card import ModelFolder, Provider, load_model_folder
from recognition.sessions import SessionSettings
from tests.bench.strangers import add_strangers
from tests.live import REPOSITORY
from tests.training.published_weights import weights_of, write
from training import import_paddle

CATALOGUE = REPOSITORY / "fixtures" / "demo_catalogue"
MODELS = REPOSITORY / "fixtures" / "models"
SCENE = 2  # of scenes.json: five products
SERVER_DETECTOR, SERVER_EMBEDDER = "picodet_lcnet_x2_5_640_mainbody", "resnet50_vd_rec"
SHIPPED = "shipped, int8"


@dataclass(frozen=True)
class Pair:
    """A detector and an embedder, opened."""

    detector: MainBodyDetector
    embedder: ProductEmbedder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="turns of each pair")
    parser.add_argument("--threads", type=int, default=1, help="of each model (default: 1, as a worker has)")
    parser.add_argument("--embeddings", type=int, default=50_000, help="in the gallery that is searched")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checklane-bench-") as folder:
        pairs = open_pairs(Path(folder), options.threads)
        with filled_gallery(Path(folder), options.embeddings) as gallery:
            found = measure(pairs, gallery, options.rounds)
    report = {
        "settings": {"threads": options.threads, "embeddings": options.embeddings, "cores": os.cpu_count()},
        "milliseconds": found,
        "ratios": ratios(found),
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


def open_pairs(folder: Path, threads: int) -> dict[str, Pair]:
    """The pairs by what they are called."""

    def opened(detector: Path, embedder: Path, provider: Provider | None = None) -> Pair:
        settings = SessionSettings(threads=threads, batch_sizes=(1, 5))
        return Pair(
            open_detector(_on(load_model_folder(detector), provider), settings),
            open_embedder(_on(load_model_folder(embedder), provider), settings),
        )

    server = [import_by_chance(name, folder) for name in (SERVER_DETECTOR, SERVER_EMBEDDER)]
    return {
        SHIPPED: opened(MODELS / "checklane-detector-int8", MODELS / "checklane-embedder-int8"),
        "shipped, fp32": opened(MODELS / "checklane-detector", MODELS / "checklane-embedder"),
        "shipped, fp32, plain provider": opened(
            MODELS / "checklane-detector", MODELS / "checklane-embedder", "cpu"
        ),
        "PP-ShiTu's for servers, fp32": opened(*server),
    }


def _on(folder: ModelFolder, provider: Provider | None) -> ModelFolder:
    return folder if provider is None else replace(folder, card=replace(folder.card, provider=provider))


def import_by_chance(name: str, folder: Path) -> Path:
    """One of upstream's models with weights by chance, as a model folder."""
    published = write(folder / f"{name}.pdparams", weights_of(name))
    out = folder / name
    import_paddle.import_paddle(name, published, out)
    return out


@contextmanager
def filled_gallery(folder: Path, n: int) -> Iterator[Gallery]:
    """A gallery of n random embeddings, indexed by HNSW, on a Milvus of its own."""
    environ: dict[str, str] = {}
    uri = embedded.provide(folder / "engines", environ).milvus
    try:
        gallery = Gallery(
            uri, name="bench_models", dimension=512, hash_bits=512, index=IndexSettings(type="HNSW"), timeout_seconds=60
        )  # fmt: skip
        gallery.create()
        gallery.load()
        add_strangers(gallery, [row // 5 for row in range(n)], first_id=0)
        yield gallery
    finally:
        embedded.down(folder / "engines")


def measure(pairs: dict[str, Pair], gallery: Gallery, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each stage by pair; the pairs take turns, and who begins moves on."""
    photo, boxes = read_scene()
    names = list(pairs)
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    how = SearchSettings()
    for turn in range(-2, rounds):  # two to warm up
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            pair = pairs[name]
            decoded, decode = timed(lambda: images.decode(photo, longest_side=1_280))
            _, detect = timed(lambda pair=pair, decoded=decoded: pair.detector.detect(decoded))
            crops = [decoded.crop(box, pair.embedder.card.crop_margin) for box in boxes]
            embeddings, embed = timed(lambda pair=pair, crops=crops: pair.embedder.embed(crops))
            _, search = timed(lambda embeddings=embeddings: gallery.search(embeddings, how))
            if turn < 0:
                continue
            stages = {"decode": decode, "detect": detect, "embed": embed, "search": search}
            for stage, milliseconds in (stages | {"all": sum(stages.values())}).items():
                spent[name].setdefault(stage, []).append(milliseconds)
    return {
        name: {stage: statistics.median(values) for stage, values in stages.items()}
        for name, stages in spent.items()
    }


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the milliseconds that it took."""
    started = time.perf_counter()
    given = act()
    return given, 1000 * (time.perf_counter() - started)


def read_scene() -> tuple[bytes, list[Box]]:
    """A photo of the demo catalogue and the boxes of its products."""
    named = json.loads((CATALOGUE / "scenes.json").read_text())
    photo = next(one for one in named["images"] if one["id"] == SCENE)
    corners = [one["bbox"] for one in named["annotations"] if one["image_id"] == SCENE]
    boxes: list[Box] = [(x, y, x + width, y + height) for x, y, width, height in corners]
    return (CATALOGUE / photo["file_name"]).read_bytes(), boxes


def ratios(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of each pair what a stage takes, over what it takes the shipped fp32 pair on the plain provider."""
    plain = found["shipped, fp32, plain provider"]
    return {
        name: {stage: stages[stage] / plain[stage] for stage in ("detect", "embed", "all")}
        for name, stages in found.items()
    }


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    table = Table(
        title=f"milliseconds, median; {report['settings']}; in brackets the ratio to fp32 on the plain provider"
    )
    table.add_column("pair", no_wrap=True)
    stages = ("decode", "detect", "embed", "search", "all")
    for stage in stages:
        table.add_column(stage, justify="right", no_wrap=True)
    for name, found in report["milliseconds"].items():
        ratio = report["ratios"][name]
        table.add_row(
            name,
            *(
                f"{found[stage]:.1f}" + (f" ({ratio[stage]:.2f})" if stage in ratio else "")
                for stage in stages
            ),
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
