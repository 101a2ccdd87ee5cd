"""A float folder becomes an int8 one that serving takes, within the limit or not at all."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from recognition.detector import open_detector
from recognition.embedder import open_embedder
from recognition.images import DecodedImage
from recognition.model_card import ModelFolder, load_model_folder
from recognition.sessions import SessionSettings, open_session
from tests.training.folders import detector_folder, embedder_folder, pictures
from training import quantise as command
from training.data.faults import BadData
from training.data.generated import GeneratedScenes
from training.export import cosines
from training.quantisation.post_training import METHODS, behind_the_last_layers, with_kl, with_nncf
from training.quantise import (
    QuantisationRefused,
    detector_judge,
    drawn_calibration,
    main,
    quantise,
    read_calibration,
)

FACTS = {"command": "quantise", "judged_on": "nothing", "calibrated_on": "patches"}
SETTINGS = SessionSettings(batch_sizes=(1, 2))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return embedder_folder(tmp_path_factory.mktemp("float") / "embedder")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return detector_folder(tmp_path_factory.mktemp("float") / "detector")


@pytest.fixture(autouse=True)
def few_timed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMED_RUNS", 2)


@pytest.fixture
def kl_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "METHODS", {"kl": with_kl})


def fallen(folder: ModelFolder) -> Mapping[str, float]:
    return {"recall@1": 0.9, "mAP": 0.5 if folder.card.precision == "fp32" else 0.47}


def test_int8_embedders_say_nearly_what_the_float_one_says(embedder: ModelFolder, tmp_path: Path) -> None:
    said = {}

    def judge(folder: ModelFolder) -> Mapping[str, float]:
        said[len(said)] = open_embedder(folder, SETTINGS).embed(pictures(12, seed=2)).vectors
        return {"recall@1": 0.5}

    rows = quantise(
        embedder,
        tmp_path / "int8",
        method="nncf",
        calibration=pictures(24, seed=1),
        judge=judge,
        limit=0.0,
        facts=FACTS,
    )
    assert [row.method for row in rows] == ["float", "nncf", "kl"]
    # Random weights; 1 is the same, and another network's embeddings are near 0.
    assert cosines(said[0], said[1]).min() > 0.95
    assert cosines(said[0], said[2]).min() > 0.95
    assert not np.array_equal(said[0], said[1])
    folder = load_model_folder(tmp_path / "int8")
    assert folder.card.name == "small-int8"
    assert (folder.card.precision, folder.card.provider) == ("int8", "openvino")
    assert folder.card.accuracy == "recall@1 0.5000 float, 0.5000 int8; nothing"
    assert folder.card.command == "quantise"
    stored = [one for one in onnx.load(folder.model_path).graph.initializer if len(one.dims) == 4]
    # NNCF leaves some of squeeze-and-excitation as it is.
    assert sum(one.data_type == onnx.TensorProto.INT8 for one in stored) > 0.7 * len(stored)


@pytest.mark.usefixtures("kl_alone")
def test_a_figure_that_falls_too_far_leaves_nothing_behind(embedder: ModelFolder, tmp_path: Path) -> None:
    def attempt(limit: float) -> None:
        quantise(
            embedder,
            tmp_path / "int8",
            method="kl",
            calibration=pictures(8),
            judge=fallen,
            limit=limit,
            facts=FACTS,
        )

    with pytest.raises(
        QuantisationRefused, match=r"limit of 2 points: mAP fell by 3\.00 points, 0\.5000 to 0\.4700"
    ):
        attempt(2.0)
    assert not list(tmp_path.iterdir())
    attempt(3.0)
    assert "mAP 0.5000 float, 0.4700 int8" in load_model_folder(tmp_path / "int8").card.accuracy
    with pytest.raises(QuantisationRefused, match="found int8, wanted a float model"):
        quantise(
            load_model_folder(tmp_path / "int8"),
            tmp_path / "again",
            method="kl",
            calibration=pictures(8),
            judge=fallen,
            limit=9.0,
            facts=FACTS,
        )


def test_a_detectors_boxes_are_not_rounded_to_int8(
    detector: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "METHODS", {"nncf": with_nncf})
    calibration = drawn_calibration(detector.card, 8, seed=3)
    judged = GeneratedScenes(3, seed=4)
    quantise(
        detector,
        tmp_path / "int8",
        method="nncf",
        calibration=calibration,
        judge=detector_judge(judged),
        limit=100.0,
        facts=FACTS,
    )
    folder = load_model_folder(tmp_path / "int8")
    open_detector(folder, SETTINGS).detect(DecodedImage(calibration[0], 320, 240, "PNG"))
    batch = np.stack([np.zeros((3, 64, 64), np.float32), np.ones((3, 64, 64), np.float32)])
    float_, int8 = (open_session(one, SETTINGS).run({"pixels": batch}) for one in (detector, folder))
    assert int8["boxes"].shape == float_["boxes"].shape
    # Boxes lie within 8-bit steps of a picture of 64 pixels nowhere: their digits are those of float arithmetic.
    assert len(np.unique(int8["boxes"])) > 256
    assert np.abs(int8["boxes"] - float_["boxes"]).mean() < 2.0
    assert np.abs(int8["scores"] - float_["scores"]).mean() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_a_part_can_stay_float(detector: ModelFolder, tmp_path: Path, method: str) -> None:
    quantise(
        detector,
        tmp_path / "int8",
        method=method,
        calibration=drawn_calibration(detector.card, 4, seed=3),
        judge=lambda folder: {"AP": 0.5},
        limit=0.0,
        facts=FACTS,
        keep_float=["neck"],
    )
    stored = onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer
    of_neck = [one for one in stored if ".neck." in one.name and len(one.dims) == 4]
    assert len(of_neck) > 10
    assert {one.data_type for one in of_neck} == {onnx.TensorProto.FLOAT}
    rounded = [one.name for one in stored if one.data_type == onnx.TensorProto.INT8]
    assert rounded
    assert not any(".neck." in name for name in rounded)


def test_a_part_that_is_not_there_is_refused(detector: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(QuantisationRefused, match=r"tail: found no such part; layers are called .*backbone"):
        quantise(
            detector,
            tmp_path / "int8",
            method="kl",
            calibration=pictures(2),
            judge=fallen,
            limit=9.0,
            facts=FACTS,
            keep_float=["tail"],
        )
    assert not list(tmp_path.iterdir())


def test_what_lies_behind_the_last_layers_is_left_alone(detector: ModelFolder) -> None:
    model = onnx.load(detector.model_path)
    behind = set(behind_the_last_layers(model))
    kinds = {node.op_type for node in model.graph.node if node.name in behind}
    assert {"Softmax", "MatMul", "Sub", "Concat", "Sigmoid"} <= kinds
    assert not kinds & {"Conv", "Gemm", "HardSwish", "Resize"}


def test_calibration_comes_from_a_folder_a_list_or_scenes(tmp_path: Path) -> None:
    shown = pictures(4, side=16)
    for number, picture in enumerate(shown):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "list.txt").write_text("0.png\t5\n1.png\t5\t0\t0\t8\t16\n2.png\t7\n")
    whole = read_calibration(tmp_path, 10, 0, 0.0)
    assert all(np.array_equal(found, picture) for found, picture in zip(whole, shown, strict=True))
    assert [crop.shape[:2] for crop in read_calibration(tmp_path / "list.txt", 10, 0, 0.0)] == [
        (16, 16),
        (16, 8),
        (16, 16),
    ]
    first, again, other = (read_calibration(tmp_path, 2, seed, 0.0) for seed in (0, 0, 3))
    assert len(first) == 2
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(BadData, match="found no picture"):
        read_calibration(_empty(tmp_path), 2, 0, 0.0)
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(BadData, match=r"0\.png"):
        read_calibration(tmp_path, 10, 0, 0.0)


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_the_command_writes_a_card_without_paths(
    embedder: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for number, picture in enumerate(pictures(6, seed=5)):
        for copy in range(2):
            varied: NDArray[np.uint8] = np.clip(picture.astype(np.int64) + 3 * copy, 0, 255).astype(np.uint8)
            Image.fromarray(varied).save(images / f"{number}-{copy}.png")
            lines.append(f"{number}-{copy}.png\t{number}\n")
    (images / "query.txt").write_text("".join(lines[::2]))
    (images / "gallery.txt").write_text("".join(lines[1::2]))
    model = tmp_path / "model"
    shutil.copytree(embedder.model_path.parent, model)
    lists = ["--query", str(images / "query.txt"), "--gallery", str(images / "gallery.txt")]
    others = ["--calibration", str(images), "--method", "kl", "--limit", "100"]
    main([str(model), "--out", str(tmp_path / "int8"), *lists, *others])
    said = capsys.readouterr().out
    assert "nncf" in said
    assert "int8 by kl, every figure within 100 points" in said
    card = load_model_folder(tmp_path / "int8").card
    figure = r"[01]\.\d{4}"
    pairs = "; ".join(
        f"{name} {figure} float, {figure} int8" for name in ("recall@1", "mAP", "hash_recall@1")
    )
    assert re.fullmatch(
        f"{pairs}; query.txt against gallery.txt: 6 queries, 6 gallery pictures", card.accuracy
    )
    assert card.command == (
        "python -m training.quantise model --method kl --query query.txt --gallery gallery.txt --calibration images "
        "--pictures 300 --seed 0 --limit 100"
    )
    assert str(tmp_path) not in repr(card)
    with pytest.raises(SystemExit, match=r"refused: .* is there already"):
        main([str(model), "--out", str(tmp_path / "int8")])
    with pytest.raises(SystemExit, match=r"refused: wanted for an embedder"):
        main([str(model), "--out", str(tmp_path / "other"), "--annotations", "scenes.json"])
