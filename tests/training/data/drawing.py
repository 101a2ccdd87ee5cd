"""Small pictures and lists for the tests of training data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def draw(path: Path, *, width: int = 24, height: int = 16, seed: int = 0) -> Path:
    """Write a JPEG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=95)
    return path


def write_list(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_coco(
    path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], names: list[str]
) -> Path:
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(names, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
