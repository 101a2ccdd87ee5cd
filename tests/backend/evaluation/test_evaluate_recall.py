"""The evaluation against a plain computation after the protocol, on a real Milvus with a small real model."""

import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from numpy.typing import NDArray
from pymilvus import MilvusClient

from backend.catalogue.models import ProductState
from backend.catalogue.services import add_reference_image
from backend.evaluation.embedding import Cropping
from backend.evaluation.evaluate import INDEXES, STRATEGIES, Plan, evaluate
from backend.evaluation.models import EvaluationRun
from backend.evaluation.pictures import folder_subject
from backend.evaluation.report import EvaluationReport, Line
from recognition import images
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings
from tests.backend.factories import make_product
from tests.conftest import REPOSITORY
from tests.recognition.toy_models import embedder_card, embedder_model, write_folder

N_PRODUCTS = 60
N_GALLERY = 1_200  # enough for Milvus to build an index
LAST_ROW = N_GALLERY + 8  # of gallery.csv: its header, six bad rows, and one more
N_QUERY = 40
BOX = (12.0, 8.0, 60.0, 52.0)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_folder(folder, embedder_model(), embedder_card())
    return folder


@pytest.fixture(scope="module")
def embedder(model_folder: Path) -> ProductEmbedder:
    return open_embedder(load_model_folder(model_folder), SessionSettings())


def picture_of(product: int, shot: int) -> bytes:
    """Pictures of one product resemble each other: its colours, and a little noise."""
    colours = np.random.default_rng(product).integers(0, 256, (5, 7, 3))
    noise = np.random.default_rng(10_000 + 1_000 * product + shot).integers(-70, 70, (5, 7, 3))
    pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return images.encode_jpeg(
        images.resize(pixels, 72, 60, interpolation="bilinear", antialias=True), quality=90
    )


def write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["image,sku,x1,y1,x2,y2", *lines]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery and queries; every other picture has a box, and both files have rows that cannot be used."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "images").mkdir()
    gallery, query = [], []
    for number in range(N_GALLERY):
        product, shot = number % N_PRODUCTS, number // N_PRODUCTS
        name = f"images/g{number}.jpg"
        (folder / name).write_bytes(picture_of(product, shot))
        gallery.append((name, f"P{product}", *(BOX if number % 2 else ("",) * 4)))
    for number in range(N_QUERY):
        name = f"images/q{number}.jpg"
        (folder / name).write_bytes(picture_of(number, 999))
        query.append((name, f"P{number}", *(BOX if number % 2 else ("",) * 4)))
    query[5] = gallery[65]  # one that is in the gallery
    (folder / "images" / "broken.jpg").write_bytes(picture_of(0, 0)[:300])
    (folder / "images" / "text.jpg").write_text("no picture")
    (folder / "images" / "stranger.jpg").write_bytes(picture_of(N_PRODUCTS, 0))
    gallery[2:2] = [
        ("images/gone.jpg", "P1", "", "", "", ""),
        ("images/broken.jpg", "P1", "", "", "", ""),
        ("images/g0.jpg", "P1", 10, 10, 500, 20),
        ("images/g0.jpg", "P1", 10, "left", 20, 20),
        ("images/g0.jpg", "", "", "", "", ""),
        ("images/g0.jpg", "P0", "", "", "", ""),
    ]
    gallery.append(("images/g0.jpg", "P1", 10))
    query[1:1] = [("images/text.jpg", "P1", "", "", "", ""), ("images/stranger.jpg", "P60", "", "", "", "")]
    write_csv(folder / "gallery.csv", gallery)
    write_csv(folder / "query.csv", query)
    return folder


def plan_of(embedder: ProductEmbedder, **changes: Any) -> Plan:
    cropping = Cropping("box", None, embedder.card.crop_margin, embedder.card.minimum_side_pixels)
    plan = Plan(
        embedder=embedder,
        generation=None,
        cropping=cropping,
        detector=None,
        indexes=INDEXES,
        strategies=STRATEGIES,
    )
    return replace(plan, **changes)


