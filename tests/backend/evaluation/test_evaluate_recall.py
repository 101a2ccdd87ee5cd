"""The evaluation against a plain computation after the protocol, on a real Milvus with a small real model."""

import base64
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from numpy.typing import NDArray
from PIL import Image
from pymilvus import MilvusClient

from backend.catalogue.models import ProductState
from backend.catalogue.services import add_reference_image
from backend.common.problems import Problem
from backend.evaluation import searching
from backend.evaluation.embedding import Cropping
from backend.evaluation.evaluate import INDEXES, STRATEGIES, Plan, evaluate
from backend.evaluation.models import EvaluationRun
from backend.evaluation.pictures import Refusal, folder_subject
from backend.evaluation.report import EvaluationReport, Line
from backend.evaluation.scenes import Scenes, list_scenes
from backend.evaluation.task import OpenSet
from recognition import images
from recognition.detector import open_detector
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.metrics import auroc, basket_figures, false_positive_rate
from recognition.model_card import load_model_folder
from recognition.ranking import Result
from recognition.sessions import SessionSettings
from tests.backend.factories import make_product
from tests.conftest import REPOSITORY
from tests.recognition.toy_models import (
    detector_card,
    detector_model,
    embedder_card,
    embedder_model,
    write_folder,
)

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


def scene_of(*products: int) -> bytes:
    """Pictures of the gallery in the quarters of one of 144 x 120 pixels."""
    pixels = np.full((120, 144, 3), 128, np.uint8)
    for place, product in enumerate(products):
        top, left = 60 * (place // 2), 72 * (place % 2)
        pixels[top : top + 60, left : left + 72] = images.decode(picture_of(product, 0)).pixels
    return images.encode_jpeg(pixels, quality=95)


@pytest.fixture(scope="module")
def scenes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Three scenes of four quarters, found by a detector that always finds the four; annotations that are no use."""
    quarters = [(0, 0, 16, 12), (16, 0, 32, 12), (0, 12, 16, 24), (16, 12, 32, 24)]  # of its input of 32 x 24
    toy = write_folder(
        tmp_path_factory.mktemp("detector"), detector_model(quarters, [[0.9, 0.1]] * 4), detector_card()
    )
    shown = [(0, 1, 2, 3), (4, 4, 5, 6), (7, 8, 9, N_PRODUCTS)]  # the last is no product of the gallery
    for number, products in enumerate(shown):
        (folder / f"scene{number}.jpg").write_bytes(scene_of(*products))
    annotations = [
        {"image_id": number, "sku": f"P{product}", "bbox": [72 * (place % 2), 60 * (place // 2), 72, 60]}
        for number, products in enumerate(shown)
        for place, product in enumerate(products)
    ]
    bad = [{"image_id": 9, "sku": "P1", "bbox": [0, 0, 9, 9]}, {"image_id": 4, "bbox": [0, 0, 9, 9]},
           {"image_id": 4, "sku": "P1", "bbox": [0, 0, 0, 9]}]  # fmt: skip
    images_named = [{"id": number, "file_name": f"scene{number}.jpg"} for number in range(3)]
    images_named.append({"id": 4, "file_name": "unsure.jpg"})
    coco = {"images": [*images_named, {"id": 3, "file_name": "gone.jpg"}], "annotations": annotations + bad}
    (folder / "scenes.json").write_text(json.dumps(coco))
    refused: list[Refusal] = []
    found = tuple(list_scenes(folder, refused))
    return Scenes(folder.name, found, tuple(refused), open_detector(toy, SessionSettings()), "toy 1")


@pytest.fixture(scope="module")
def open_report(folder: Path, embedder: ProductEmbedder) -> EvaluationReport:
    """The same folder with a quarter of the products held out, by exact search and FLAT alone."""
    subject = folder_subject(folder, "gallery.csv", "query.csv")
    plan = plan_of(embedder, indexes=("FLAT",), strategies=("float",), open_set=OpenSet(0.25, seed=3))
    return evaluate(subject, plan, quietly)


@pytest.fixture(scope="module")
def report(folder: Path, embedder: ProductEmbedder, scenes: Scenes) -> EvaluationReport:
    """The folder, through every index and strategy; hash_rerank looks at all pictures again."""
    with override_settings(SEARCH_RERANK=N_GALLERY):
        subject = folder_subject(folder, "gallery.csv", "query.csv")
        return evaluate(subject, plan_of(embedder, scenes=scenes), quietly)


class Plain:
    """The protocol of docs/evaluation.md again, query by query and picture by picture."""

    def __init__(self, folder: Path, embedder: ProductEmbedder) -> None:
        self.gallery = self._embed(folder, "gallery.csv", embedder)
        self.query = self._embed(folder, "query.csv", embedder)
        pixels = images.decode((folder / "images" / "stranger.jpg").read_bytes()).pixels
        self.stranger = ("stranger", f"P{N_PRODUCTS}", embedder.embed([pixels]).vectors[0])

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
    assert [key for key in refused if key[0] != "scenes.json"] == [
        ("gallery.csv", 7), ("gallery.csv", 8), ("gallery.csv", LAST_ROW), ("gallery.csv", 4), ("gallery.csv", 5),
        ("gallery.csv", 6), ("gallery.csv", 9), ("query.csv", 3),
    ]  # fmt: skip
    assert "could not convert" in refused["gallery.csv", 7]
    assert "empty cell" in refused["gallery.csv", 8]
    assert "the row has 3 cells, the header names 6 columns" in refused["gallery.csv", LAST_ROW]
    assert refused["gallery.csv", 4] == "cannot be read: No such file or directory"
    assert "ends early" in refused["gallery.csv", 5]
    assert "no box inside the picture of 72 x 60 pixels" in refused["gallery.csv", 6]
    assert refused["gallery.csv", 9] == "the same picture as in row 2"
    assert "not an image" in refused["query.csv", 3] or "something else" in refused["query.csv", 3]
    assert [refused["scenes.json", row] for row in (13, 14, 15)] == [
        "annotation: there is no image 9",
        "annotation: it names no SKU: sku, or a category that is in categories",
        "annotation: bbox is [0, 0, 0, 9]; wanted x, y, width, height, the last two above 0",
    ]
    named = {one.picture: one.reason for one in report.refused if (one.file, one.row) == ("scenes.json", 0)}
    assert named == {
        "unsure.jpg": "left out with its annotation that cannot be used",
        "gone.jpg": "cannot be read: No such file or directory",
    }
    assert (report.n_gallery, report.n_query, report.n_products) == (N_GALLERY, N_QUERY, N_PRODUCTS)


def test_a_query_that_is_in_the_gallery_does_not_find_itself(report: EvaluationReport) -> None:
    assert report.n_own_excluded == 1


def test_a_query_of_an_unknown_sku_is_a_stranger_and_no_miss(report: EvaluationReport) -> None:
    unknown = report.unknown
    assert (unknown.n_query, unknown.n_query_unknown_sku, unknown.n_query_held_out) == (1, 1, 0)
    assert (unknown.share, unknown.held_out) == (None, ())
    assert (
        "1 queries count as unknown, for the gallery has no answer: 1 have a SKU that it lacks"
        in report.summary()
    )
    for line in report.lines:
        assert line.open_set is not None
        assert 0 <= line.open_set["auroc"][0] <= 1
        # One stranger tells no rate of 1 %.
        assert line.open_set["identification_at_1_percent"] is None


def test_figures_lie_within_their_intervals(report: EvaluationReport) -> None:
    for line in report.lines:
        for name, (low, high) in line.scores.intervals.items():
            assert low <= getattr(line.scores, name) <= high
            assert high - low > 0.01
        assert line.answers is not None
        for kind in ("known", "left_out"):
            for value, low, high in line.answers[kind].values():
                assert low <= value <= high
            results = [line.answers[kind][one.value][0] for one in Result]
            assert sum(results) == pytest.approx(1, abs=1e-4)
        coverage, risk = np.array(line.answers["risk_coverage"]).T
        assert (np.diff(coverage) > 0).all()
        assert coverage[-1] == 1
        assert ((risk >= 0) & (risk <= 1)).all()


def test_scenes_go_through_the_whole_pipeline(
    report: EvaluationReport, plain: Plain, scenes: Scenes, embedder: ProductEmbedder
) -> None:
    found = report.scenes
    assert found is not None
    assert [found[key] for key in ("n_scenes", "n_pieces", "n_pieces_unknown_sku", "n_items")] == [
        3,
        12,
        1,
        12,
    ]
    assert (found["found"], found["detector"], found["index"]) == (1.0, "toy 1", "HNSW")
    assert sum(found["results"].values()) == pytest.approx(1)
    # Nothing is unknown here, so that what is proposed is each quarter's nearest picture by brute force.
    assert found["results"]["unknown"] == 0
    truth, nearest = [], []
    for scene in scenes.scenes[:3]:
        image = images.decode(scene.read())
        crops = [image.crop(box, embedder.card.crop_margin) for _, box in scene.items]
        vectors = embedder.embed(crops).vectors
        best = [
            max(plain.gallery, key=lambda one, vector=vector: float(vector @ one[2]))[1] for vector in vectors
        ]
        truth.append(Counter(sku for sku, _ in scene.items if sku != f"P{N_PRODUCTS}"))
        nearest.append(Counter(best))
    wanted = asdict(basket_figures(truth, nearest))
    assert 0 < wanted["mean_category_iou"] < 1
    for name, value in wanted.items():
        said, low, high = found["proposed"][name]
        assert said == pytest.approx(value, abs=1e-4)
        assert low <= said <= high
    n_recognised = 12 * found["results"]["recognised"]
    assert found["recognised"]["average_counting_distance"][0] >= (11 - n_recognised) / 3 - 1e-3


def test_what_lies_behind_the_figures(report: EvaluationReport, plain: Plain) -> None:
    """Confusions, worst queries and products again, from the ranked SKUs of the plain computation."""
    details = report.details
    answered = [(sku, ranked[0]) for sku, ranked in plain.ranked()]
    wrong = Counter(pair for pair in answered if pair[0] != pair[1])
    assert sum(details.histograms["right"]) == len(answered) - sum(wrong.values())
    assert sum(details.histograms["wrong"]) == sum(wrong.values())
    assert sum(details.histograms["strangers"]) == 1
    named = {(one["sku"], one["answered"]): one["n"] for one in details.confusions}
    assert named.items() <= wrong.items()
    assert len(named) == min(len(wrong), 12)
    assert sorted(named.values()) == sorted(wrong.values())[-len(named) :]
    surpassed = [one["similarity"] - (one["right_similarity"] or -1) for one in details.worst]
    assert (np.diff(surpassed) < 2e-4).all()  # to the rounding
    assert all((one["sku"], one["answered"]) in wrong for one in details.worst)
    for one in (*details.confusions, *details.worst):
        for key in (one["query"], one["nearest"]):
            data = base64.b64decode(details.pictures[key].removeprefix("data:image/jpeg;base64,"))
            assert max(images.decode(data).pixels.shape) <= 112
    products = {one["sku"]: one for one in details.products}
    assert len(products) == N_PRODUCTS
    for sku, one in products.items():
        own = [pair for pair in answered if pair[0] == sku]
        assert (one["n_pictures"], one["n_query"]) == (N_GALLERY // N_PRODUCTS, len(own))
        if own:
            assert one["right"] == pytest.approx(
                np.mean([first == second for first, second in own]), abs=1e-4
            )
            assert bool(one["advice"]) == (one["right"] < 0.9)


def documented_keys() -> set[str]:
    """The keys of the table in docs/evaluation.md."""
    page = (REPOSITORY / "docs" / "evaluation.md").read_text()
    return set(re.findall(r"^\| `([a-z0-9_.\[\]]+)` \|", page, re.MULTILINE))


def test_products_are_held_out_by_the_seed(open_report: EvaluationReport, plain: Plain) -> None:
    """The figures again, from similarities to what is left of the gallery."""
    unknown = open_report.unknown
    assert (unknown.share, unknown.seed, len(unknown.held_out)) == (
        0.25,
        3,
        10,
    )  # of 40 products with queries
    assert OpenSet(0.25, seed=3).choose([f"P{number}" for number in range(N_QUERY)]) == set(unknown.held_out)
    assert OpenSet(0.25, seed=4).choose([f"P{number}" for number in range(N_QUERY)]) != set(unknown.held_out)
    assert open_report.n_products == N_PRODUCTS - 10
    assert (unknown.n_query_held_out, unknown.n_query_unknown_sku, open_report.n_query) == (
        10,
        1,
        N_QUERY - 10,
    )
    inside = [one for one in plain.gallery if one[1] not in unknown.held_out]
    known, right, strangers = [], [], []
    for name, sku, vector in [*plain.query, plain.stranger]:
        best = max((float(vector @ one[2]), one[1]) for one in inside if one[0] != name)
        if sku in unknown.held_out or sku == f"P{N_PRODUCTS}":
            strangers.append(best[0])
        else:
            known.append(best[0])
            right.append(best[1] == sku)
    for line in open_report.lines:
        assert line.scores.recall_at_1 == pytest.approx(np.mean(right))
        assert line.open_set["auroc"][0] == pytest.approx(
            auroc(np.array(known), np.array(strangers)), abs=1e-3
        )
        rate = false_positive_rate(np.array(known), np.array(strangers))
        assert line.open_set["fpr_at_95_tpr"][0] == pytest.approx(rate, abs=1e-4)
    assert "10 show one of 10 products held out of it, 1 have a SKU that it lacks" in open_report.summary()


@pytest.mark.parametrize(("share", "reason"), [(0.0, "more than 0"), (1.0, "less than 1"), (0.5, "found 2")])
def test_shares_that_leave_nothing_are_refused(share: float, reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        OpenSet(share, 0).choose(["A", "B"])


def keys_of(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return set().union(*(keys_of(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(keys_of(inner, f"{path}[]") for inner in value))
    return {path}


def test_the_documented_schema_is_what_is_written(
    report: EvaluationReport, open_report: EvaluationReport
) -> None:
    written = set()
    for one in (report, open_report):
        written |= keys_of(json.loads(json.dumps(one.to_dict())))
    # What is null in one of them is a list in the other, or a value and its interval anyhow.
    written = {key.removesuffix("[]").removesuffix("[]") for key in written} - {"scenes", "refused"}
    assert written == documented_keys()


def test_collections_are_dropped_after_an_interruption(
    tmp_path: Path, embedder: ProductEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = uuid4()
    monkeypatch.setattr(searching, "uuid", SimpleNamespace(uuid4=lambda: known))

    def made_here() -> list[str]:
        return [name for name in milvus.list_collections() if known.hex[:12] in name]

    for shot in range(3):
        (tmp_path / f"{shot}.jpg").write_bytes(picture_of(1, shot))
    write_csv(tmp_path / "gallery.csv", [(f"{shot}.jpg", "P1", "", "", "", "") for shot in range(3)])
    milvus = MilvusClient(os.environ["MILVUS_URI"])
    seen = []

    def interrupted(stage: str, steps: Any) -> Any:
        for step in steps:
            yield step
            if stage == "searching":
                seen.extend(made_here())
                raise KeyboardInterrupt

    plan = plan_of(embedder, indexes=("FLAT",), strategies=("float",))
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder_subject(tmp_path, "gallery.csv", "gallery.csv"), plan, interrupted)
    assert len(seen) == 2
    assert not made_here()
    milvus.close()


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
def test_pictures_of_one_sequence_do_not_find_each_other(
    tmp_path: Path, model_folder: Path, embedder: ProductEmbedder
) -> None:
    """Eight products of two sequences of three near copies each; a ninth has one sequence alone."""
    rows, vectors = ["image,sku,sequence"], []
    for product in range(9):
        for sequence in range(1 if product == 8 else 2):
            for copy in range(3):
                name = f"{product}-{sequence}-{copy}.png"
                shot = images.decode(picture_of(product, 10 * sequence)).pixels
                Image.fromarray(np.roll(shot, copy, axis=1)).save(tmp_path / name)
                rows.append(f"{name},P{product},{sequence}")
                vectors.append(embedder.embed([np.roll(shot, copy, axis=1)]).vectors[0])
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    cells = [row.split(",") for row in rows[1:]]
    similarity = np.array(vectors) @ np.array(vectors).T
    right = []
    for query, (_, sku, sequence) in enumerate(cells):
        others = [row for row, (_, *of) in enumerate(cells) if of != [sku, sequence]]
        if any(cells[row][1] == sku for row in others):
            right.append(cells[max(others, key=lambda row: similarity[query, row])][1] == sku)
    out, err = io.StringIO(), io.StringIO()
    arguments = [
        "evaluate_recall", "--folder", str(tmp_path), "--gallery", "all.csv", "--query", "all.csv",
        "--model", str(model_folder), "--index", "FLAT", "--index", "BIN_FLAT",
    ]  # fmt: skip
    call_command(*arguments, stdout=out, stderr=err)
    first = EvaluationRun.objects.get()
    assert first.report["n_query"] == len(right) == 48
    assert err.getvalue().count("no picture of another sequence of product P8") == 3
    for line in first.report["lines"]:
        if line["strategy"] == "float":
            assert line["right_at_1"] == "".join(str(int(one)) for one in right)
    assert 0 < sum(right) < 48
    assert "BIN_FLAT hash_rerank" in out.getvalue()
    call_command(*arguments, "--against", str(first.pk), stdout=out, stderr=err)
    assert f"Recall@1 beside {first}, query by query" in " ".join(out.getvalue().split())
    with pytest.raises(CommandError, match=rf"there is no evaluation 99; the newest is {first.pk + 1}"):
        call_command(*arguments, "--against", "99")


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
