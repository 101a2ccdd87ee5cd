"""Weights as upstream publishes them: its own names and shapes, and values out of seeds."""

import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.training.seeded_weights import seeded_weights
from training.pdparams import BOOKKEEPING

DATA = Path(__file__).parent / "data"
REFERENCES = np.load(DATA / "paddle_references.npz")

Weights = dict[str, NDArray[np.float32]]


def weights_of(reference: str) -> Weights:
    """The weights that a reference of `make_references` was computed with."""
    keys, shapes = REFERENCES[f"{reference}/keys"], REFERENCES[f"{reference}/shapes"]
    wanted = {
        str(key): tuple(int(side) for side in str(shape).split())
        for key, shape in zip(keys, shapes, strict=True)
    }
    return seeded_weights(wanted, float(REFERENCES[f"{reference}/gain"]))


def write(path: Path, weights: Weights) -> Path:
    """Write a `.pdparams` file as `paddle.save` does."""
    path.write_bytes(pickle.dumps({**weights, BOOKKEEPING: {}}, protocol=4))
    return path
