"""Make a model folder out of PP-ShiTu's published weights, with no Paddle installed.

    python -m training.import_paddle --model general_rec_v2 --weights FILE.pdparams --out DIR

The networks here compute what upstream's compute; this module knows under which names and in which form upstream
keeps their weights. Every name of the file is accounted for: taken, dropped with a word (classifiers of the training
classes), known to be unused, or else the import stops and lists what does not fit. PaddleClas' and PaddleDetection's
weights are under Apache-2.0.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from demo_catalogue import list_products, render_scene
from recognition.errors import RecognitionError
from recognition.model_card import (
    DecodedOutputs,
    DetectionSettings,
    EmbedderOutputs,
    ModelCard,
    Resize,
    Task,
)
from training.export import (
    NO_DIGEST,
    DetectorGraph,
    EmbedderGraph,
    ExportRefused,
    export_folder,
    normalised_input,
)
from training.mismatch import describe_mismatch, shapes_of
from training.models.embedder import IMAGENET, EmbedderModel
from training.models.necks import BNNeck, FCNeck
from training.models.picodet import BINS, SIDE_STEP, PicoDet
from training.models.pplcnet import PUBLISHED_SCALES, PPLCNet, PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2, PPLCNetV2ShiTu
from training.models.resnet_vd import ResNet50Vd
from training.pdparams import WeightsRefused, describe_unfit, read_pdparams

VERSION = "1"
EMBEDDER_SIDE = 224
DETECTOR_SIDE = 640
MINIMUM_SIDE_PIXELS = 16

# Upstream's pipeline keeps what scores 0.2 (deploy/configs/inference_general.yaml), its detector's configuration
# suppresses above an overlap of 0.6 and keeps 100.
SCORE_THRESHOLD = 0.2
NMS_THRESHOLD = 0.6
MAXIMUM_ITEMS = 100

# Scenes of the demo catalogue for the proof.
N_PROOF = 4
PRODUCTS_A_SCENE = 5

Rules = Sequence[tuple[str, str]]

# Our names to upstream's: patterns and what stands for them, one after the other.
NORM_NAMES: Rules = (
    (r"\.running_mean$", "._mean"),
    (r"\.running_var$", "._variance"),
)
SQUEEZE_NAMES: Rules = ((r"\.squeeze\.reduce\.", ".se.conv1."), (r"\.squeeze\.expand\.", ".se.conv2."))
LCNET_NAMES: Rules = (
    *NORM_NAMES,
    *SQUEEZE_NAMES,
    (r"\.norm\.", ".bn."),
    (r"\.trunk\.", "."),
    (r"\.stem\.", ".conv1."),
    *((rf"\.stages\.{stage}\.", f".blocks{stage + 2}.") for stage in range(5)),
    (r"\.depthwise\.", ".dw_conv."),
    (r"\.pointwise\.", ".pw_conv."),
)
LCNET_V2_NAMES: Rules = (
    *NORM_NAMES,
    *SQUEEZE_NAMES,
    (r"^neck\.norm\.", "neck.feat_bn."),
    (r"\.norm\.", ".bn."),
    (r"\.trunk\.", "."),
    (r"\.depthwise\.branches\.", ".dw_conv_list."),
    (r"\.depthwise\.", ".dw_conv."),
    (r"\.pointwise\.0\.", ".pw_conv_1."),
    (r"\.pointwise\.1\.", ".pw_conv_2."),
    (r"\.pointwise\.", ".pw_conv."),
)
RESNET_NAMES: Rules = (
    *NORM_NAMES,
    (r"\.norm\.", ".bn."),
    (r"\.narrow\.", ".conv0."),
    (r"\.filter\.", ".conv1."),
    (r"\.widen\.", ".conv2."),
    (r"\.shortcut\.", ".short."),
)
CSP_PAN_NAMES: Rules = (
    *NORM_NAMES,
    (r"\.depthwise\.conv\.", ".dwconv."),
    (r"\.depthwise\.norm\.", ".bn1."),
    (r"\.pointwise\.conv\.", ".pwconv."),
    (r"\.pointwise\.norm\.", ".bn2."),
    (r"\.norm\.", ".bn."),
    (r"\.lateral\.", ".conv_t.convs."),
    (r"\.top_of_lateral\.", ".first_top_conv."),
    (r"\.top_of_last\.", ".second_top_conv."),
    (r"\.downsample\.", ".downsamples."),
    (r"\.(top_down|bottom_up)\.", r".\1_blocks."),
    (r"\.filter\.0\.", ".blocks.0.conv1."),
    (r"\.filter\.1\.", ".blocks.0.conv2."),
    (r"\.(main|short|final)\.", r".\1_conv."),
)
# "cls_conv_dw0.0" is one layer's name upstream, dot and all.
PICO_HEAD_NAMES: Rules = (
    *NORM_NAMES,
    (r"^heads\.(\d)\.tower\.(\d)\.depthwise\.", r"head.conv_feat.cls_conv_dw\1.\2."),
    (r"^heads\.(\d)\.tower\.(\d)\.pointwise\.", r"head.conv_feat.cls_conv_pw\1.\2."),
    (r"^heads\.(\d)\.predict\.", r"head.head_cls\1."),
)

CLASSIFIER_OF_A_BACKBONE = r"fc\.(weight|bias)"
CLASSIFIER_OF_AN_EMBEDDER = r"head\..*"
# The one convolution that stands for the branches; it holds nothing before upstream's re_parameterize.
FUSED_SLOT = r"(backbone\.)?stages\.\d\.\d\.dw_conv\.(weight|bias)"
# Made by a parent class of upstream's head and used by none.
UNUSED_SCALES = r"head\.p\d_feat\.scale_reg"
BIN_VALUES = "head.distribution_project.project"
NONE = r"(?!)"

BATCHES_SEEN = "num_batches_tracked"


class Import(NamedTuple):
    """What became of upstream's names beside those that were taken.

    Attributes:
        dropped: weights of the training classes.
        unused: what inference does not use.
        left: what the network has and the file lacks; it stays as it was started.
    """

    dropped: list[str]
    unused: list[str]
    left: list[str]


@dataclass(frozen=True)
class Published:
    """One model that upstream publishes.

    Attributes:
        build: makes the network of a scale, for the file's weights.
        scale: the published one.
        names: by the first part of our names, how they become upstream's.
        task: of the card.
        trained_on: for the card.
        source: who published it.
        dropped: pattern of upstream's names that hold the training classes.
        unused: pattern of those that inference does not use.
    """

    build: Callable[[float, Mapping[str, NDArray[Any]]], nn.Module]
    scale: float
    names: Mapping[str, Rules]
    task: Task
    trained_on: str
    source: str
    dropped: str = NONE
    unused: str = NONE


def _picodet(scale: float, weights: Mapping[str, NDArray[Any]]) -> PicoDet:
    """As many classes as the file's first predictor has; a file without one fails on its names."""
    predictor = weights.get("head.head_cls0.weight", np.zeros((1 + 4 * BINS, 1)))
    return PicoDet(PPLCNetTrunk(scale=scale), n_classes=max(1, predictor.shape[0] - 4 * BINS))


