"""The untrained embedder is what its card says: published weights, a fitted map, balanced bits, useful neighbours."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from demo_catalogue import list_products, more_products, render_reference
from recognition.embedder import open_embedder
from recognition.metrics import exact_search
from recognition.model_card import ModelFolder, load_model_folder
from recognition.sessions import SessionSettings
from training.export import ExportRefused, check_against_pytorch
from training.export_efficientnet_lite import (
    EfficientNetLiteEmbedder,
    LabelledCrops,
    export,
    fit_projection,
    reference_crops,
    scene_crops,
)
from training.models.efficientnet_lite import load_imagenet_trunk

FITTED_ON = 60  # products: fewer than by default, and enough for balanced bits
UNSEEN_SEED = 4711  # neither the fit's nor the card's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    out = tmp_path_factory.mktemp("untrained") / "embedder"
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr("training.export_efficientnet_lite.REFERENCE_SIZE", (128, 128))
        smaller.setattr("training.export_efficientnet_lite.SCENE_ROUNDS", 1)
        export("lite0", out, seed=0, n_products=FITTED_ON)
    return load_model_folder(out)


@pytest.fixture(scope="module")
def embedder(folder: ModelFolder) -> EfficientNetLiteEmbedder:
    """The PyTorch form: the package's weights, and the linear map as the graph holds it."""
    graph = onnx.load(folder.model_path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = EfficientNetLiteEmbedder(load_imagenet_trunk("lite0")).eval()
    for name, parameter in made.projection.named_parameters():
        parameter.data.copy_(torch.from_numpy(stored[f"projection.{name}"].copy()))
    return made


@pytest.fixture(scope="module")
def unseen() -> LabelledCrops:
    """Every third product of the demo catalogue: a studio picture, two others, and crops out of scenes."""
    products = list_products()[::3]
    alone = reference_crops(products, views=3, seed=UNSEEN_SEED)
    in_scenes = scene_crops(products, rounds=2, seed=UNSEEN_SEED)
    return LabelledCrops(alone.crops + in_scenes.crops, alone.labels + in_scenes.labels)


@pytest.fixture(scope="module")
def vectors(folder: ModelFolder, unseen: LabelledCrops) -> NDArray[np.float32]:
    return open_embedder(folder, SessionSettings()).embed(unseen.crops).vectors


def test_the_file_computes_what_pytorch_computes(
    folder: ModelFolder, embedder: EfficientNetLiteEmbedder, unseen: LabelledCrops
) -> None:
    assert check_against_pytorch(embedder, folder, unseen.crops[::9]) >= 0.9999


def test_a_file_that_computes_something_else_is_refused(
    folder: ModelFolder, embedder: EfficientNetLiteEmbedder, unseen: LabelledCrops
) -> None:
    other = EfficientNetLiteEmbedder(embedder.trunk).eval()
    with pytest.raises(ExportRefused, match="cosine"):
        check_against_pytorch(other, folder, unseen.crops[:2])


def test_the_file_names_no_place_on_the_machine_that_made_it(folder: ModelFolder) -> None:
    written = folder.model_path.read_bytes()
    assert b"site-packages" not in written


def test_bits_are_on_for_25_to_75_percent_of_generated_pictures(folder: ModelFolder) -> None:
    """Of so few pictures, chance alone carries a bit or two of 512 beyond."""
    crops = []
    for index, product in enumerate(more_products(100, UNSEEN_SEED)):
        scene = render_reference(product, view=index % 4, seed=UNSEEN_SEED, size=(128, 128))
        left, top, right, bottom = (round(edge) for edge in scene.items[0].box)
        crops.append(np.asarray(scene.image)[top:bottom, left:right])
    hash_codes = open_embedder(folder, SessionSettings()).embed(crops).hash_codes
    share_on = np.unpackbits(hash_codes, axis=1).mean(axis=0)
    assert ((share_on >= 0.25) & (share_on <= 0.75)).mean() > 0.98
    assert 0.15 <= share_on.min() <= share_on.max() <= 0.85


def test_a_products_pictures_are_nearer_to_each_other_than_to_other_shapes(
    vectors: NDArray[np.float32], unseen: LabelledCrops
) -> None:
    shapes = np.array([product.shape for product in list_products()[::3]])[unseen.labels]
    labels = np.array(unseen.labels)
    cosines = vectors @ vectors.T
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    other_shape = shapes[:, None] != shapes
    assert cosines[same].mean() > cosines[other_shape].mean() + 0.2
    nearest, _ = exact_search(vectors, vectors, 1, exclude=np.arange(len(vectors))[:, None])
    assert (shapes[nearest[:, 0]] == shapes).mean() > 0.8


def test_the_map_centres_and_favours_what_tells_products_apart() -> None:
    # Products differ along the first axis, pictures of one product along the second, which is ten times as wide.
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(50), 4)
    features = random.normal(5.0, 0.1, (200, 6))
    features[:, 0] += random.normal(0.0, 1.0, 50)[labels]
    features[:, 1] += random.normal(0.0, 10.0, 200)
    weight, bias = fit_projection(features, list(labels), dimension=2, shrinkage=0.0, seed=0)
    np.testing.assert_allclose((features @ weight.T + bias).mean(axis=0), 0.0, atol=1e-3)
    assert np.linalg.norm(weight[:, 0]) > 50 * np.linalg.norm(weight[:, 1])


def test_the_map_depends_on_its_seed_only() -> None:
    features = np.random.default_rng(1).normal(size=(40, 8))
    labels = [index // 2 for index in range(40)]
    first, again, other = (
        fit_projection(features, labels, dimension=4, shrinkage=0.5, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(first.T @ first, other.T @ other, rtol=1e-4, atol=1e-6)  # turned, not changed


def test_an_export_over_an_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="already"):
        export("lite0", tmp_path, seed=0)


def test_generated_crops_come_the_same_every_time_and_say_whom_they_show() -> None:
    products = more_products(7, UNSEEN_SEED)
    first, again = (scene_crops(products, rounds=1, seed=3) for _ in range(2))
    assert first.labels == again.labels
    assert all(np.array_equal(one, other) for one, other in zip(first.crops, again.crops, strict=True))
    assert set(first.labels) <= set(range(7))
