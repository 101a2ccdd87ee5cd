"""Make `paddle_references.npz` and `pplcnet_x0_25.pdparams`: what the published networks compute.

    python -m tests.training.data.make_references

It runs from the repository's root in an environment of its own: Linux, Python 3.11, and from PyPI paddlepaddle 2.6.2,
paddleclas 2.6.0 and paddledet 2.6.0 (these two with --no-deps), numpy 1.26, opencv-python-headless 4.10, and what
those import: pyyaml scipy pycocotools prettytable ujson tqdm easydict scikit-learn matplotlib typeguard terminaltables
shapely visualdl setuptools requests pandas. The tests need none of it: only outputs are stored, weights and inputs
come from `tests.training.seeded_weights` on both sides.

Of each embedder there is `NAME/normalised` (2, D) for seeded_input and `NAME/picture` (1, D) for seeded_picture
resized by OpenCV; `NAME/keys`, `NAME/shapes` and `NAME/gain`, of which its weights are made, and `NAME/weights`, their
fingerprint. Of each detector `NAME/normalised/boxes`, `NAME/normalised/scores` and so on. Of each margin its logits.
`pplcnet_x0_25.pdparams` is a file as `paddle.save` writes it, of a classifier of 10.
"""

# ruff: noqa: I001  paddledet crashes unless the libraries that share zlib with paddle are loaded before it
import importlib.util
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import matplotlib.pyplot
import PIL.Image
import pycocotools.mask
import scipy.interpolate
import numpy as np
import paddle

from tests.training.seeded_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    fingerprint,
    seeded_array,
    seeded_input,
    seeded_picture,
    seeded_weights,
)

LOADED_FIRST = (zipfile, zlib, matplotlib.pyplot, PIL.Image, pycocotools.mask, scipy.interpolate)

HERE = Path(__file__).parent
paddleclas = importlib.util.find_spec("paddleclas")
assert paddleclas is not None
assert paddleclas.origin is not None
sys.path.insert(0, str(Path(paddleclas.origin).parent))

from ppcls.utils import logger  # noqa: E402

logger.init_logger()

from ppcls.arch import RecModel  # noqa: E402
from ppcls.arch.backbone.legendary_models import pp_lcnet, pp_lcnet_v2  # noqa: E402
from ppcls.arch.gears.arcmargin import ArcMargin  # noqa: E402
from ppcls.arch.gears.circlemargin import CircleMargin  # noqa: E402
from ppcls.arch.gears.cosmargin import CosMargin  # noqa: E402
from ppdet.modeling.backbones.lcnet import LCNet  # noqa: E402
from ppdet.modeling.heads.pico_head import PicoFeat, PicoHead  # noqa: E402
from ppdet.modeling.losses.varifocal_loss import VarifocalLoss  # noqa: E402
from ppdet.modeling.necks.csp_pan import CSPPAN  # noqa: E402

SCALES = ("0_25", "0_35", "0_5", "0_75", "1_0", "1_5", "2_0", "2_5")

# With these no signal fades or grows out of bounds through the depth of a network.
RELU_GAIN = 1.04
HARD_SWISH_GAIN = 1.17
DETECTOR_GAIN = 1.0
SMALL_DETECTOR_GAIN = 1.1


class Detector(paddle.nn.Layer):
    """Backbone, neck and head of PP-ShiTu's configuration, up to the boxes before suppression."""

    def __init__(self, scale: float, n_classes: int) -> None:
        super().__init__()
        self.backbone = LCNet(scale=scale, feature_maps=[3, 4, 5])
        channels = [shape.channels for shape in self.backbone.out_shape]
        self.neck = CSPPAN(
            channels,
            128,
            kernel_size=5,
            num_features=4,
            num_csp_blocks=1,
            use_depthwise=True,
            act="hard_swish",
            spatial_scales=[1 / 8, 1 / 16, 1 / 32],  # its default grows with each use
        )
        features = PicoFeat(128, 128, num_fpn_stride=4, num_convs=4, norm_type="bn", share_cls_reg=True)
        self.head = PicoHead(
            features,
            num_classes=n_classes,
            fpn_stride=[8, 16, 32, 64],
            reg_max=7,
            cell_offset=0.5,
            feat_in_chan=128,
            loss_class=VarifocalLoss(use_sigmoid=True),
        )

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        scores, boxes = self.head(self.neck(self.backbone({"image": x})))
        return boxes, scores.transpose([0, 2, 1])


def flattened(model: paddle.nn.Layer) -> paddle.nn.Layer:
    model.stop_after("flatten")
    return model


def recognition(backbone: dict[str, object], neck: dict[str, object]) -> paddle.nn.Layer:
    model = RecModel(Backbone=backbone, BackboneStopLayer={"name": "flatten"}, Neck=neck)
    model.register_forward_post_hook(lambda _layer, _input, output: output["features"])
    return model


def fc_neck(channels: int) -> dict[str, object]:
    return {"name": "FC", "embedding_size": channels, "class_num": 512}


def fill(model: paddle.nn.Layer, gain: float) -> dict[str, np.ndarray]:
    state = model.state_dict()
    weights = seeded_weights({key: tuple(value.shape) for key, value in state.items()}, gain)
    for key, value in state.items():
        value.set_value(weights[key])
    model.eval()
    return weights


