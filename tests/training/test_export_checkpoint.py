"""From a checkpoint to a folder that serving takes; and from a run that learned to be int8."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recognition.detector import open_detector
from recognition.embedder import open_embedder
from recognition.images import DecodedImage, model_input
from recognition.model_card import DecodedOutputs, EmbedderOutputs, ModelCard, load_model_folder
from recognition.sessions import SessionSettings
from tests.training.folders import pictures, settled
from training import quantise as quantise_command
from training.checkpoint import Checkpoint, CheckpointRefused, save
from training.config import settings_from_dict, settings_to_dict
from training.export import cosines
from training.export.__main__ import export, main
from training.export.checkpoints import graph_and_card
from training.networks import build_detector, build_embedder, learning_int8
from training.quantisation.learned import learned_int8
from training.settings import DetectorSettings, EmbedderSettings

SETTINGS = SessionSettings(batch_sizes=(1, 2))
COMMON: dict[str, Any] = {
    "out": "/somewhere/run",
    "epochs": 4,
    "batch_size": 8,
    "optimiser": {"learning_rate": 0.1, "reference_batch": 8},
}
EMBEDDER: dict[str, Any] = COMMON | {
    "program": "embedder",
    "name": "tiny",
    "input": {"side": 64},
    "model": {
        "backbone": {"name": "PPLCNet", "scale": 0.25, "last_channels": 32},
        "neck": {"name": "Hash", "bits": 16},
        "head": {"name": "FC"},
        "hashes": True,
    },
    "losses": {"CrossEntropy": {}, "DSHSD": {}},
    "data": {
        "train": [{"kind": "generated", "products": 4, "views": 2}],
        "augmentation": {"kind": "none"},
    },
    "evaluation": {"source": {"kind": "lists", "query": "/somewhere/lists/query.txt"}},
}
DETECTOR: dict[str, Any] = COMMON | {
    "program": "detector",
    "name": "tiny-detector",
    "input": {"side": 64},
    "model": {"backbone": {"name": "PPLCNet", "scale": 0.25}, "neck_channels": 16},
    "data": {"train": [{"kind": "generated", "scenes": 4}]},
    "evaluation": {"source": {"kind": "generated", "scenes": 2}},
}


def written(path: Path, described: dict[str, Any]) -> torch.nn.Module:
    """Write the checkpoint of a run that did nothing but look at some pictures; gives its network."""
    settings = settings_from_dict(described, "a test")
    torch.manual_seed(0)
    if isinstance(settings, DetectorSettings):
        network: torch.nn.Module = build_detector(settings.model)
        settled(network)
        network = learning_int8(network, settings)
    else:
        assert isinstance(settings, EmbedderSettings)
        network = build_embedder(settings.model, 4)
        settled(network)
        network = learning_int8(network, settings)
    if settings.quantise:
        settled(network)
    save(
        Checkpoint(
            program=settings.program,
            settings=settings_to_dict(settings),
            code="0.1.0 abc",
            classes=1 if isinstance(settings, DetectorSettings) else 4,
            trained_on="patches",
            step=6,
            steps_per_epoch=2,
            weights=network.state_dict(),
            figures={"recall@1": 0.5},
        ),
        path,
    )
    return network.eval()


def embedded(network: torch.nn.Module, card: ModelCard) -> NDArray[np.float32]:
    """Three pictures by PyTorch."""
    batch = torch.from_numpy(np.stack([model_input(picture, card) for picture in pictures(3)]))
    with torch.inference_mode():
        found: NDArray[np.float32] = network.embed(batch).numpy()  # type: ignore[operator]
    return found


def test_an_embedders_checkpoint_becomes_a_folder(tmp_path: Path) -> None:
    network = written(tmp_path / "best.pt", EMBEDDER)
    export(tmp_path / "best.pt", tmp_path / "out", version="7", licence="Apache-2.0")
    folder = load_model_folder(tmp_path / "out")
    card = folder.card
    assert (card.name, card.version, card.licence, card.seed) == ("tiny", "7", "Apache-2.0", 1)
    assert card.outputs == EmbedderOutputs("embedding", "embedding")
    assert (card.dimension, card.hash_bits, card.hash_method) == (16, 16, "CrossEntropy+DSHSD")
    assert card.trained_on == "patches"
    assert card.origin == "trained with Checklane 0.1.0 abc, 3 of 4 epochs"
    assert card.accuracy == "recall@1 0.5000 at the run's last evaluation (kind lists, query query.txt)"
    assert card.command == "python -m training.train on tiny; python -m training.export --checkpoint best.pt"
    assert "/somewhere" not in repr(card)
    wanted = embedded(network, card)
    found = open_embedder(folder, SETTINGS).embed(pictures(3))
    assert cosines(found.vectors, wanted).min() > 0.9999
    np.testing.assert_array_equal(found.hash_codes, np.packbits(wanted > 0, axis=1))


def test_a_hash_branch_becomes_an_output_of_its_own(tmp_path: Path) -> None:
    branch = {"neck": {"name": "Hash", "bits": 24}, "losses": {"LCDSH": {}}}
    model = EMBEDDER["model"] | {
        "neck": {"name": "BNNeck", "dimension": 16},
        "hashes": False,
        "hash_branch": branch,
    }
    network = written(tmp_path / "best.pt", EMBEDDER | {"model": model})
    export(tmp_path / "best.pt", tmp_path / "out")
    card = load_model_folder(tmp_path / "out").card
    assert card.outputs == EmbedderOutputs("embedding", "hash")
    assert (card.dimension, card.hash_bits, card.hash_method) == (16, 24, "LCDSH")
    wanted = embedded(network, card)
    with torch.inference_mode():
        values = network.hash_values(torch.from_numpy(wanted)).numpy()  # type: ignore[operator]
    found = open_embedder(load_model_folder(tmp_path / "out"), SETTINGS).embed(pictures(3))
    assert cosines(found.vectors, wanted).min() > 0.9999
    np.testing.assert_array_equal(found.hash_codes, np.packbits(values > 0, axis=1))


def test_raw_pixels_go_into_a_graph_that_normalises(tmp_path: Path) -> None:
    network = written(tmp_path / "best.pt", EMBEDDER)
    export(tmp_path / "best.pt", tmp_path / "raw", raw_pixels=True)
    folder = load_model_folder(tmp_path / "raw")
    assert folder.card.input.normalisation_in_graph
    assert folder.card.input.dtype == "uint8"
    _, normalised_outside = graph_and_card(tmp_path / "best.pt")
    wanted = embedded(network, normalised_outside)
    assert cosines(open_embedder(folder, SETTINGS).embed(pictures(3)).vectors, wanted).min() > 0.9999


def test_an_embedder_has_no_score_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "best.pt", EMBEDDER)
    command = ["--checkpoint", str(tmp_path / "best.pt"), "--out", str(tmp_path / "out")]
    assert main([*command, "--score-threshold", "0.45"]) == 1
    assert "found an embedder and a score threshold" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_detectors_checkpoint_gives_decoded_boxes(tmp_path: Path) -> None:
    written(tmp_path / "best.pt", DETECTOR)
    command = ["--checkpoint", str(tmp_path / "best.pt"), "--out", str(tmp_path / "out")]
    assert main([*command, "--score-threshold", "0.45", "--antialias"]) == 0
    folder = load_model_folder(tmp_path / "out")
    assert folder.card.resize.antialias
    assert folder.card.command.endswith("--checkpoint best.pt --score-threshold 0.45 --antialias")
    assert folder.card.outputs == DecodedOutputs("decoded", "boxes", "scores")
    assert folder.card.detection is not None
    assert folder.card.detection.score_threshold == 0.45
    picture = pictures(1)[0]
    open_detector(folder, SETTINGS).detect(DecodedImage(picture, 64, 64, "PNG"))


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "best.pt", tmp_path / "made" / "out"

    def refused() -> str:
        assert main(["--checkpoint", str(path), "--out", str(out)]) == 1
        return capsys.readouterr().err

    assert "found no such file" in refused()
    written(path, EMBEDDER)
    path.write_bytes(path.read_bytes()[:1000])
    assert "cut off, damaged" in refused()
    written(path, EMBEDDER | {"quantise": "pact"})
    assert "training.quantise FLOAT_FOLDER --checkpoint best.pt" in refused()
    assert not out.parent.exists()
    out.mkdir(parents=True)
    assert "is there already" in refused()


def test_a_run_that_learned_to_be_int8_is_judged_beside_its_float_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise_command, "TIMED_RUNS", 2)
    monkeypatch.setattr(quantise_command, "METHODS", {})
    written(tmp_path / "float.pt", EMBEDDER)
    export(tmp_path / "float.pt", tmp_path / "float", raw_pixels=True)
    written(tmp_path / "int8.pt", EMBEDDER | {"quantise": "pact", "name": "tiny-pact"})
    rows = quantise_command.quantise(
        load_model_folder(tmp_path / "float"),
        tmp_path / "int8",
        method="pact",
        calibration=pictures(8),
        judge=lambda folder: {"recall@1": 0.5},
        limit=0.0,
        facts={"command": "quantise", "judged_on": "nothing", "calibrated_on": "nothing"},
        checkpoint=tmp_path / "int8.pt",
    )
    assert [row.method for row in rows] == ["float", "pact"]
    assert rows[1].size < 0.7 * rows[0].size
    card = load_model_folder(tmp_path / "int8").card
    assert card.precision == "int8"
    assert card.accuracy == "recall@1 0.5000 float, 0.5000 int8; nothing"
    assert "learned to be int8 (PACT) beside tiny" in card.origin
    with pytest.raises(CheckpointRefused, match='is of a float run, wanted one with quantise = "pact"'):
        learned_int8(tmp_path / "float.pt", card, pictures(2))


def test_a_run_of_another_model_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "float.pt", EMBEDDER)
    _, card = graph_and_card(tmp_path / "float.pt")
    written(tmp_path / "int8.pt", EMBEDDER | {"quantise": "pact", "input": {"side": 96}})
    with pytest.raises(CheckpointRefused, match=r"its input is .* wanted the float model of this run"):
        learned_int8(tmp_path / "int8.pt", card, pictures(2))
