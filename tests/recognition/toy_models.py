"""Cards and small real ONNX models for the tests."""

from typing import Any


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
