"""Every part that a configuration may name fits every other, learns in all of its parameters, and embeds."""

import pytest
import torch

from training.components import BACKBONES, HEADS, NECKS
from training.models.embedder import EmbedderModel

SMALL = {
    "PPLCNet": {"scale": 0.25},
    "PPLCNetV2": {"scale": 0.25},
    "PPLCNetV2ShiTu": {"scale": 0.25},
    "ResNet50Vd": {"scale": 0.125},
    "EfficientNetLite": {"scale": "lite0"},
}


def make(backbone: str, neck: str | None = None, head: str | None = None) -> EmbedderModel:
    torch.manual_seed(0)
    trunk = BACKBONES[backbone](**SMALL[backbone])
    joint = None if neck is None else NECKS[neck](trunk.out_channels)
    dimension = (joint or trunk).out_channels
    return EmbedderModel(trunk, joint, None if head is None else HEADS[head](dimension, n_classes=5))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_parameter(backbone: str, head: str) -> None:
    model = make(backbone, "BNNeck" if head == "FC" else "FC", head).train()
    output = model(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 4, 0]))
    assert output.embedding.shape == (4, model.dimension)
    assert output.logits.shape == (4, 5)
    torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 4, 0])).backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert without == []


@pytest.mark.parametrize("neck", [None, *NECKS])
def test_the_embedding_is_the_necks_or_the_backbones(neck: str | None) -> None:
    model = make("PPLCNet", neck).eval()
    crops = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        output = model(crops)
        assert output.logits is None
        assert torch.equal(model.embed(crops), output.embedding)
    assert output.backbone.shape == (2, 1280)
    if neck is None:
        assert torch.equal(output.embedding, output.backbone)


def test_the_bn_necks_bias_is_never_learned() -> None:
    model = make("PPLCNetV2ShiTu", "BNNeck")
    assert model.neck is not None
    assert [name for name, value in model.neck.named_parameters() if not value.requires_grad] == ["norm.bias"]


@pytest.mark.parametrize("backbone", ["PPLCNet", "PPLCNetV2", "PPLCNetV2ShiTu", "ResNet50Vd"])
def test_a_scale_of_nothing_is_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match=r"scale: found 0, wanted above 0"):
        BACKBONES[backbone](scale=0)


def test_an_unknown_efficientnet_and_a_crooked_number_of_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="found 'lite9', wanted one of lite0"):
        BACKBONES["EfficientNetLite"](scale="lite9")
    with pytest.raises(ValueError, match="found 20, wanted a multiple of 8"):
        NECKS["Hash"](64, bits=20)
