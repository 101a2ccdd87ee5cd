"""Make an embedder that no picture of a product trained, to measure trained ones by: EfficientNet-lite with ImageNet
weights, a linear map behind it.

    python -m training.export_efficientnet_lite --model lite2 --out DIR

No network is trained here. The published weights give 1280 pooled features, none of them ever negative: their
signs say nothing, and their cosines are all high. The linear map takes the mean off, weakens the directions in
which pictures of one product differ (pose, light, background), keeps the 512 leading ones and rotates them at
random, so that each sign is a bit that is on about half of the time. It is fitted on generated pictures of
invented products and on nothing else. The map and the pixels' normalisation are inside the ONNX graph.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from demo_catalogue import DemoProduct, list_products, more_products, render_reference, render_scene
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.errors import RecognitionError
from recognition.images import DecodedImage
from recognition.metrics import exact_hash_search, exact_search, recall_at_k
from recognition.model_card import EmbedderOutputs, ModelCard, ModelFolder, ModelInput, Resize
from recognition.sessions import SessionSettings
from training.export import (
    INPUT_NAME,
    NO_DIGEST,
    ExportRefused,
    export_folder,
    prepared_batches,
)
from training.models.efficientnet_lite import (
    FEATURE_CHANNELS,
    PACKAGES,
    PIXEL_MEAN,
    PIXEL_SCALE,
    CheckpointMismatch,
    EfficientNetLite,
    load_imagenet_trunk,
)

VERSION = "1"
DIMENSION = 512
INPUT_SIDE = 224
CROP_MARGIN = 0.0
MINIMUM_SIDE_PIXELS = 16

# The fit: so many invented products, each seen so often, view 0 in the studio and the others anywhere.
FIT_PRODUCTS = 400
FIT_VIEWS = 4
REFERENCE_SIZE = (400, 400)
# Share of an even spread mixed into the within-product scatter: less of it fits generated pictures better, more
# of it leaves directions alone that only look like noise there.
SHRINKAGE = 0.3

# The judgement: the demo catalogue, which the fit never saw.
GALLERY_VIEWS = 3
SCENE_PRODUCTS = 6
SCENE_ROUNDS = 3
LEAST_VISIBLE_SHARE = 0.6

N_PROOF = 16


class LabelledCrops(NamedTuple):
    """Crops (H, W, 3) uint8 RGB of main bodies, and for each the number of the product it shows."""

    crops: list[NDArray[np.uint8]]
    labels: list[int]


class EfficientNetLiteEmbedder(nn.Module):
    """Raw pixels to embeddings: normalisation, trunk, mean pooling, linear map."""

    def __init__(self, trunk: EfficientNetLite, dimension: int = DIMENSION) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = nn.Linear(FEATURE_CHANNELS, dimension)

    def pooled_features(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (N, 3, H, W) in RGB to (N, 1280)."""
        return self.trunk.pooled_features((pixels.float() - PIXEL_MEAN) / PIXEL_SCALE)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (N, 3, H, W) in RGB to embeddings (N, dimension) before L2 normalisation."""
        embedding: Tensor = self.projection(self.pooled_features(pixels))
        return embedding


def reference_crops(products: Sequence[DemoProduct], *, views: int, seed: int) -> LabelledCrops:
    """Draw each product alone, `views` times, and cut its main body out."""
    found = LabelledCrops([], [])
    for label, product in enumerate(products):
        for view in range(views):
            scene = render_reference(product, view=view, seed=seed, size=REFERENCE_SIZE)
            found.crops.append(_cut(np.asarray(scene.image), scene.items[0].box))
            found.labels.append(label)
    return found


def scene_crops(products: Sequence[DemoProduct], *, rounds: int, seed: int) -> LabelledCrops:
    """Draw checkout scenes in which each product lies `rounds` times, and cut out what is mostly visible."""
    random = np.random.default_rng(seed)
    label_of = {product.sku: label for label, product in enumerate(products)}
    found = LabelledCrops([], [])
    for _ in range(rounds):
        order = random.permutation(len(products))
        for start in range(0, len(order), SCENE_PRODUCTS):
            shown = [products[index] for index in order[start : start + SCENE_PRODUCTS]]
            scene = render_scene(shown, seed=int(random.integers(2**31)))
            for item in scene.items:
                if item.visible_share >= LEAST_VISIBLE_SHARE:
                    found.crops.append(_cut(np.asarray(scene.image), item.box))
                    found.labels.append(label_of[item.sku])
    return found


def _cut(pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    return DecodedImage(pixels, width, height, "PNG").crop(box, CROP_MARGIN)


def fit_projection(
    features: NDArray[np.float64], labels: Sequence[int], *, dimension: int, shrinkage: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit the linear map: centre, whiten within products, keep the leading directions, rotate.

    The learned whitening of Mikolajczyk and Matas, "Improving Descriptors for Fast Tree Matching by Optimal
    Linear Projection" (2007), as Radenović, Tolias and Chum use it in "Fine-tuning CNN Image Retrieval with No
    Human Annotation" (2018); ours shrinks the within-product covariance towards a multiple of the identity. The
    random rotation spreads what the leading directions say evenly over all signs (Gong and Lazebnik, "Iterative
    Quantization", 2011, start from it).

    Args:
        features: (N, C), N well above C.
        labels: product of each row.
        dimension: of the embedding, at most C.
        shrinkage: 0 to 1; at 1 the map is a plain principal component analysis.
        seed: of the rotation.
    Returns:
        Weight (dimension, C) and bias (dimension,) of `weight @ feature + bias`, whose mean over `features` is 0.
    """
    mean = features.mean(axis=0)
    centred = features - mean
    _, rows = np.unique(np.asarray(labels), return_inverse=True)
    sums = np.zeros((rows.max() + 1, features.shape[1]))
    np.add.at(sums, rows, centred)
    within = centred - (sums / np.bincount(rows)[:, None])[rows]
    scatter = within.T @ within / len(within)
    even = np.eye(len(scatter)) * np.trace(scatter) / len(scatter)
    variances, axes = np.linalg.eigh((1 - shrinkage) * scatter + shrinkage * even)
    whiten = axes / np.sqrt(variances) @ axes.T
    _, directions = np.linalg.eigh(np.cov(centred @ whiten, rowvar=False))  # ascending
    leading = whiten @ directions[:, ::-1][:, :dimension]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))
    weight = (leading @ rotation).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def fit(embedder: EfficientNetLiteEmbedder, fitted_on: LabelledCrops, card: ModelCard, *, seed: int) -> None:
    """Set the embedder's linear map from what its own trunk says of generated crops."""
    with torch.inference_mode():
        features = torch.cat(
            [embedder.pooled_features(batch) for batch in prepared_batches(fitted_on.crops, card)]
        )
    weight, bias = fit_projection(
        features.double().numpy(), fitted_on.labels, dimension=DIMENSION, shrinkage=SHRINKAGE, seed=seed
    )
    with torch.no_grad():
        embedder.projection.weight.copy_(torch.from_numpy(weight))
        embedder.projection.bias.copy_(torch.from_numpy(bias))


