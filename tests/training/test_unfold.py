"""A network that begins with a model folder computes what the folder computes, in inference and in training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo_catalogue import more_products, render_scene
from recognition.errors import RecognitionError
from recognition.images import model_input
from recognition.model_card import ModelCard, load_model_folder
from recognition.sessions import SessionSettings, open_session
from training.checkpoint import CheckpointRefused
from training.config import read_settings
from training.export_efficientnet_lite import reference_crops
from training.models.embedder import EmbedderModel, Normalisation
from training.models.picodet import decode
from training.networks import build_detector, build_embedder, start
from training.settings import DetectorSettings, EmbedderSettings, FromModel

ROOT = Path(__file__).parents[2]
MODELS, CONFIGS = ROOT / "fixtures" / "models", ROOT / "training" / "configs"


def crops(n: int, seed: int) -> list[NDArray[np.uint8]]:
    """Drawn products, cut out."""
    return reference_crops(more_products(n, seed), views=1, seed=seed).crops


def embedder() -> EmbedderModel:
    """Of the shipped one's form, weights by chance."""
    settings = read_settings(CONFIGS / "checklane_embedder_192.toml")
    assert isinstance(settings, EmbedderSettings)
    return build_embedder(settings.model, 1281)


def prepared(
    pictures: Sequence[NDArray[np.uint8]], card: ModelCard, like: Normalisation
) -> tuple[NDArray[np.uint8], Tensor]:
    """(N, 3, H, W): as the file takes them, which normalises itself, and as the network does."""
    raw = np.stack([model_input(picture, card) for picture in pictures])
    scale, mean, std = like
    shape = (1, 3, 1, 1)
    return raw, torch.from_numpy((raw * scale - np.reshape(mean, shape)) / np.reshape(std, shape)).float()


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


def test_the_shipped_embedder_comes_back_and_can_be_trained() -> None:
    folder = load_model_folder(MODELS / "checklane-embedder")
    network = embedder()
    head = network.head.state_dict()["fc.weight"].clone()
    raw, pixels = prepared(crops(32, seed=5), folder.card, network.backbone.normalisation)
    said = start(
        network, FromModel(kind="model", folder=folder.model_path.parent), [pixels[:16], pixels[16:]]
    )
    assert "checklane-embedder" in said
    assert torch.equal(network.head.state_dict()["fc.weight"], head)

    given = open_session(folder, SessionSettings()).run({folder.card.input.name: raw[:8]})
    with torch.no_grad():
        ours = network.eval().embed(pixels[:8])
        assert cosines(ours.numpy(), given["embedding"]).min() > 0.9999
        assert np.abs(network.hash_values(ours).numpy() - given["hash"]).max() < 1e-2
        # In training each normalisation goes by its batch: as like as chance lets 32 pictures be. With the mean
        # at 0 and the variance at 1, which serve as well in inference, it would be another network.
        in_inference = network.embed(pixels)
        in_training = network.train().embed(pixels)
    assert np.median(cosines(in_training.numpy(), in_inference.numpy())) > 0.9
    assert network.neck.norm.bias.abs().max() == 0


def test_the_shipped_detector_comes_back() -> None:
    folder = load_model_folder(MODELS / "checklane-detector")
    settings = read_settings(CONFIGS / "checklane_detector.toml")
    assert isinstance(settings, DetectorSettings)
    network = build_detector(settings.model)
    scenes = [np.asarray(render_scene(more_products(4, seed), seed=seed).image) for seed in range(4)]
    raw, pixels = prepared(scenes, folder.card, network.backbone.normalisation)
    start(network, FromModel(kind="model", folder=folder.model_path.parent), [pixels])
    given = open_session(folder, SessionSettings()).run({folder.card.input.name: raw})
    with torch.no_grad():
        boxes, scores = decode(network.eval()(pixels))
    likely = given["scores"][..., 0] > 0.3
    assert likely.sum() >= 16
    assert np.abs(boxes.numpy() - given["boxes"])[likely].max() < 0.5
    assert np.abs(scores.numpy() - given["scores"]).max() < 1e-2


def test_what_is_another_model_is_refused_with_the_names_that_do_not_fit() -> None:
    network = embedder()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pictures = [torch.zeros(2, 3, 64, 64)]
    for name, reason in (
        ("checklane-detector", "another model than this EmbedderModel: missing backbone.network"),
        ("checklane-embedder-int8", "found weights at int8, wanted fp32"),
    ):
        with pytest.raises(CheckpointRefused, match=reason):
            start(network, FromModel(kind="model", folder=MODELS / name), pictures)
    with pytest.raises(RecognitionError, match="nowhere"):
        start(network, FromModel(kind="model", folder=Path("nowhere")), pictures)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