def _plain(rules: Rules) -> dict[str, Rules]:
    """Names of a backbone that upstream keeps without the prefix."""
    return {"backbone": (*rules, (r"^backbone\.", ""))}


def _pplcnet(scale: float) -> Published:
    return Published(
        build=lambda scale, _: EmbedderModel(PPLCNet(scale=scale)),
        scale=scale,
        names=_plain(LCNET_NAMES),
        task="embedder",
        trained_on="ImageNet-1k",
        source="PaddleClas, PP-LCNet",
        dropped=CLASSIFIER_OF_A_BACKBONE,
    )


PUBLISHED = {
    "general_rec_v1": Published(
        build=lambda scale, _: EmbedderModel(PPLCNet(scale=scale), FCNeck(1280)),
        scale=2.5,
        names={"backbone": LCNET_NAMES, "neck": ()},
        task="embedder",
        trained_on="PP-ShiTu's general recognition data, 185,341 classes",
        source="PaddleClas, PP-ShiTu V1",
        dropped=CLASSIFIER_OF_AN_EMBEDDER,
    ),
    "general_rec_v2": Published(
        build=lambda scale, _: EmbedderModel(PPLCNetV2ShiTu(scale=scale), BNNeck(512)),
        scale=1.0,
        names={"backbone": LCNET_V2_NAMES, "neck": LCNET_V2_NAMES},
        task="embedder",
        trained_on="PP-ShiTuV2's general recognition data, 192,612 classes",
        source="PaddleClas, PP-ShiTuV2",
        dropped=CLASSIFIER_OF_AN_EMBEDDER,
        unused=FUSED_SLOT,
    ),
    "resnet50_vd_rec": Published(
        build=lambda scale, _: EmbedderModel(
            backbone := ResNet50Vd(scale=scale), FCNeck(backbone.out_channels)
        ),
        scale=1.0,
        names={"backbone": RESNET_NAMES, "neck": ()},
        task="embedder",
        trained_on="AliProducts",
        source="PaddleClas, PP-ShiTu's model for servers",
        dropped=CLASSIFIER_OF_AN_EMBEDDER,
    ),
    "picodet_lcnet_x2_5_640_mainbody": Published(
        build=_picodet,
        scale=2.5,
        names={"backbone": LCNET_NAMES, "neck": CSP_PAN_NAMES, "heads": PICO_HEAD_NAMES},
        task="detector",
        trained_on="Objects365, COCO, iCartoonFace, LogoDet-3K and RPC, all classes as foreground",
        source="PaddleDetection, PP-ShiTu's main-body detector",
        unused=rf"{UNUSED_SCALES}|{re.escape(BIN_VALUES)}",
    ),
    "pplcnetv2_base": Published(
        build=lambda scale, _: EmbedderModel(PPLCNetV2(scale=scale)),
        scale=1.0,
        names=_plain(LCNET_V2_NAMES),
        task="embedder",
        trained_on="ImageNet-1k",
        source="PaddleClas, PP-LCNetV2",
        dropped=CLASSIFIER_OF_A_BACKBONE,
        unused=FUSED_SLOT,
    ),
    **{f"pplcnet_x{scale}".replace(".", "_"): _pplcnet(scale) for scale in PUBLISHED_SCALES},
}


