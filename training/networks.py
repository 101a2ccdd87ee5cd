"""From settings to networks, and from networks to the cards that say how pictures become their input."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from recognition.model_card import (
    DecodedOutputs,
    DetectionSettings,
    EmbedderOutputs,
    ModelCard,
    Resize,
)
from training.checkpoint import Checkpoint, CheckpointRefused, load, load_weights
from training.choices import LossTerm
from training.components import BACKBONES, HEADS, NECKS, TRUNKS
from training.config import settings_from_dict
from training.export import NO_DIGEST, normalised_input
from training.import_paddle import PUBLISHED, load_published, start_from_imagenet
from training.losses.weighted_sum import WeightedSum
from training.models.efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteTrunk,
    load_imagenet_trunk,
)
from training.models.embedder import EmbedderModel, HashBranch
from training.models.picodet import PicoDet
from training.pdparams import read_pdparams
from training.quantisation.pact import with_pact
from training.settings import (
    DetectorChoice,
    DetectorSettings,
    EmbedderChoice,
    EmbedderSettings,
    FromCheckpoint,
    FromImageNet,
    FromModel,
    FromPackage,
    PairSettings,
    StartChoice,
)
from training.unfold import unfold

Network = TypeVar("Network", bound=nn.Module)

VERSION = "1"
MINIMUM_SIDE_PIXELS = 16
MAIN_BODY = "main body"
# PP-ShiTu's pipeline and its detector's configuration (facts of `training.import_paddle`).
SCORE_THRESHOLD = 0.2
# PP-ShiTu has 0.6. On 230 scenes drawn for this choice 0.5 left a third of the doubled boxes, and lost 0.8 products
# of a hundred where thirty and more touch, 0.2 elsewhere.
NMS_THRESHOLD = 0.5
MAXIMUM_ITEMS = 100


def build_embedder(choice: EmbedderChoice, n_classes: int) -> EmbedderModel:
    """Put an embedder together, its weights by chance.

    Args:
        choice: its parts.
        n_classes: for the head.
    """
    backbone = choice.backbone.made(BACKBONES)
    neck = None if choice.neck is None else choice.neck.made(NECKS, backbone.out_channels)
    dimension = backbone.out_channels if neck is None else neck.out_channels
    head = None if choice.head is None else choice.head.made(HEADS, dimension, n_classes=n_classes)
    branch = None
    if choice.hash_branch is not None:
        values = choice.hash_branch.neck.made(NECKS, dimension)
        judge = choice.hash_branch.head
        branch = HashBranch(
            values, None if judge is None else judge.made(HEADS, values.out_channels, n_classes=n_classes)
        )
    return EmbedderModel(backbone, neck, head, branch)


def build_detector(choice: DetectorChoice, n_classes: int = 1) -> PicoDet:
    """Make a detector, its weights by chance."""
    backbone = choice.backbone.made(TRUNKS)
    return PicoDet(backbone, n_classes=n_classes, neck_channels=choice.neck_channels)


def build_losses(terms: dict[str, LossTerm], table: dict[str, type[nn.Module]]) -> WeightedSum:
    """The weighted sum that the settings name."""
    return WeightedSum({name: (term.weight, table[name](**term.arguments)) for name, term in terms.items()})


def start(
    network: EmbedderModel | PicoDet, choice: StartChoice | None, pictures: Iterable[Tensor] = ()
) -> str:
    """Give a network the weights that it shall start from.

    Args:
        network: to be trained.
        choice: of the settings.
        pictures: batches (N, 3, H, W) as it will be trained on; only a model folder's weights want them.
    Returns:
        What was taken, in a sentence for the log.
    Raises:
        CheckpointRefused, WeightsRefused, RecognitionError: the file is of another model.
    """
    if choice is None:
        return "weights by chance"
    if isinstance(choice, FromModel):
        unfold(network, choice.folder, pictures)
        return f"weights from {choice.folder}"
    if isinstance(choice, FromCheckpoint):
        return _start_from_checkpoint(network, choice.path)
    if isinstance(choice, FromImageNet):
        left = start_from_imagenet(network.backbone, choice.weights)
        return f"backbone from {choice.weights}" + (f", but for {', '.join(left)}" if left else "")
    if isinstance(choice, FromPackage):
        if not isinstance(network.backbone, EfficientNetLiteBackbone | EfficientNetLiteTrunk):
            found = type(network.backbone).__name__
            raise CheckpointRefused(
                f"start_from: found the backbone {found}, wanted EfficientNetLite for a package."
            )
        trunk = load_imagenet_trunk(network.backbone.network.scale.name)
        own = network.backbone.network.state_dict()
        load_weights(
            network.backbone.network,
            {name: value for name, value in trunk.state_dict().items() if name in own},
            "the package",
        )
        return f"backbone from the package of EfficientNet-{trunk.scale.name}"
    if choice.model not in PUBLISHED:
        raise CheckpointRefused(f"start_from: found {choice.model!r}, wanted one of {', '.join(PUBLISHED)}.")
    headless = network if isinstance(network, PicoDet) else EmbedderModel(network.backbone, network.neck)
    with torch.no_grad():
        load_published(headless, PUBLISHED[choice.model], read_pdparams(choice.weights))
    return f"weights of {choice.model} from {choice.weights}"


def learning_int8(network: Network, settings: EmbedderSettings | DetectorSettings) -> Network:
    """The network as the run trains it: itself, or the copy that computes with rounded values if it shall be int8."""
    return with_pact(network) if settings.quantise == "pact" else network


def _start_from_checkpoint(network: nn.Module, path: Path) -> str:
    weights = inference_weights(load(path))
    own = network.state_dict()
    origin = f"weights from {path}"
    for prefix, reason in (
        ("head.", "the head, whose classes are others"),
        ("hash_branch.", "the hash branch"),
    ):
        kept = {name: value for name, value in own.items() if name.startswith(prefix)}
        if any(name not in weights or weights[name].shape != value.shape for name, value in kept.items()):
            weights = {name: value for name, value in weights.items() if not name.startswith(prefix)} | kept
            origin += f", but for {reason}"
    load_weights(network, weights, str(path))
    return origin


def inference_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights to evaluate and export: the running mean where there is one."""
    weights = dict(checkpoint.weights)
    if checkpoint.average is not None and checkpoint.average["steps"]:
        mass = checkpoint.average["mass"]
        weights |= {name: total / mass for name, total in checkpoint.average["sums"].items()}
    return weights


