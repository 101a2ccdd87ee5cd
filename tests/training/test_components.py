"""Every part that a configuration may name fits every other, learns in all of its parameters, and embeds."""

import re
from typing import Any

import pytest
import torch

from training.components import BACKBONES, DISTILLATION_LOSSES, HEADS, LOSSES, NECKS
from training.config import ConfigRefused, settings_from_dict
from training.models.embedder import EmbedderModel
from training.networks import build_embedder, build_losses
from training.settings import EmbedderSettings, PairSettings

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


# Every table, and where a configuration names its parts.
TABLES: dict[str, dict[str, Any]] = {
    "backbone": BACKBONES,
    "neck": NECKS,
    "head": HEADS,
    "loss": LOSSES,
    "loss of a pair": DISTILLATION_LOSSES,
}
NAMED = [(kind, name) for kind, table in TABLES.items() for name in table]


def naming(kind: str, name: str) -> dict[str, Any]:
    """The least configuration that names a part."""
    model: dict[str, Any] = {"backbone": {"name": "PPLCNet", "scale": 0.25}, "head": {"name": "FC"}}
    losses: dict[str, Any] = {"CrossEntropy": {}}
    if kind == "loss of a pair":
        losses = {name: {}}
    elif kind == "loss":
        losses |= {name: {}}
    else:
        model[kind] = {"name": name}
    return {
        "program": "pair" if kind == "loss of a pair" else "embedder",
        "name": "least",
        "out": "run",
        "epochs": 1,
        "batch_size": 8,
        "model": model,
        "losses": losses,
        "optimiser": {"learning_rate": 0.1, "reference_batch": 8},
        "data": {
            "train": [{"kind": "generated", "products": 4, "views": 2}],
            "augmentation": {"kind": "none"},
        },
        "evaluation": {"source": {"kind": "generated", "products": 4}},
    }


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_each_name_is_built_from_the_least_configuration(kind: str, name: str) -> None:
    settings = settings_from_dict(naming(kind, name), "the test")
    assert isinstance(settings, EmbedderSettings | PairSettings)
    with torch.device("meta"):
        network = build_embedder(settings.model, n_classes=5)
    table = DISTILLATION_LOSSES if isinstance(settings, PairSettings) else LOSSES
    criterion = build_losses(settings.losses, table)
    built = {
        "backbone": network.backbone,
        "neck": network.neck,
        "head": network.head,
    }.get(kind) or criterion.losses[name]
    assert type(built) is TABLES[kind][name]


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_each_part_says_what_it_is(kind: str, name: str) -> None:
    said = vars(TABLES[kind][name])["__doc__"]  # its own, none that it inherits
    assert re.match(r".{20,}?[.:]", said.strip(), re.DOTALL), "a sentence"


@pytest.mark.parametrize("spoilt", [str.lower, lambda name: f"{name}s", lambda name: f"{name[:1]}{name}"])
@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_a_name_that_is_none_is_refused_with_the_nearest(kind: str, name: str, spoilt: Any) -> None:
    misspelt = spoilt(name)
    with pytest.raises(ConfigRefused) as refused:
        settings_from_dict(naming(kind, misspelt), "the test")
    what = "loss" if kind.startswith("loss") else "component"
    assert f"unknown {what} {misspelt}: did you mean {name}?" in str(refused.value)