def published_name(key: str, published: Published) -> str:
    """The name under which upstream keeps our parameter or buffer `key`."""
    name = key
    for pattern, replacement in published.names[key.partition(".")[0]]:
        name = re.sub(pattern, replacement, name)
    return name


def load_published(
    model: nn.Module, published: Published, weights: Mapping[str, NDArray[Any]], *, may_lack: str = NONE
) -> Import:
    """Copy a file's weights into a network, all of them or none.

    Args:
        model: as `published.build` made it.
        published: which model it is.
        weights: by upstream's names.
        may_lack: pattern of upstream's names that the file need not have, or may have in another shape.
    Raises:
        WeightsRefused: names are missing or left over, or an array is not what the network needs; each is named.
    """
    dropped = [name for name in weights if re.fullmatch(published.dropped, name)]
    unused = [name for name in weights if re.fullmatch(published.unused, name)]
    offered = {name: array for name, array in weights.items() if name not in {*dropped, *unused}}
    # Paddle keeps a linear map as (in, out), PyTorch as (out, in).
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    ours = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith(BATCHES_SEEN)}
    wanted = {
        published_name(key, published): tuple(tensor.T.shape if key in linear else tensor.shape)
        for key, tensor in ours.items()
    }
    left = [
        name
        for name, shape in wanted.items()
        if re.fullmatch(may_lack, name) and (name not in offered or offered[name].shape != shape)
    ]
    for name in left:
        del wanted[name]
        offered.pop(name, None)
    ours = {key: tensor for key, tensor in ours.items() if published_name(key, published) in wanted}
    faults = describe_mismatch(wanted, shapes_of(offered)) + describe_unfit(offered)
    bins = weights.get(BIN_VALUES)
    if BIN_VALUES in unused and not np.array_equal(bins, np.arange(BINS)):  # type: ignore[arg-type]
        faults.append(f"{BIN_VALUES} is not 0 to {BINS - 1}, the network has no other bins")
    if faults:
        raise WeightsRefused(
            "these are not the weights of the model named, take its own file or another --model: "
            + "; ".join(faults)
        )
    for key, tensor in ours.items():
        array = offered[published_name(key, published)].astype(np.float32)
        tensor.copy_(torch.from_numpy(array.T.copy() if key in linear else array))
    return Import(dropped, unused, left)


