"""A model folder is written whole, proved, or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recognition.embedder import open_embedder
from recognition.model_card import (
    EmbedderOutputs,
    ModelCard,
    ModelInput,
    Resize,
    load_model_folder,
)
from recognition.sessions import SessionSettings
from training import export
from training.export import (
    NO_DIGEST,
    ExportRefused,
    NormalisingGraph,
    export_folder,
    folder_aside,
    normalised_input,
)
from training.models.embedder import IMAGENET

SIDE = 64
RAW_INPUT = ModelInput("pixels", SIDE, SIDE, "NCHW", "uint8", "RGB", normalisation_in_graph=True)


def pictures() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(3)]


def card(**changes: object) -> ModelCard:
    values: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "task": "embedder",
        "sha256": NO_DIGEST,
        "input": normalised_input(SIDE, SIDE, IMAGENET),
        "resize": Resize("bilinear", antialias=False, keep_aspect=False),
        "provider": "openvino",
        "precision": "fp32",
        "outputs": EmbedderOutputs("embedding", "embedding"),
        "licence": "Apache-2.0",
        "origin": "a test",
        "trained_on": "nothing",
        "seed": 0,
        "command": "none",
        "accuracy": "none",
        "dimension": 8,
        "hash_bits": 8,
        "hash_method": "sign",
    }
    return ModelCard(**{**values, **changes})  # type: ignore[arg-type]


class Tiny(nn.Module):
    """An embedding of 8, and, if wanted, hash values of 16."""

    def __init__(self, *, hashes: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.hash = nn.Linear(8, 16) if hashes else None

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embedding = self.embed(pixels).mean(dim=(2, 3))
        return embedding if self.hash is None else (embedding, self.hash(embedding).tanh())


def test_normalisation_in_the_graph_gives_what_the_cards_normalisation_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = Tiny()
    outside = export_folder(graph, card(), pictures(), tmp_path / "outside")
    inside = export_folder(
        NormalisingGraph(graph, IMAGENET), card(input=RAW_INPUT), pictures(), tmp_path / "inside"
    )
    assert outside.sha256 != inside.sha256
    found = [
        open_embedder(load_model_folder(tmp_path / name), SessionSettings()).embed(pictures()).vectors
        for name in ("outside", "inside")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_hash_output_of_its_own_is_written_and_proved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hashing = card(outputs=EmbedderOutputs("embedding", "hash"), hash_bits=16, hash_method="DSHSD")
    export_folder(Tiny(hashes=True), hashing, pictures(), tmp_path / "out", measure=lambda folder: "measured")
    folder = load_model_folder(tmp_path / "out")
    assert folder.card.accuracy == "measured"
    assert open_embedder(folder, SessionSettings()).embed(pictures()).hash_codes.shape == (3, 2)


def test_a_file_that_computes_something_else_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.write_onnx
    # Another network's graph gets into the folder.
    monkeypatch.setattr(export, "write_onnx", lambda _, path, card: write(Tiny(), path, card))
    with pytest.raises(ExportRefused, match=r"openvino gives a cosine of .* wanted 0\.9999"):
        export_folder(Tiny(), card(), pictures(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_gets_its_name_only_when_all_went_well(tmp_path: Path) -> None:
    def stop_half_way() -> None:
        with folder_aside(tmp_path / "out") as made:
            (made / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert not list(tmp_path.iterdir())
    with folder_aside(tmp_path / "out") as made:
        (made / "whole").write_text("whole")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ExportRefused, match="already"), folder_aside(tmp_path / "out"):
        pass