def quietly(_stage: str, steps: Any) -> Any:
    return steps


@pytest.fixture(scope="module")
def report(folder: Path, embedder: ProductEmbedder) -> EvaluationReport:
    """The folder, through every index and strategy; hash_rerank looks at all pictures again."""
    with override_settings(SEARCH_RERANK=N_GALLERY):
        return evaluate(folder_subject(folder, "gallery.csv", "query.csv"), plan_of(embedder), quietly)


class Plain:
    """The protocol of docs/evaluation.md again, query by query and picture by picture."""

    def __init__(self, folder: Path, embedder: ProductEmbedder) -> None:
        self.gallery = self._embed(folder, "gallery.csv", embedder)
        self.query = self._embed(folder, "query.csv", embedder)

    def _embed(
        self, folder: Path, file: str, embedder: ProductEmbedder
    ) -> list[tuple[str, str, NDArray[np.float32]]]:
        found = []
        for line in (folder / file).read_text().splitlines()[1:]:
            name, sku, *box = line.split(",")
            first = not found
            if not re.fullmatch(r"images/[gq]\d+.jpg", name) or (name == "images/g0.jpg" and not first):
                continue  # the bad rows
            image = images.decode((folder / name).read_bytes())
            crop = image.crop(tuple(map(float, box)), embedder.card.crop_margin) if box[0] else image.pixels
            found.append((name, sku, embedder.embed([crop]).vectors[0]))
        return found

    def ranked(self) -> Iterable[tuple[str, list[str]]]:
        """For each query its SKU, and the SKUs of all other pictures from the nearest on."""
        for name, sku, vector in self.query:
            others = [one for one in self.gallery if one[0] != name]
            others.sort(key=lambda one: -float(vector @ one[2]))
            yield sku, [one[1] for one in others]

    def recall(self, k: int) -> float:
        return float(np.mean([sku in list(dict.fromkeys(ranked))[:k] for sku, ranked in self.ranked()]))

    def mean_average_precision(self, depth: int) -> float:
        values = []
        for sku, ranked in self.ranked():
            right, total = 0, 0.0
            for rank, one in enumerate(ranked[:depth], start=1):
                if one == sku:
                    right += 1
                    total += right / rank
            values.append(total / min(ranked.count(sku), depth))
        return float(np.mean(values))


@pytest.fixture(scope="module")
def plain(folder: Path, embedder: ProductEmbedder) -> Plain:
    return Plain(folder, embedder)


def line_of(report: EvaluationReport, index: str, strategy: str = "float") -> Line:
    [line] = [one for one in report.lines if (one.index, one.strategy) == (index, strategy)]
    return line


def test_every_index_and_strategy_has_its_line_and_the_exact_search_comes_first(
    report: EvaluationReport,
) -> None:
    assert [(line.index, line.strategy) for line in report.lines] == [
        ("exact (NumPy)", "float"),
        ("FLAT", "float"),
        ("HNSW", "float"),
        ("IVF_FLAT", "float"),
        ("BIN_FLAT", "hash"),
        ("BIN_FLAT", "hash_rerank"),
    ]


@pytest.mark.parametrize(
    ("index", "strategy"), [("exact (NumPy)", "float"), ("FLAT", "float"), ("BIN_FLAT", "hash_rerank")]
)
def test_exact_search_scores_as_the_plain_computation(
    report: EvaluationReport, plain: Plain, index: str, strategy: str
) -> None:
    scores = line_of(report, index, strategy).scores
    assert 0.2 < scores.recall_at_1 < 1  # neither trivial nor hopeless, or equality would say little
    assert scores.recall_at_1 == pytest.approx(plain.recall(1))
    assert scores.recall_at_5 == pytest.approx(plain.recall(5))
    assert scores.map_at_100 == pytest.approx(plain.mean_average_precision(100), abs=1e-4)
    assert scores.overlap_at_10 == 1


def test_map_over_the_whole_gallery_is_the_exact_lines_alone(report: EvaluationReport, plain: Plain) -> None:
    whole = plain.mean_average_precision(N_GALLERY)
    assert report.lines[0].scores.map == pytest.approx(whole, abs=1e-4)
    assert {line.scores.map for line in report.lines[1:]} == {None}


