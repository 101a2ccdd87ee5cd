"""A card says all that a model wants, or is refused with the key named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recognition.errors import ModelRefused
from recognition.model_card import (
    DecodedOutputs,
    EmbedderOutputs,
    ModelCard,
    RawLevel,
    RawOutputs,
    load_model_folder,
)
from tests.recognition.toy_models import detector_card, embedder_card

RAW = {"form": "raw", "bins": 8, "levels": [{"stride": 8, "scores": "s", "distributions": "d"}]}


@pytest.mark.parametrize("written", [embedder_card(), detector_card(), detector_card(outputs=RAW)])
def test_a_card_written_and_read_again_is_the_same(written: dict[str, Any]) -> None:
    card = ModelCard.from_dict(written)
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.to_dict() == written


def test_an_embedder_card_tells_what_the_gallery_must_hold() -> None:
    card = ModelCard.from_dict(embedder_card())
    assert (card.dimension, card.hash_bits, card.hash_method) == (16, 16, "sign")
    assert card.outputs == EmbedderOutputs("embedding", "embedding")
    assert card.detection is None


def test_a_detector_card_tells_its_outputs_by_form() -> None:
    assert ModelCard.from_dict(detector_card()).outputs == DecodedOutputs("decoded", "boxes", "scores")
    assert ModelCard.from_dict(detector_card(outputs=RAW)).outputs == RawOutputs(
        "raw", 8, (RawLevel(8, "s", "d"),)
    )


def without(card: dict[str, Any], *path: str) -> dict[str, Any]:
    card = json.loads(json.dumps(card))
    inner = card
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return card


def with_input(**changes: Any) -> dict[str, Any]:
    return embedder_card(input=embedder_card()["input"] | changes)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (without(embedder_card(), "licence"), "licence"),
        (without(embedder_card(), "task"), "task"),
        (without(embedder_card(), "dimension"), "dimension"),
        (without(embedder_card(), "crop_margin"), "crop_margin"),
        (without(embedder_card(), "input", "mean"), "mean"),
        (without(detector_card(), "detection"), "detection"),
        (without(detector_card(), "detection", "classes"), "detection.classes"),
        (without(detector_card(outputs=RAW), "outputs", "bins"), "outputs.bins"),
        (embedder_card(colour="red"), "colour"),
        (with_input(men=[1, 2, 3]), "input.men"),
        (embedder_card(detection=detector_card()["detection"]), "detection"),
        (detector_card(dimension=16), "dimension"),
        (detector_card(minimum_side_pixels=4), "minimum_side_pixels"),
        (detector_card(outputs=embedder_card()["outputs"]), "outputs"),
        (embedder_card(outputs=RAW), "outputs"),
        (with_input(width="32"), "input.width"),
        (with_input(width=True), "input.width"),
        (with_input(height=0), "input"),
        (with_input(mean=[127, 127]), "input.mean"),
        (with_input(mean=[127, 127, "x"]), r"input.mean\[2\]"),
        (with_input(std=[128, 0, 128]), "input.std"),
        (with_input(scale=float("nan")), "input.scale"),
        (with_input(layout="NHWC"), "input.layout"),
        (with_input(normalisation_in_graph=True), "normalisation_in_graph"),
        (with_input(dtype="uint8"), "input.dtype"),
        (embedder_card(precision="int8"), "precision"),
        (embedder_card(precision="fp16", provider="openvino"), "precision"),
        (embedder_card(sha256="abc"), "sha256"),
        (embedder_card(dimension=0), "dimension"),
        (embedder_card(hash_bits=12), "hash_bits"),
        (embedder_card(hash_bits=8), "hash_bits"),
        (embedder_card(hash_method=None), "hash_method"),
        (embedder_card(outputs={"embedding": "embedding"}), "hash_bits"),
        (embedder_card(crop_margin=-0.1), "crop_margin"),
        (
            detector_card(detection=detector_card()["detection"] | {"ignored_classes": ["chair"]}),
            "ignored_classes",
        ),
        (detector_card(detection=detector_card()["detection"] | {"classes": ["table"]}), "ignored_classes"),
        (detector_card(detection=detector_card()["detection"] | {"score_threshold": 30}), "score_threshold"),
        (detector_card(detection=detector_card()["detection"] | {"maximum_items": 0}), "maximum_items"),
        (detector_card(outputs={"form": "fancy"}), "outputs.form"),
        (detector_card(outputs=RAW | {"levels": []}), "outputs.levels"),
        (detector_card(outputs=RAW | {"bins": 1}), "outputs.bins"),
        (detector_card(outputs=[]), "outputs"),
    ],
)
def test_a_wrong_card_is_refused_by_the_name_of_the_key(written: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelRefused, match=named):
        ModelCard.from_dict(written)


def test_normalisation_in_the_graph_wants_none_outside() -> None:
    inside = without(
        without(without(with_input(normalisation_in_graph=True), "input", "mean"), "input", "std"),
        "input",
        "scale",
    )
    inside["input"]["dtype"] = "uint8"
    assert ModelCard.from_dict(inside).input.mean is None


def write_folder(folder: Path, model: bytes = b"the model", card: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    right = embedder_card(sha256=hashlib.sha256(b"the model").hexdigest())
    (folder / "card.json").write_text(json.dumps(right if card is None else card))
    return folder


def test_a_folder_whose_file_is_the_cards_is_accepted(tmp_path: Path) -> None:
    folder = load_model_folder(write_folder(tmp_path))
    assert folder.card.name == "toy"
    assert folder.model_path == tmp_path / "model.onnx"


def test_a_changed_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    write_folder(tmp_path, model=b"another model")
    with pytest.raises(ModelRefused, match=f"{hashlib.sha256(b'another model').hexdigest()}.*the card says"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize("missing", ["model.onnx", "card.json"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str) -> None:
    (write_folder(tmp_path) / missing).unlink()
    with pytest.raises(ModelRefused, match=missing):
        load_model_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"task": "embedder"}'])
def test_an_unreadable_card_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    (write_folder(tmp_path) / "card.json").write_text(text)
    with pytest.raises(ModelRefused, match=r"card\.json"):
        load_model_folder(tmp_path)
