"""Cards and small real ONNX models for the tests."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from recognition.model_card import ModelFolder, load_model_folder


def _card(**changes: Any) -> dict[str, Any]:
    card = {
        "name": "toy",
        "version": "1",
        "sha256": "0" * 64,
        "input": {
            "name": "image",
            "width": 32,
            "height": 24,
            "layout": "NCHW",
            "dtype": "float32",
            "colour_order": "RGB",
            "normalisation_in_graph": False,
            "scale": 1,
            "mean": [127, 127, 127],
            "std": [128, 128, 128],
        },
        "resize": {"interpolation": "bilinear", "antialias": True, "keep_aspect": False},
        "provider": "cpu",
        "precision": "fp32",
        "licence": "Apache-2.0",
        "origin": "made for a test",
        "trained_on": "nothing",
        "seed": None,
        "command": "none",
        "accuracy": "none",
    }
    return card | changes


def embedder_card(**changes: Any) -> dict[str, Any]:
    card = _card(
        task="embedder",
        outputs={"embedding": "embedding", "hash": "embedding"},
        dimension=16,
        hash_bits=16,
        hash_method="sign",
        crop_margin=0.05,
        minimum_side_pixels=8,
    )
    return card | changes


def detector_card(**changes: Any) -> dict[str, Any]:
    card = _card(
        task="detector",
        outputs={"form": "decoded", "boxes": "boxes", "scores": "scores"},
        detection={
            "classes": ["thing", "table"],
            "ignored_classes": ["table"],
            "score_threshold": 0.3,
            "nms_threshold": 0.6,
            "maximum_items": 20,
        },
    )
    return card | changes


def write_folder(folder: Path, model: onnx.ModelProto, card: dict[str, Any]) -> ModelFolder:
    """A model folder as training would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    (folder / "card.json").write_text(json.dumps(card | {"sha256": hashlib.sha256(content).hexdigest()}))
    return load_model_folder(folder)


def embedder_model(*, batch: int | str = "N", dimension: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Two convolutions, a mean over the picture and a linear layer: (N, 3, 24, 32) -> `embedding` (N, dimension)."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv1": rng.normal(0, 0.3, (32, 3, 3, 3)),
        "conv2": rng.normal(0, 0.1, (32, 32, 3, 3)),
        "linear": rng.normal(0, 0.3, (32, dimension)),
        "bias": rng.normal(0, 0.1, dimension),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "linear", "bias"], ["embedding"]),
    ]
    return _model(nodes, weights, [("image", (batch, 3, 24, 32))], [("embedding", (batch, dimension))])


def detector_model(boxes: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]) -> onnx.ModelProto:
    """Gives the same boxes (P, 4) and scores (P, C) for every picture of a batch."""
    weights = {"every_box": np.array([boxes]), "every_score": np.array([scores]), "zero": np.zeros(1)}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean"], ["flat"], axes=[3]),
        helper.make_node("Mul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "every_box"], ["boxes"]),
        helper.make_node("Add", ["nothing", "every_score"], ["scores"]),
    ]
    outputs = [("boxes", ("N", len(boxes), 4)), ("scores", ("N", *np.shape(scores)))]
    return _model(nodes, weights, [("image", ("N", 3, 24, 32))], outputs)


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    inputs: list[tuple[str, tuple[int | str, ...]]],
    outputs: list[tuple[str, tuple[int | str, ...]]],
) -> onnx.ModelProto:
    def tensors(named: list[tuple[str, tuple[int | str, ...]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in named]

    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "toy", tensors(inputs), tensors(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    onnx.checker.check_model(model)
    return model