def test_hash_search_loses_something_and_is_scored_lower(report: EvaluationReport) -> None:
    exact, hashed = line_of(report, "FLAT").scores, line_of(report, "BIN_FLAT", "hash").scores
    assert 0 < hashed.map_at_100 < exact.map_at_100
    assert 0 < hashed.overlap_at_10 < 1


def test_only_a_search_through_an_index_bears_its_name(report: EvaluationReport) -> None:
    assert line_of(report, "FLAT").used == "searched exactly"
    assert line_of(report, "HNSW").used == "HNSW"
    assert line_of(report, "IVF_FLAT").used == "IVF_FLAT"
    assert line_of(report, "BIN_FLAT", "hash").used == "searched exactly"
    [segment] = line_of(report, "HNSW").segments
    assert (segment.rows, segment.index) == (N_GALLERY, "HNSW")
    assert line_of(report, "HNSW").scores.overlap_at_10 > 0.95


def test_sizes_and_latencies(report: EvaluationReport) -> None:
    flat, hnsw = line_of(report, "FLAT"), line_of(report, "HNSW")
    assert flat.computed_bytes == N_GALLERY * 16 * 4
    assert line_of(report, "BIN_FLAT", "hash").computed_bytes == N_GALLERY * 16 / 8
    assert hnsw.computed_bytes > flat.computed_bytes
    assert (hnsw.folder_growth_bytes or 0) > N_GALLERY * 16
    assert flat.folder_growth_bytes is not None
    assert all(0 < line.p50_ms <= line.p95_ms for line in report.lines)


def test_bad_rows_and_pictures_are_named_and_the_rest_is_measured(report: EvaluationReport) -> None:
    refused = {(one.file, one.row): one.reason for one in report.refused}
    assert list(refused) == [
        ("gallery.csv", 7), ("gallery.csv", 8), ("gallery.csv", LAST_ROW), ("gallery.csv", 4), ("gallery.csv", 5),
        ("gallery.csv", 6), ("gallery.csv", 9), ("query.csv", 3), ("query.csv", 4),
    ]  # fmt: skip
    assert "could not convert" in refused["gallery.csv", 7]
    assert "empty cell" in refused["gallery.csv", 8]
    assert "the row has 3 cells, the header names 6 columns" in refused["gallery.csv", LAST_ROW]
    assert refused["gallery.csv", 4] == "cannot be read: No such file or directory"
    assert "ends early" in refused["gallery.csv", 5]
    assert "no box inside the picture of 72 x 60 pixels" in refused["gallery.csv", 6]
    assert refused["gallery.csv", 9] == "the same picture as in row 2"
    assert "not an image" in refused["query.csv", 3] or "something else" in refused["query.csv", 3]
    assert refused["query.csv", 4] == "the gallery has no other picture of product P60"
    assert (report.n_gallery, report.n_query, report.n_products) == (N_GALLERY, N_QUERY, N_PRODUCTS)


def test_a_query_that_is_in_the_gallery_does_not_find_itself(report: EvaluationReport) -> None:
    assert report.n_own_excluded == 1


def documented_keys() -> set[str]:
    """The keys of the table in docs/evaluation.md."""
    page = (REPOSITORY / "docs" / "evaluation.md").read_text()
    return set(re.findall(r"^\| `([a-z0-9_.\[\]]+)` \|", page, re.MULTILINE))