def open_embedder_checkpoint(path: Path) -> tuple[EmbedderModel, EmbedderSettings | PairSettings, Checkpoint]:
    """A trained embedder, in inference mode and on the CPU; of a pair the student.

    Raises:
        CheckpointRefused, ConfigRefused: the file is no such checkpoint.
    """
    checkpoint = load(path)
    settings = settings_from_dict(checkpoint.settings, str(path))
    if isinstance(settings, DetectorSettings):
        raise CheckpointRefused(f"{path}: is of a detector, wanted an embedder's.")
    network = build_embedder(settings.model, checkpoint.classes)
    if isinstance(settings, EmbedderSettings):
        network = learning_int8(network, settings)
    load_weights(network, inference_weights(checkpoint), str(path))
    return network.eval(), settings, checkpoint


def open_detector_checkpoint(path: Path) -> tuple[PicoDet, DetectorSettings, Checkpoint]:
    """A trained detector, in inference mode and on the CPU.

    Raises:
        CheckpointRefused, ConfigRefused: the file is no such checkpoint.
    """
    checkpoint = load(path)
    settings = settings_from_dict(checkpoint.settings, str(path))
    if not isinstance(settings, DetectorSettings):
        raise CheckpointRefused(f"{path}: is of an embedder, wanted a detector's.")
    network = learning_int8(build_detector(settings.model, checkpoint.classes), settings)
    load_weights(network, inference_weights(checkpoint), str(path))
    return network.eval(), settings, checkpoint


def embedder_card(
    settings: EmbedderSettings | PairSettings, network: EmbedderModel, **facts: Any
) -> ModelCard:
    """The card of a trained embedder, but for its file's SHA-256; evaluation prepares pictures by it too.

    Args:
        settings: of the run.
        network: that it trained.
        facts: the card's fields on origin, data and accuracy; what is not given is said to be unknown.
    """
    side, branch = settings.input.serving_side or settings.input.side, settings.model.hash_branch
    is_code = network.bits % 8 == 0
    if settings.model.has_codes and not is_code:
        raise ValueError(f"model: found hash codes of {network.bits} bits, wanted a multiple of 8.")
    learned = branch.losses if branch is not None else settings.losses if settings.model.hashes else {}
    hash_output = "embedding" if branch is None else "hash"
    return ModelCard(
        name=settings.name,
        task="embedder",
        input=normalised_input(side, side, network.backbone.normalisation),
        resize=Resize("bilinear", antialias=False, keep_aspect=False),
        outputs=EmbedderOutputs("embedding", hash_output if is_code else None),
        dimension=network.dimension,
        hash_bits=network.bits if is_code else None,
        hash_method="+".join(learned) or "sign" if is_code else None,
        crop_margin=settings.data.crop_margin,
        minimum_side_pixels=MINIMUM_SIDE_PIXELS,
        seed=settings.seed,
        **{**_unknown(), **facts},
    )


def detector_card(settings: DetectorSettings, network: PicoDet, **facts: Any) -> ModelCard:
    """The card of a trained detector; arguments as for `embedder_card`."""
    side = settings.input.side
    return ModelCard(
        name=settings.name,
        task="detector",
        input=normalised_input(side, side, network.backbone.normalisation),
        resize=Resize(settings.input.interpolation, antialias=False, keep_aspect=False),
        outputs=DecodedOutputs("decoded", "boxes", "scores"),
        detection=DetectionSettings((MAIN_BODY,), (), SCORE_THRESHOLD, NMS_THRESHOLD, MAXIMUM_ITEMS),
        seed=settings.seed,
        **{**_unknown(), **facts},
    )


def _unknown() -> dict[str, Any]:
    return {
        "version": VERSION,
        "sha256": NO_DIGEST,
        "provider": "openvino",
        "precision": "fp32",
        "licence": "not stated",
        "origin": "trained with Checklane",
        "trained_on": "not stated",
        "command": "not stated",
        "accuracy": "not measured",
    }
