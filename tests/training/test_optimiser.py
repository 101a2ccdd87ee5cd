"""Which weights are decayed and which learn faster, as upstream has it; and what a step does."""

import pytest
import torch
from torch import nn

from training.models.embedder import EmbedderModel
from training.models.heads import FCHead
from training.models.necks import BNNeck
from training.models.picodet import PicoDet
from training.models.pplcnet import PPLCNet, PPLCNetTrunk
from training.models.resnet_vd import ResNet50Vd
from training.optimiser import (
    Rule,
    autocast,
    build_optimiser,
    build_scaler,
    half_precision,
    rules,
    set_learning_rate,
    take_step,
)
from training.settings import Optimiser

SPARED, PLAIN, FASTER = Rule(decays=False), Rule(), Rule(multiplier=2.0)


def test_an_embedders_lcnet_norms_are_spared_and_its_neck_is_not() -> None:
    network = EmbedderModel(PPLCNet(scale=0.25, last_channels=16), BNNeck(16), FCHead(16, n_classes=3))
    found = rules(network)
    assert found["backbone.trunk.stem.norm.weight"] == SPARED
    assert found["backbone.trunk.stages.4.1.pointwise.norm.bias"] == SPARED
    assert found["backbone.trunk.stem.conv.weight"] == PLAIN
    assert found["backbone.last_conv.weight"] == PLAIN
    assert found["neck.norm.weight"] == PLAIN
    assert found["head.fc.weight"] == PLAIN
    assert "neck.norm.bias" not in found  # it stays 0


def test_a_resnets_norms_are_decayed() -> None:
    assert set(rules(ResNet50Vd(scale=0.125)).values()) == {PLAIN}


def test_a_detectors_towers_learn_at_twice_the_rate() -> None:
    found = rules(PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16))
    assert found["backbone.stem.norm.weight"] == SPARED
    assert found["heads.0.tower.0.depthwise.conv.weight"] == FASTER
    assert found["heads.3.tower.3.pointwise.conv.weight"] == FASTER
    assert found["heads.0.tower.0.depthwise.norm.weight"] == SPARED
    assert found["heads.0.predict.weight"] == PLAIN
    assert found["neck.lateral.0.norm.weight"] == PLAIN


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_every_weight_is_in_one_group_and_gets_its_rate(kind: str) -> None:
    network = PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16)
    settings = Optimiser(kind=kind, learning_rate=0.1, reference_batch=8, weight_decay=0.5)  # type: ignore[arg-type]
    optimiser = build_optimiser(network, settings)
    held = [id(weight) for group in optimiser.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in network.parameters())
    set_learning_rate(optimiser, 0.3)
    rates = {group["multiplier"]: group["lr"] for group in optimiser.param_groups}
    assert rates == {1.0: 0.3, 2.0: 0.6}
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.0, 0.5}


@pytest.mark.parametrize("instructions", [{"avx512_bf16": True}, {"bf16": True}, {"avx2": True}, {}])
def test_mixed_precision_is_bfloat16_where_a_cpu_has_instructions_for_it(
    instructions: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    cpu, has = torch.device("cpu"), "bf16" in str(instructions)
    one = torch.ones(2, 2)
    with autocast(cpu, "mixed"):
        assert (one @ one).dtype == (torch.bfloat16 if has else torch.float32)
    with autocast(cpu, "full"):
        assert (one @ one).dtype == torch.float32
    assert half_precision(torch.device("cuda"), "mixed") == torch.float16


def test_a_step_goes_against_the_gradient_and_no_further_than_the_clip() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    settings = Optimiser(learning_rate=1.0, reference_batch=1, momentum=0.0)
    optimiser = build_optimiser(layer, settings)
    scaler = build_scaler(torch.device("cpu"), "mixed")
    take_step((layer.weight * torch.tensor([30.0, 40.0])).sum(), optimiser, scaler, clip_norm=5.0)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[-3.0, -4.0]]), rtol=1e-5, atol=1e-5)