def keys_of(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return set().union(*(keys_of(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(keys_of(inner, f"{path}[]") for inner in value))
    return {path}


def test_the_documented_schema_is_what_is_written(report: EvaluationReport) -> None:
    written = json.loads(json.dumps(report.to_dict()))
    assert keys_of(written) == documented_keys()


def test_collections_are_dropped_after_an_interruption(tmp_path: Path, embedder: ProductEmbedder) -> None:
    for shot in range(3):
        (tmp_path / f"{shot}.jpg").write_bytes(picture_of(1, shot))
    write_csv(tmp_path / "gallery.csv", [(f"{shot}.jpg", "P1", "", "", "", "") for shot in range(3)])
    milvus = MilvusClient(os.environ["MILVUS_URI"])
    seen = []

    def interrupted(stage: str, steps: Any) -> Any:
        for step in steps:
            yield step
            if stage == "searching":
                seen.extend(made_here(milvus))
                raise KeyboardInterrupt

    plan = plan_of(embedder, indexes=("FLAT",), strategies=("float",))
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder_subject(tmp_path, "gallery.csv", "gallery.csv"), plan, interrupted)
    assert len(seen) == 2
    assert not made_here(milvus)
    milvus.close()


def made_here(milvus: MilvusClient) -> list[str]:
    return [name for name in milvus.list_collections() if name.startswith("evaluate_")]


@pytest.mark.django_db
def test_the_live_catalogue_is_measured_leaving_one_picture_out(
    tmp_path: Path, model_folder: Path, embedder: ProductEmbedder
) -> None:
    """Three pictures of A, two of B, one of C, which no answer could be right for; D is retired."""
    skus, vectors = [], []
    out, err = io.StringIO(), io.StringIO()
    with override_settings(MEDIA_ROOT=tmp_path / "media"):
        for number, (sku, shots) in enumerate([("A", 3), ("B", 2), ("C", 1), ("D", 1)]):
            product = make_product(sku, state=ProductState.RETIRED if sku == "D" else ProductState.ACTIVE)
            for shot in range(shots):
                image = add_reference_image(product=product, data=picture_of(number, shot))
                if sku != "D":
                    pixels = images.decode(Path(image.image.path).read_bytes()).pixels
                    vectors.append(embedder.embed([pixels]).vectors[0])
                    skus.append(sku)
        call_command(
            "evaluate_recall", "--model", str(model_folder), "--index", "HNSW", "--json", str(tmp_path / "r.json"),
            stdout=out, stderr=err,
        )  # fmt: skip
    run = EvaluationRun.objects.get()
    assert run.report == json.loads((tmp_path / "r.json").read_text())
    assert (run.subject, run.report["leave_one_out"]) == ("live catalogue", True)
    assert [run.report[key] for key in ("n_gallery", "n_query", "n_own_excluded")] == [6, 5, 5]
    assert "the gallery has no other picture of product C" in err.getvalue()
    similarity = np.array(vectors) @ np.array(vectors).T - 9 * np.eye(6)
    nearest = np.array(skus)[similarity.argmax(axis=1)]
    expected = float(np.mean(nearest[:5] == np.array(skus[:5])))
    for line in run.report["lines"]:
        assert line["scores"]["recall_at_1"] == pytest.approx(expected)
        assert line["used"] == "searched exactly"
    assert "Milvus built no index for HNSW" in " ".join(out.getvalue().split())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no generation is active; name one with --model"),
        (["--model", "nobody"], "there is no embedder 'nobody'"),
        (["--folder", "{folder}"], "there is no .*gallery.csv"),
        (["--folder", "{store}", "--query", "other.csv"], "there is no .*other.csv"),
        (["--folder", "{store}", "--index", "HNSW", "--strategy", "hash"], "hash strategies search BIN_FLAT"),
        (["--folder", "{store}", "--crop", "detect"], "--crop detect needs a detector"),
        (["--folder", "{store}", "--json", "{bad}/none/report.json"], "--json: there is no folder .*none"),
        (
            ["--folder", "{bad}", "--query", "gallery.csv"],
            "nothing can be measured: no picture of the gallery",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, folder: Path, model_folder: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "bad").mkdir()
    write_csv(tmp_path / "bad" / "gallery.csv", [("gone.jpg", "A", "", "", "", "")])
    filled = [one.format(folder=tmp_path, store=folder, bad=tmp_path / "bad") for one in arguments]
    if arguments and arguments[0] == "--folder":
        filled += ["--model", str(model_folder)]
    with pytest.raises(CommandError, match=reason):
        call_command("evaluate_recall", *filled)
