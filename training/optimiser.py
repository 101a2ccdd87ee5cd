"""Who moves the weights: groups of them with their own rules, the optimiser, and precision.

Upstream spares some weights the L2 penalty and lets others learn faster. Here that is told by where they stand in the
network, so that a recipe need not say it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from training.models.efficientnet_lite import EfficientNetLite
from training.models.layers import ConvNorm
from training.models.picodet import PicoHead
from training.models.pplcnet import PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2Trunk
from training.settings import Optimiser

# Batch normalisations inside these are not decayed: upstream gives theirs a penalty of 0 (PaddleClas `pp_lcnet.py`,
# `pp_lcnet_v2.py`; PaddleDetection `ConvNormLayer`, `norm_decay`); so do EfficientNet's authors. Those of ResNet50_vd,
# of PicoDet's neck and of BNNeck are decayed, as there.
SPARES_NORMS = (PPLCNetTrunk, PPLCNetV2Trunk, EfficientNetLite, PicoHead)
# The convolutions of PicoDet's towers learn at twice the rate (`PicoFeat`, `lr_scale`).
TOWER_MULTIPLIER = 2.0
# Adam's second moment; upstream's hash recipes have it, and it is Adam's own default.
SECOND_MOMENT = 0.999
# What float16 losses are first multiplied by; the published recipes' value.
LOSS_SCALE = 65_536.0


class Rule(NamedTuple):
    """How one weight is moved.

    Attributes:
        decays: whether weight decay shrinks it.
        multiplier: of the learning rate.
    """

    decays: bool = True
    multiplier: float = 1.0


def rules(network: nn.Module) -> dict[str, Rule]:
    """The rule of each weight that is trained, by its name in the network."""
    found = {name: Rule() for name, weight in network.named_parameters() if weight.requires_grad}
    for place, module in network.named_modules():
        if isinstance(module, SPARES_NORMS):
            for name in _norms(place, module):
                found[name] = Rule(decays=False)
        if isinstance(module, PicoHead):
            for name, layer in module.tower.named_modules(prefix=f"{place}.tower"):
                if isinstance(layer, ConvNorm):
                    found[f"{name}.conv.weight"] = Rule(multiplier=TOWER_MULTIPLIER)
    return found


def _norms(place: str, module: nn.Module) -> Iterator[str]:
    for name, layer in module.named_modules(prefix=place):
        if isinstance(layer, nn.BatchNorm2d):
            yield from (f"{name}.weight", f"{name}.bias")


def build_optimiser(network: nn.Module, settings: Optimiser) -> Optimizer:
    """The optimiser, its weights in groups that each know their multiplier; `set_learning_rate` gives the rate."""
    by_rule: dict[Rule, list[nn.Parameter]] = {}
    weights = dict(network.named_parameters())
    for name, rule in rules(network).items():
        by_rule.setdefault(rule, []).append(weights[name])
    groups: list[dict[str, Any]] = [
        {
            "params": members,
            "weight_decay": settings.weight_decay if rule.decays else 0.0,
            "multiplier": rule.multiplier,
        }
        for rule, members in by_rule.items()
    ]
    if settings.kind == "sgd":
        return SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    kind = Adam if settings.kind == "adam" else AdamW
    return kind(groups, lr=settings.learning_rate, betas=(settings.momentum, SECOND_MOMENT))


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Give each group the rate times its multiplier."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["multiplier"]


# What a CPU names the instructions that multiply bfloat16. Without them a step took four to five times as long as in
# float32.
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


def half_precision(device: torch.device, precision: str) -> torch.dtype | None:
    """What the forward pass computes in where it does not in float32; None is float32 throughout.

    Args:
        device: of the network.
        precision: of the settings. Mixed is float16 on a GPU and bfloat16 on a CPU that has instructions for it.
    """
    if precision != "mixed":
        return None
    if device.type == "cuda":
        return torch.float16
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(has.get(name) for name in CPU_BFLOAT16) else None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where the forward pass computes in half precision, if it shall and the device can."""
    half = half_precision(device, precision)
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def build_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales a float16 loss so that small gradients do not vanish; does nothing where there is no float16."""
    enabled = half_precision(device, precision) == torch.float16
    return torch.amp.GradScaler(device.type, init_scale=LOSS_SCALE, enabled=enabled)


def take_step(
    loss: Tensor, optimiser: Optimizer, scaler: torch.amp.GradScaler, *, clip_norm: float | None
) -> None:
    """Move the weights against the gradient of a loss.

    Args:
        loss: scalar.
        optimiser: of the weights.
        scaler: of the loss; a step whose float16 gradients overflow is left out, and the scale halved.
        clip_norm: gradients longer than this, all together, are shortened to it; None leaves them.
    """
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        scaler.unscale_(optimiser)
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, clip_norm)
    scaler.step(optimiser)
    scaler.update()
