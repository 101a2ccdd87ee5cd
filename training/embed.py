"""Embed one picture with a trained embedder.

    python -m training.embed --checkpoint C IMAGE
    python -m training.embed --checkpoint C IMAGE --box 40,30,200,260

Prints one JSON object: the L2-normalised embedding and, in hexadecimal, the hash code of its signs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recognition.errors import ImageRefused
from recognition.images import Box, decode, model_input
from training.checkpoint import CheckpointRefused
from training.config import ConfigRefused
from training.networks import embedder_card, open_embedder_checkpoint
from training.retrieval import hash_codes, normalised


def embed(checkpoint: Path, image: Path, box: Box | None = None) -> dict[str, Any]:
    """Embed one picture.

    Args:
        checkpoint: of an embedder, or of a pair, whose student embeds.
        image: the picture's file.
        box: x1, y1, x2, y2 of the main body in pixels; None is the whole picture.
    Returns:
        image, model, dimension, embedding (a list of L2 norm 1), and hash where the dimension is a multiple of 8.
    Raises:
        CheckpointRefused, ConfigRefused, ImageRefused, OSError: as their messages say.
    """
    network, settings, _ = open_embedder_checkpoint(checkpoint)
    card = embedder_card(settings, network)
    picture = decode(image.read_bytes())
    crop = picture.pixels if box is None else picture.crop(box, card.crop_margin)
    with torch.inference_mode():
        embedding = network.embed(torch.from_numpy(model_input(crop, card))[None])
        values = network.hash_values(embedding).numpy()
    found = {
        "image": str(image),
        "model": settings.name,
        "dimension": network.dimension,
        "embedding": [round(value, 7) for value in normalised(embedding.numpy())[0].tolist()],
    }
    return found if card.hash_bits is None else {**found, "hash": hash_codes(values)[0].tobytes().hex()}


def _box(text: str) -> Box:
    x1, y1, x2, y2 = (float(side) for side in text.split(","))
    if not (x1 < x2 and y1 < y2):
        raise ValueError(text)
    return x1, y1, x2, y2


_box.__name__ = "box x1,y1,x2,y2"  # argparse names it when a box cannot be read


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.embed", description="Embed one picture.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a file that training.train wrote")
    parser.add_argument(
        "--box", type=_box, metavar="X1,Y1,X2,Y2", help="the main body, in pixels; else the whole"
    )
    parser.add_argument("image", type=Path, help="a JPEG, PNG or WebP")
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(embed(given.checkpoint, given.image, given.box)))
    except (CheckpointRefused, ConfigRefused, ImageRefused, OSError) as error:
        print(f"{given.image}: {error}" if isinstance(error, ImageRefused) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