@dataclass(frozen=True)
class Start:
    """How upstream's ImageNet classifier fits a part of ours that is to be trained further.

    Attributes:
        names: the rules.
        may_lack: pattern of upstream's names that the classifier has not, or has in another shape.
        dropped: pattern of those that our part has no place for.
    """

    names: Rules
    may_lack: str = NONE
    dropped: str = CLASSIFIER_OF_A_BACKBONE


STARTS: dict[type[nn.Module], Start] = {
    PPLCNet: Start(LCNET_NAMES),
    PPLCNetTrunk: Start(LCNET_NAMES, dropped=rf"last_conv\.weight|{CLASSIFIER_OF_A_BACKBONE}"),
    PPLCNetV2: Start(LCNET_V2_NAMES),
    # Upstream starts PP-ShiTuV2 so: the branch that stride 1 brings, and the embedding, are new.
    PPLCNetV2ShiTu: Start(LCNET_V2_NAMES, may_lack=r"stages\.3\.0\.dw_conv_list\.2\..*|last_conv\..*"),
    ResNet50Vd: Start(RESNET_NAMES),
}


def start_from_imagenet(part: nn.Module, weights_file: Path) -> list[str]:
    """Start a backbone, or a detector's trunk, from a classifier's published weights.

    Args:
        part: of a type in STARTS, at the scale of the weights.
        weights_file: the `.pdparams` of upstream's ImageNet classifier.
    Returns:
        Upstream's names of what the file does not have and stays at random.
    Raises:
        WeightsRefused: the file cannot be read or is of another network; or there are no such weights of it.
    """
    start = STARTS.get(type(part))
    if start is None:
        known = ", ".join(sorted(kind.__name__ for kind in STARTS))
        raise WeightsRefused(
            f"{type(part).__name__} has no published ImageNet weights of upstream's; {known} have."
        )
    source = Published(
        build=lambda *_: part,
        scale=1.0,
        names=_plain(start.names),
        task="embedder",
        trained_on="ImageNet-1k",
        source="PaddleClas",
        dropped=start.dropped,
        unused=FUSED_SLOT,
    )
    weights = read_pdparams(weights_file)
    return load_published(nn.ModuleDict({"backbone": part}), source, weights, may_lack=start.may_lack).left


def describe(
    model: str, network: nn.Module, weights_file: Path, *, scale: float | None, side: int | None, version: str
) -> ModelCard:
    """The card of an import, but for its file's SHA-256."""
    published = PUBLISHED[model]
    is_embedder = published.task == "embedder"
    with weights_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    command = f"python -m training.import_paddle --model {model} --weights {weights_file.name}"
    name = model
    if scale is not None:
        command += f" --scale {scale}"
        name += f"-x{scale}"
    if side is not None:
        command += f" --side {side}"
        name += f"-{side}"
    side = side or (EMBEDDER_SIDE if is_embedder else DETECTOR_SIDE)
    common: dict[str, Any] = {
        "name": name,
        "version": version,
        "task": published.task,
        "sha256": NO_DIGEST,
        "input": normalised_input(side, side, IMAGENET),
        "provider": "openvino",
        "precision": "fp32",
        "licence": "Apache-2.0",
        "origin": f"{published.source}: {weights_file.name}, SHA-256 {digest}; computed by Checklane's own network",
        "trained_on": published.trained_on,
        "seed": None,
        "command": command,
        "accuracy": "not measured here",
    }
    if isinstance(network, EmbedderModel):
        return ModelCard(
            resize=Resize("bilinear", antialias=False, keep_aspect=False),
            outputs=EmbedderOutputs("embedding", "embedding"),
            dimension=network.dimension,
            hash_bits=network.dimension,
            hash_method="sign",
            crop_margin=0.0,
            minimum_side_pixels=MINIMUM_SIDE_PIXELS,
            **common,
        )
    assert isinstance(network, PicoDet)
    n_classes = network.n_classes
    return ModelCard(
        resize=Resize("bicubic", antialias=False, keep_aspect=False),
        outputs=DecodedOutputs("decoded", "boxes", "scores"),
        detection=DetectionSettings(
            classes=("main body",) if n_classes == 1 else tuple(f"class {i}" for i in range(n_classes)),
            ignored_classes=(),
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            maximum_items=MAXIMUM_ITEMS,
        ),
        **common,
    )