def describe_accuracy(embedder: ProductEmbedder, seed: int) -> str:
    """Recall@1 of the demo catalogue's products in generated checkout scenes, by float and by hash search."""
    products = list_products()
    gallery = reference_crops(products, views=GALLERY_VIEWS, seed=seed)
    query = scene_crops(products, rounds=SCENE_ROUNDS, seed=seed)
    gallery_labels, query_labels = np.array(gallery.labels), np.array(query.labels)
    known, asked = embedder.embed(gallery.crops), embedder.embed(query.crops)
    recalls = []
    for found, _ in (
        exact_search(asked.vectors, known.vectors, 1),
        exact_hash_search(asked.hash_codes, known.hash_codes, 1),
    ):
        recalls.append(recall_at_k(gallery_labels[found] == query_labels[:, None], 1))
    return (
        f"recall@1 {recalls[0]:.3f} float, {recalls[1]:.3f} hash: {len(query.crops)} crops out of generated "
        f"checkout scenes, true boxes, against {GALLERY_VIEWS} reference images each of the demo catalogue's "
        f"{len(products)} products"
    )


def describe(model: str, seed: int, n_products: int) -> ModelCard:
    """The card of the embedder, but for its file's SHA-256 and accuracy."""
    package, _ = PACKAGES[model]
    side = INPUT_SIDE
    return ModelCard(
        name=f"efficientnet-{model}-imagenet",
        version=VERSION,
        task="embedder",
        sha256=NO_DIGEST,
        input=ModelInput(INPUT_NAME, side, side, "NCHW", "uint8", "RGB", normalisation_in_graph=True),
        resize=Resize("bilinear", antialias=True, keep_aspect=True),
        provider="openvino",
        precision="fp32",
        outputs=EmbedderOutputs("embedding", "embedding"),
        licence="Apache-2.0",
        origin=(
            f"EfficientNet-{model} by Google (github.com/tensorflow/tpu, models/official/efficientnet/lite), "
            f"converted by ML Illustrated (PyPI {package.replace('_', '-')} {version(package)}); "
            "linear map by Checklane"
        ),
        trained_on=(
            f"ImageNet-1k (trunk); {n_products * FIT_VIEWS} generated pictures of {n_products} invented "
            "products (linear map)"
        ),
        seed=seed,
        command=f"python -m training.export_efficientnet_lite --model {model} --seed {seed}",
        accuracy="not measured yet",
        dimension=DIMENSION,
        hash_bits=DIMENSION,
        hash_method="sign",
        crop_margin=CROP_MARGIN,
        minimum_side_pixels=MINIMUM_SIDE_PIXELS,
    )


def export(model: str, out: Path, seed: int, n_products: int = FIT_PRODUCTS) -> ModelCard:
    """Fit, write, prove and only then give the folder its name.

    Args:
        model: a key of PACKAGES.
        out: the model folder to make; it must not be there yet.
        seed: of the generated pictures and of the rotation.
        n_products: to invent, for the map to be fitted on.
    Raises:
        ExportRefused: `out` exists, or the file does not do what its PyTorch form does.
    """
    if out.exists():
        raise ExportRefused(f"{out} is there already; remove it or name another folder.")
    card = describe(model, seed, n_products)
    embedder = EfficientNetLiteEmbedder(load_imagenet_trunk(model)).eval()
    print(f"drawing {n_products * FIT_VIEWS} pictures and fitting the linear map ...")
    fitted_on = reference_crops(more_products(n_products, seed), views=FIT_VIEWS, seed=seed)
    fit(embedder, fitted_on, card, seed=seed)

    pictures = fitted_on.crops[:: len(fitted_on.crops) // N_PROOF]

    def measure(folder: ModelFolder) -> str:
        return describe_accuracy(open_embedder(folder, SessionSettings()), seed)

    return export_folder(embedder, card, pictures, out, measure=measure)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export_efficientnet_lite", description=__doc__)
    parser.add_argument("--model", choices=sorted(PACKAGES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to make")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        card = export(options.model, options.out, options.seed)
    except (ExportRefused, CheckpointMismatch, RecognitionError) as refused:
        sys.exit(f"refused: {refused}")
    print(f"{options.out}: {card.name} {card.version}, {card.accuracy}")


if __name__ == "__main__":
    main(sys.argv[1:])