def prepared(width: int, height: int, interpolation: int) -> np.ndarray:
    resized = cv2.resize(seeded_picture(), (width, height), interpolation=interpolation)
    normalised = (resized.astype(np.float32) * np.float32(1 / 255) - IMAGENET_MEAN) / IMAGENET_STD
    return normalised.transpose(2, 0, 1)[None]


def describe(found: dict[str, np.ndarray], name: str, weights: dict[str, np.ndarray], gain: float) -> None:
    found[f"{name}/gain"] = np.array(gain)
    found[f"{name}/weights"] = np.array(fingerprint(weights))
    found[f"{name}/keys"] = np.array(list(weights))
    found[f"{name}/shapes"] = np.array([" ".join(map(str, value.shape)) for value in weights.values()])


def refer_embedder(found: dict[str, np.ndarray], name: str, model: paddle.nn.Layer, gain: float) -> None:
    describe(found, name, fill(model, gain), gain)
    with paddle.no_grad():
        found[f"{name}/normalised"] = model(paddle.to_tensor(seeded_input(2, 224, 224))).numpy()
        found[f"{name}/picture"] = model(paddle.to_tensor(prepared(224, 224, cv2.INTER_LINEAR))).numpy()
    first, second = found[f"{name}/normalised"]
    print(name, first.shape, np.abs(first).max(), "difference", np.abs(first - second).max())


def refer_detector(
    found: dict[str, np.ndarray], name: str, model: paddle.nn.Layer, gain: float, width: int, height: int
) -> None:
    describe(found, name, fill(model, gain), gain)
    for kind, pixels in (
        ("normalised", seeded_input(1, height, width)),
        ("picture", prepared(width, height, cv2.INTER_CUBIC)),
    ):
        with paddle.no_grad():
            boxes, scores = model(paddle.to_tensor(pixels))
        found[f"{name}/{kind}/boxes"], found[f"{name}/{kind}/scores"] = boxes.numpy(), scores.numpy()
        print(name, kind, boxes.shape, scores.shape, scores.numpy().min(), scores.numpy().max())


def refer_margins(found: dict[str, np.ndarray]) -> None:
    labels = paddle.to_tensor(np.array([[0], [3], [6], [2]]))
    embedding = seeded_array("margin.embedding", (16, 4)).T
    weight = seeded_array("margin.head", (16, 7))
    # The third is all but opposite to its class: past the angle where ArcFace's cosine would rise again.
    embedding[2] = -weight[:, 6] + 0.01 * embedding[2]
    for name, head in (
        ("ArcMargin", ArcMargin(16, 7, margin=0.2, scale=30)),
        ("CosMargin", CosMargin(16, 7, margin=0.35, scale=64)),
        ("CircleMargin", CircleMargin(16, 7, margin=0.25, scale=256)),
    ):
        head.weight.set_value(weight)
        for mode in ("train", "eval"):
            getattr(head, mode)()
            found[f"{name}/{mode}"] = head(paddle.to_tensor(embedding), labels).numpy()
    found["margin/embedding"], found["margin/labels"] = embedding, labels.numpy()[:, 0]


def main() -> None:
    found: dict[str, np.ndarray] = {}
    for scale in SCALES:
        model = flattened(getattr(pp_lcnet, f"PPLCNet_x{scale}")())
        refer_embedder(found, f"pplcnet_x{scale}", model, HARD_SWISH_GAIN)
    first = {"name": "PPLCNet_x2_5"}
    refer_embedder(found, "general_rec_v1", recognition(first, fc_neck(1280)), HARD_SWISH_GAIN)
    refer_embedder(found, "pplcnetv2_base", flattened(pp_lcnet_v2.PPLCNetV2_base()), RELU_GAIN)
    small = pp_lcnet_v2.PPLCNetV2(scale=0.25, depths=[2, 2, 6, 2], dropout_prob=0.2)
    refer_embedder(found, "pplcnetv2_x0_25", flattened(small), RELU_GAIN)
    shitu = {"name": "PPLCNetV2_base_ShiTu", "class_expand": 512}
    bn_neck = {"name": "BNNeck", "num_features": 512}
    refer_embedder(found, "general_rec_v2", recognition(shitu, bn_neck), RELU_GAIN)
    refer_embedder(found, "resnet50_vd_rec", recognition({"name": "ResNet50_vd"}, fc_neck(2048)), RELU_GAIN)
    refer_detector(found, "picodet_lcnet_x2_5_640_mainbody", Detector(2.5, 1), DETECTOR_GAIN, 640, 640)
    refer_detector(found, "picodet_lcnet_x0_25", Detector(0.25, 3), SMALL_DETECTOR_GAIN, 192, 128)
    refer_margins(found)
    np.savez_compressed(HERE / "paddle_references.npz", **found)

    small = pp_lcnet.PPLCNet_x0_25(class_num=10)
    fill(small, HARD_SWISH_GAIN)
    paddle.save(small.state_dict(), str(HERE / "pplcnet_x0_25.pdparams"))


if __name__ == "__main__":
    main()
