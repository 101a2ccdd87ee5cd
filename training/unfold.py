"""From a model folder back to a network that can be trained further: what `training.export` folded is unfolded.

A shop that has Checklane's model folders and pictures of its own begins with those models, not with ImageNet's weights.

Export folds each batch normalisation into the layer before it, so that a file holds W x + b alone. Any mean m and
variance v give that back: normalise W x by them, scale by sqrt(v + eps), shift by b + m. In training a normalisation
goes by its batch's own mean and variance instead; so m and v are measured on the training's own pictures, and then the
network in training is, but for the batch's chance, the network of the file.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from recognition.model_card import ModelFolder, load_model_folder
from training.checkpoint import CheckpointRefused, load_weights
from training.models.embedder import HEAD_PREFIXES, EmbedderModel
from training.models.picodet import PicoDet

# What `training.export` puts around a network before it writes it.
GRAPH_PREFIX = re.compile(r"^(?:inner\.)?(?:embedder|detector)\.")
LAYERS = ("Conv", "Gemm")


class _Pair(NamedTuple):
    """A layer and the normalisation that export folds into it.

    Attributes:
        layer, norm: their names in the network.
        module: the normalisation.
    """

    layer: str
    norm: str
    module: nn.BatchNorm1d | nn.BatchNorm2d


def unfold(network: EmbedderModel | PicoDet, path: Path, pictures: Iterable[Tensor]) -> None:
    """Give a network the weights of a model folder; heads that only training uses stay as they are.

    Args:
        network: of the form that was exported.
        path: the model folder, fp32.
        pictures: batches (N, 3, H, W), normalised, as the network will be trained on; some hundred pictures do.
    Raises:
        CheckpointRefused: the folder holds another model, or one at int8.
        RecognitionError: it is no model folder.
        ValueError: there is no picture.
    """
    folder = load_model_folder(path)
    if folder.card.precision != "fp32":
        raise CheckpointRefused(
            f"{path}: found weights at {folder.card.precision}, wanted fp32; take the folder that it was made from."
        )
    file = _layers_of(folder)
    pairs = _pairs(network)
    own = network.state_dict()
    weights = {name: value for name, value in own.items() if name.startswith(HEAD_PREFIXES)}
    folded = {f"{pair.layer}.bias" for pair in pairs}  # of the normalisation behind it
    weights |= {name: value for name, value in file.items() if name not in folded}
    for pair in pairs:  # at first with mean 0 and variance 1
        bias = file.get(f"{pair.layer}.bias")
        if bias is None:
            continue  # load_weights names what is missing
        weights |= {
            f"{pair.norm}.weight": torch.ones_like(bias),
            f"{pair.norm}.bias": bias,
            f"{pair.norm}.running_mean": torch.zeros_like(bias),
            f"{pair.norm}.running_var": torch.full_like(bias, 1 - pair.module.eps),
            f"{pair.norm}.num_batches_tracked": torch.tensor(0),
        }
    load_weights(network, weights, str(path))
    for pair, (mean, variance) in zip(pairs, _measured(network, pairs, pictures), strict=True):
        _settle(pair.module, mean, variance)


def _layers_of(folder: ModelFolder) -> dict[str, Tensor]:
    """Weights and biases by the names that the layers have in the network."""
    graph = onnx.load(folder.model_path).graph
    values = {one.name: one for one in graph.initializer}
    found: dict[str, Tensor] = {}
    for node in graph.node:
        if node.op_type not in LAYERS or not node.input[1].endswith(".weight"):
            continue
        layer = GRAPH_PREFIX.sub("", node.input[1].removesuffix(".weight"))
        for kind, name in zip(("weight", "bias"), node.input[1:], strict=False):
            if name in values:
                found[f"{layer}.{kind}"] = torch.from_numpy(numpy_helper.to_array(values[name]).copy())
    return found


def _pairs(network: nn.Module) -> list[_Pair]:
    found = []
    for name, module in network.named_modules():
        norm = getattr(module, "norm", None)
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        for layer in ("conv", "fc"):
            if isinstance(getattr(module, layer, None), nn.Conv2d | nn.Linear):
                found.append(_Pair(f"{name}.{layer}", f"{name}.norm", norm))
    return found


def _measured(
    network: EmbedderModel | PicoDet, pairs: list[_Pair], pictures: Iterable[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance, each (channels,), of what comes to each normalisation."""
    seen: dict[nn.Module, list[Tensor]] = {pair.module: [] for pair in pairs}

    def note(module: nn.Module, given: tuple[Tensor]) -> None:
        values = given[0]  # (N, channels) or (N, channels, H, W)
        others = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = (one.double() for one in torch.var_mean(values, others, correction=0))
        count = torch.full_like(mean, values.numel() // len(mean))
        seen[module].append(torch.stack([count, count * mean, count * (variance + mean**2)]))

    handles = [pair.module.register_forward_pre_hook(note) for pair in pairs]
    was_training = network.training
    try:
        with torch.inference_mode():
            network.eval()
            for batch in pictures:
                network(batch)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    if not all(seen.values()):
        raise ValueError("pictures: found none, wanted some of the training's.")
    found = []
    for pair in pairs:
        count, total, squares = torch.stack(seen[pair.module]).sum(0)  # (channels,) each
        mean = total / count
        found.append((mean.float(), (squares / count - mean**2).clamp(min=0).float()))
    return found


def _settle(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Let a normalisation of mean 0 and variance 1 go by others and give what it gave."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        if norm.bias.requires_grad:
            norm.bias.add_(mean)
        else:  # it is 0 for good (BNNeck): the mean is then what makes it so
            mean = -norm.bias.clone()
            norm.bias.zero_()
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