def build(model: str, weights_file: Path, *, scale: float | None = None) -> tuple[nn.Module, Import]:
    """Read a file of weights into its network, in inference mode.

    Args:
        model: a key of PUBLISHED.
        weights_file: the `.pdparams`.
        scale: of the channels, where the weights are of another one than the published.
    Raises:
        WeightsRefused: the file cannot be read, or holds something else.
    """
    published = PUBLISHED[model]
    weights = read_pdparams(weights_file)
    network = published.build(published.scale if scale is None else scale, weights).eval()
    return network, load_published(network, published, weights)


def import_paddle(
    model: str,
    weights_file: Path,
    out: Path,
    *,
    scale: float | None = None,
    side: int | None = None,
    version: str = VERSION,
) -> ModelCard:
    """Make the model folder.

    Args:
        model: a key of PUBLISHED.
        weights_file: the `.pdparams`.
        out: the folder to make; it must not be there yet.
        scale: as for `build`.
        side: of the input, in pixels, where it is to be another one than upstream's.
        version: of the model, for the card.
    Raises:
        WeightsRefused: the file cannot be read, or holds something else.
        ValueError: the scale is not above 0.
        ExportRefused: `out` exists, the side does not fit, or the file written does not do what PyTorch does.
    """
    if out.exists():
        raise ExportRefused(f"{out} is there already; remove it or name another folder.")
    if side is not None and (side < SIDE_STEP or side % SIDE_STEP):
        raise ExportRefused(f"--side: found {side}, wanted a multiple of {SIDE_STEP}.")
    network, imported = build(model, weights_file, scale=scale)
    for name in imported.dropped:
        print(f"dropped {name}: it tells the classes of the training apart, which nobody needs here")
    for name in imported.unused:
        print(f"not used: {name}")
    graph = graph_of(network)
    card = describe(model, network, weights_file, scale=scale, side=side, version=version)
    return export_folder(graph, card, proof_pictures(), out)


def graph_of(network: nn.Module) -> nn.Module:
    """What the file of an embedder or a detector computes."""
    if isinstance(network, PicoDet):
        return DetectorGraph(network)
    assert isinstance(network, EmbedderModel)
    return EmbedderGraph(network)


def proof_pictures() -> list[NDArray[np.uint8]]:
    """Generated checkout scenes to compare the file with PyTorch on."""
    products = list_products()[:PRODUCTS_A_SCENE]
    return [np.asarray(render_scene(products, seed=seed).image) for seed in range(N_PROOF)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.import_paddle", description=__doc__)
    parser.add_argument("--model", choices=sorted(PUBLISHED), required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the .pdparams file")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to make")
    parser.add_argument(
        "--scale", type=float, help="of the channels, if the weights are not of the published one"
    )
    parser.add_argument("--side", type=int, help="of the input, in pixels, if it is not to be upstream's")
    parser.add_argument("--version", default=VERSION, help="of the model, for its card")
    options = parser.parse_args(arguments)
    try:
        card = import_paddle(
            options.model,
            options.weights,
            options.out,
            scale=options.scale,
            side=options.side,
            version=options.version,
        )
    except (WeightsRefused, ExportRefused, RecognitionError, ValueError) as refused:
        sys.exit(f"refused: {refused}")
    print(f"{options.out}: {card.name} {card.version}")


if __name__ == "__main__":
    main(sys.argv[1:])
