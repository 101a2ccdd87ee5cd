"""Where a network's first weights come from, and what its card says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.checkpoint import CheckpointRefused
from training.config import read_settings
from training.models.efficientnet_lite import EfficientNetLiteBackbone, EfficientNetLiteTrunk
from training.models.embedder import EmbedderModel
from training.models.necks import FCNeck
from training.models.picodet import PicoDet
from training.models.pplcnet import PPLCNet, PPLCNetTrunk
from training.networks import build_embedder, embedder_card, start
from training.pdparams import WeightsRefused
from training.settings import EmbedderSettings, FromImageNet, FromPackage, FromPublished
from training.sources import augmentation

PUBLISHED_BACKBONE = Path(__file__).parent / "data" / "pplcnet_x0_25.pdparams"
CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def test_a_backbone_starts_from_upstreams_classifier_and_the_neck_stays() -> None:
    network = EmbedderModel(PPLCNet(scale=0.25), FCNeck(1280, dimension=16))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start(network, FromImageNet(kind="imagenet", weights=PUBLISHED_BACKBONE))
    after = network.state_dict()
    assert not torch.equal(
        after["backbone.trunk.stem.conv.weight"], before["backbone.trunk.stem.conv.weight"]
    )
    assert torch.equal(after["neck.fc.weight"], before["neck.fc.weight"])
    # A published model is the same by another road.
    other = EmbedderModel(PPLCNet(scale=0.25))
    start(other, FromPublished(kind="published", model="pplcnet_x0_25", weights=PUBLISHED_BACKBONE))
    assert torch.equal(other.state_dict()["backbone.last_conv.weight"], after["backbone.last_conv.weight"])


def test_a_detectors_trunk_starts_from_upstreams_classifier() -> None:
    network = PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16)
    before = network.backbone.stem.conv.weight.clone()
    start(network, FromImageNet(kind="imagenet", weights=PUBLISHED_BACKBONE))
    assert not torch.equal(network.backbone.stem.conv.weight, before)


def test_efficientnet_lite_starts_from_its_package_to_embed_and_to_detect() -> None:
    embedder = EmbedderModel(EfficientNetLiteBackbone(scale="lite0"))
    assert "package" in start(embedder, FromPackage(kind="package"))
    detector = PicoDet(EfficientNetLiteTrunk(scale="lite0"), neck_channels=16)
    assert "package" in start(detector, FromPackage(kind="package"))
    assert isinstance(embedder.backbone, EfficientNetLiteBackbone)
    assert isinstance(detector.backbone, EfficientNetLiteTrunk)
    assert float(embedder.backbone.network.stem.norm.running_var.mean()) != 1
    pixels = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        *_, last = detector.eval().backbone(pixels)
        embedded = embedder.eval().backbone.network
        assert torch.equal(last, embedded.blocks(embedded.stem(pixels)))


def test_weights_that_do_not_fit_are_refused() -> None:
    network = EmbedderModel(PPLCNet(scale=0.5))
    with pytest.raises(WeightsRefused, match="wanted"):
        start(network, FromImageNet(kind="imagenet", weights=PUBLISHED_BACKBONE))
    with pytest.raises(CheckpointRefused, match="found the backbone PPLCNet, wanted EfficientNetLite"):
        start(network, FromPackage(kind="package"))
    with pytest.raises(CheckpointRefused, match="found 'general_rec_v3', wanted one of general_rec_v1"):
        start(network, FromPublished(kind="published", model="general_rec_v3", weights=PUBLISHED_BACKBONE))


def test_an_embedders_card_says_how_pictures_become_its_input() -> None:
    settings = read_settings(CONFIGS / "general_rec_v1_dshsd.toml")
    assert isinstance(settings, EmbedderSettings)
    with torch.device("meta"):
        network = build_embedder(settings.model, 10)
    card = embedder_card(settings, network, trained_on="ten classes")
    assert (card.dimension, card.hash_bits, card.hash_method) == (512, 512, "DSHSD")
    assert (card.input.width, card.resize.interpolation, card.resize.antialias) == (224, "bilinear", False)
    assert card.trained_on == "ten classes"


def test_an_embedder_may_be_served_larger_than_it_was_trained() -> None:
    settings = read_settings(CONFIGS / "general_rec_v2.toml", ["input.side=160", "input.serving_side=224"])
    assert isinstance(settings, EmbedderSettings)
    with torch.device("meta"):
        network = build_embedder(settings.model, 10)
    card = embedder_card(settings, network)
    assert (card.input.width, card.input.height) == (224, 224)
    assert augmentation(settings.data.augmentation, settings.input.side)(
        np.zeros((50, 70, 3), np.uint8), np.random.default_rng(0)
    ).shape == (160, 160, 3)
