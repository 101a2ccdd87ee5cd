"""Weights, inputs and a picture out of seeds, the same wherever NumPy runs.

The references of `tests/training/data` were computed in another environment with weights of full-size networks. Each
array is drawn from a seed that its name gives, so both sides can make them and nobody has to store them. NumPy alone.
"""

import hashlib
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def seeded_array(key: str, shape: tuple[int, ...], gain: float = 1.0) -> NDArray[np.float32]:
    """The array of a published name, with no trivial statistic.

    Args:
        key: the published name, the seed.
        shape: wanted.
        gain: of maps and convolutions; at 1 signals keep their size through ReLU, hard swish wants more.
    """
    random = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("_variance"):
        values = random.uniform(0.5, 1.5, shape)
    elif key.endswith("distribution_project.project"):
        values = np.arange(shape[0])
    elif len(shape) == 1 and key.endswith(".weight"):
        values = random.uniform(0.6, 1.4, shape)
    elif len(shape) == 1:
        values = random.standard_normal(shape) * 0.2
    else:
        # Linear maps are stored (in, out), convolutions (out, in / groups, height, width).
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        values = random.standard_normal(shape) * (gain * np.sqrt(2 / fan_in))
    return values.astype(np.float32)


def seeded_weights(
    shapes: Mapping[str, tuple[int, ...]], gain: float = 1.0
) -> dict[str, NDArray[np.float32]]:
    """An array for each published name."""
    return {key: seeded_array(key, shape, gain) for key, shape in shapes.items()}


def seeded_input(n: int, height: int, width: int) -> NDArray[np.float32]:
    """Two kinds of normalised pixels (n, 3, height, width): coarse patches and fine noise, so that crops differ."""
    random = np.random.default_rng(n * 1_000_003 + height * 1009 + width)
    coarse = random.standard_normal((n, 3, 8, 8))
    patches = coarse.repeat(-(-height // 8), axis=2).repeat(-(-width // 8), axis=3)[:, :, :height, :width]
    return (patches + 0.3 * random.standard_normal((n, 3, height, width))).astype(np.float32)


def seeded_picture() -> NDArray[np.uint8]:
    """A picture (300, 420, 3) of patches and noise, RGB."""
    random = np.random.default_rng(20_230_817)
    patches = random.integers(30, 226, (15, 21, 3)).repeat(20, axis=0).repeat(20, axis=1)
    return (patches + random.integers(-30, 31, patches.shape)).astype(np.uint8)


def fingerprint(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 over names and values, to tell a changed seed from a changed network."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + np.ascontiguousarray(weights[key], np.float32).tobytes())
    return digest.hexdigest()
