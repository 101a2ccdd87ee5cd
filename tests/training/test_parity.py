"""The networks compute what upstream's compute: the same weights and input give upstream's stored output.

The weights come from seeds on both sides (`tests.training.seeded_weights`), so the full-size networks are compared
though nobody stores them. `data/make_references.py` made the outputs.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from recognition.images import model_input
from recognition.model_card import Resize
from tests.training.published_weights import DATA, REFERENCES, weights_of
from tests.training.seeded_weights import fingerprint, seeded_array, seeded_input, seeded_picture
from training.export import cosines
from training.import_paddle import PUBLISHED, describe, load_published
from training.models.embedder import EmbedderModel
from training.models.heads import ArcMargin, CircleMargin, CosMargin, MarginHead
from training.models.picodet import PicoDet, decode

WEIGHTS_FILE = DATA / "pplcnet_x0_25.pdparams"

# Reduced forms: reference, model, scale. All other references are full-size.
REDUCED = {"pplcnetv2_x0_25": ("pplcnetv2_base", 0.25)}
SMALL_DETECTOR = "picodet_lcnet_x0_25"
DETECTOR = "picodet_lcnet_x2_5_640_mainbody"
EMBEDDERS = [*(name for name in PUBLISHED if name != DETECTOR), *REDUCED]


def seeded_network(reference: str) -> nn.Module:
    """The network with the weights that the reference was computed with."""
    model, scale = REDUCED.get(reference, (reference, None))
    if reference == SMALL_DETECTOR:
        model, scale = DETECTOR, 0.25
    weights = weights_of(reference)
    assert fingerprint(weights) == str(REFERENCES[f"{reference}/weights"]), "NumPy's seeds give other numbers"
    published = PUBLISHED[model]
    network = published.build(published.scale if scale is None else scale, weights).eval()
    load_published(network, published, weights)
    return network


def prepared_picture(network: nn.Module, model: str, width: int, height: int) -> torch.Tensor:
    """The seeded picture as the imported card says it is to be resized and normalised."""
    card = describe(model, network, WEIGHTS_FILE, scale=None, side=None, version="1")
    card = replace(card, input=replace(card.input, width=width, height=height))
    assert card.resize == Resize(
        "bilinear" if card.task == "embedder" else "bicubic", antialias=False, keep_aspect=False
    )
    return torch.from_numpy(model_input(seeded_picture(), card)[None])


def largest_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """As a share of the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("reference", EMBEDDERS)
def test_an_embedder_gives_upstreams_numbers(reference: str) -> None:
    network = seeded_network(reference)
    assert isinstance(network, EmbedderModel)
    model = REDUCED.get(reference, (reference,))[0]
    wanted, on_picture = REFERENCES[f"{reference}/normalised"], REFERENCES[f"{reference}/picture"]
    with torch.inference_mode():
        found = network.embed(torch.from_numpy(seeded_input(2, 224, 224))).numpy()
        found_on_picture = network.embed(prepared_picture(network, model, 224, 224)).numpy()
    assert cosines(found, wanted).min() >= 0.99999
    assert largest_difference(found, wanted) < 1e-4
    # The two crops really differ, and their difference is upstream's too.
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05 * np.abs(wanted).max()
    assert cosines(found[:1] - found[1:], wanted[:1] - wanted[1:]).min() >= 0.99999
    assert cosines(found_on_picture, on_picture).min() >= 0.9999


@pytest.mark.parametrize(
    ("reference", "width", "height", "n_boxes"),
    [(DETECTOR, 640, 640, 8500), (SMALL_DETECTOR, 192, 128, 510)],
)
def test_a_detector_gives_upstreams_boxes_and_scores(
    reference: str, width: int, height: int, n_boxes: int
) -> None:
    """On the normalised tensor to 0.01 pixels and 1e-4. On a picture to 0.25 pixels and 0.002: OpenCV rounds one
    pixel in a hundred thousand of a bicubic resize to the next of 255.
    """
    network = seeded_network(reference)
    assert isinstance(network, PicoDet)
    with torch.inference_mode():
        boxes, scores = decode(network(torch.from_numpy(seeded_input(1, height, width))))
        boxes_on_picture, scores_on_picture = decode(
            network(prepared_picture(network, DETECTOR, width, height))
        )
    assert boxes.shape == (1, n_boxes, 4)
    assert np.abs(boxes.numpy() - REFERENCES[f"{reference}/normalised/boxes"]).max() < 0.01
    assert np.abs(scores.numpy() - REFERENCES[f"{reference}/normalised/scores"]).max() < 1e-4
    apart = np.abs(boxes_on_picture.numpy() - REFERENCES[f"{reference}/picture/boxes"])
    off = np.abs(scores_on_picture.numpy() - REFERENCES[f"{reference}/picture/scores"])
    assert apart.max() < 0.25
    assert off.max() < 2e-3


@pytest.mark.parametrize("head", [ArcMargin, CosMargin, CircleMargin])
def test_a_margin_gives_upstreams_logits(head: type[MarginHead]) -> None:
    made = head(16, n_classes=7)
    made.weight.data = torch.from_numpy(seeded_array("margin.head", (16, 7)).T.copy())
    embedding = torch.from_numpy(REFERENCES["margin/embedding"])
    labels = torch.from_numpy(REFERENCES["margin/labels"])
    for mode in ("train", "eval"):
        logits = getattr(made, mode)()(embedding, labels).detach().numpy()
        np.testing.assert_allclose(logits, REFERENCES[f"{head.__name__}/{mode}"], rtol=1e-4, atol=1e-4)
