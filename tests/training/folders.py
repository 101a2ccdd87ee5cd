"""Small model folders to quantise and compare: real networks of ours, narrow, with weights by chance."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recognition.model_card import (
    DecodedOutputs,
    DetectionSettings,
    EmbedderOutputs,
    ModelCard,
    ModelFolder,
    Resize,
    load_model_folder,
)
from training.export import NO_DIGEST, DetectorGraph, EmbedderGraph, export_folder, normalised_input
from training.models.embedder import IMAGENET, EmbedderModel
from training.models.necks import FCNeck
from training.models.picodet import PicoDet
from training.models.pplcnet import PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2ShiTu

SIDE = 64
DIMENSION = 32


def pictures(n: int = 4, side: int = SIDE, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Patches of colour, (side, side, 3), no two alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return list(coarse.repeat(side // 8, axis=1).repeat(side // 8, axis=2))


def settled(network: torch.nn.Module) -> None:
    """Give batch normalisations the statistics of some input, so that signals keep their size; ends in inference."""
    network.train()
    with torch.no_grad():
        for seed in range(8):
            network(patches(seed))
    network.eval()


def patches(seed: int, n: int = 8) -> torch.Tensor:
    """Normalised pictures (n, 3, SIDE, SIDE) like `pictures`."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(-2, 2, (n, 3, 8, 8)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE))


def small_embedder() -> EmbedderModel:
    """PP-ShiTuV2's backbone with its branches at a quarter of the channels, and a neck."""
    torch.manual_seed(0)
    backbone = PPLCNetV2ShiTu(scale=0.25, last_channels=64)
    network = EmbedderModel(backbone, FCNeck(64, dimension=DIMENSION))
    settled(network)
    return network


def small_detector() -> PicoDet:
    torch.manual_seed(0)
    network = PicoDet(PPLCNetTrunk(scale=0.25), neck_channels=16)
    settled(network)
    # Scores and distances that differ from cell to cell, as a trained detector's do.
    for head in network.heads:
        torch.nn.init.normal_(head.predict.weight, std=0.5)
    return network


def embedder_card() -> ModelCard:
    """Of `small_embedder`, but for its file's SHA-256."""
    return ModelCard(
        task="embedder",
        outputs=EmbedderOutputs("embedding", "embedding"),
        dimension=DIMENSION,
        hash_bits=DIMENSION,
        hash_method="sign",
        **_common(),  # type: ignore[arg-type]
    )


def detector_card() -> ModelCard:
    """Of `small_detector`, likewise."""
    return ModelCard(
        task="detector",
        outputs=DecodedOutputs("decoded", "boxes", "scores"),
        detection=DetectionSettings(("main body",), (), 0.2, 0.6, 100),
        **_common(),  # type: ignore[arg-type]
    )


def embedder_folder(out: Path) -> ModelFolder:
    """Export `small_embedder`."""
    export_folder(EmbedderGraph(small_embedder()), embedder_card(), pictures(), out)
    return load_model_folder(out)


def detector_folder(out: Path) -> ModelFolder:
    """Export `small_detector`."""
    export_folder(DetectorGraph(small_detector()), detector_card(), pictures(), out)
    return load_model_folder(out)


def _common() -> dict[str, object]:
    return {
        "name": "small",
        "version": "1",
        "sha256": NO_DIGEST,
        "input": normalised_input(SIDE, SIDE, IMAGENET),
        "resize": Resize("bilinear", antialias=False, keep_aspect=False),
        "provider": "openvino",
        "precision": "fp32",
        "licence": "Apache-2.0",
        "origin": "a test",
        "trained_on": "nothing",
        "seed": 0,
        "command": "none",
        "accuracy": "none",
    }
