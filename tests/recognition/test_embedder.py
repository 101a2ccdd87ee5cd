"""Embeddings are unit vectors and packed signs of what the model gives for each crop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition.embedder import ProductEmbedder, open_embedder
from recognition.errors import ImageRefused, ModelRefused
from recognition.images import model_input
from recognition.model_card import ModelCard, Provider
from recognition.sessions import SessionSettings, open_session
from tests.recognition.toy_models import detector_card, embedder_card, embedder_model, write_folder


class GivenOutputs:
    """A session that gives what it was told."""

    provider: Provider = "cpu"

    def __init__(self, **outputs: NDArray[np.float32]) -> None:
        self.outputs = outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.outputs


def crops(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 3 * i, 40 - i, 3), np.uint8) for i in range(count)]


def embedder_that_gives(**outputs: list[list[float]]) -> ProductEmbedder:
    arrays = {name: np.array(values, np.float32) for name, values in outputs.items()}
    dimension = arrays["embedding"].shape[1]
    card = embedder_card(dimension=dimension, hash_bits=dimension)
    if "hash" in arrays:
        card = card | {
            "outputs": {"embedding": "embedding", "hash": "hash"},
            "hash_bits": arrays["hash"].shape[1],
        }
    return ProductEmbedder(ModelCard.from_dict(card), GivenOutputs(**arrays))


def test_each_crop_gets_the_unit_vector_of_its_own_model_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, embedder_model(), embedder_card())
    embeddings = open_embedder(folder, SessionSettings(batch_sizes=(1, 2))).embed(crops(5))
    assert len(embeddings) == 5
    session = open_session(folder, SessionSettings(batch_sizes=(1,)))
    for vector, crop in zip(embeddings.vectors, crops(5), strict=True):
        alone = session.run({"image": model_input(crop, folder.card)[None]})["embedding"][0]
        assert vector == pytest.approx(alone / np.linalg.norm(alone), abs=1e-5)
    assert embeddings.vectors.dtype == np.float32
    ahead = open_embedder(folder, SessionSettings(batch_sizes=(1, 2)))
    prepared = ahead.embed_prepared([ahead.prepare(crop) for crop in crops(5)])
    assert np.array_equal(prepared.vectors, embeddings.vectors)
    assert np.array_equal(prepared.hash_codes, embeddings.hash_codes)
    assert np.linalg.norm(embeddings.vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_a_sign_hash_packs_the_first_value_into_the_most_significant_bit() -> None:
    # The bits by hand: above zero is 1, zero and below are 0; 1010 0000 and 0000 0011.
    values = [3.0, -1.0, 0.5, 0.0, -0.1, -2.0, -7.0, -0.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 0.1, 9.0]
    embeddings = embedder_that_gives(embedding=[values]).embed(crops(1))
    assert embeddings.hash_codes.dtype == np.uint8
    assert embeddings.hash_codes.tolist() == [[0b1010_0000, 0b0000_0011]]


def test_a_hash_output_of_its_own_gives_the_code() -> None:
    embeddings = embedder_that_gives(embedding=[[3.0, 4.0]], hash=[[-1.0] * 7 + [1.0]]).embed(crops(1))
    assert embeddings.vectors[0] == pytest.approx([0.6, 0.8])
    assert embeddings.hash_codes.tolist() == [[1]]


def test_a_row_of_zeros_stays_finite() -> None:
    assert embedder_that_gives(embedding=[[0.0] * 8]).embed(crops(1)).vectors.tolist() == [[0.0] * 8]


def test_no_crops_give_no_embeddings_of_the_right_width(tmp_path: Path) -> None:
    embedder = open_embedder(write_folder(tmp_path, embedder_model(), embedder_card()), SessionSettings())
    nothing = embedder.embed([])
    assert nothing.vectors.shape == (0, 16)
    assert nothing.hash_codes.shape == (0, 2)


def test_a_crop_below_the_cards_minimum_is_refused_with_both_sizes() -> None:
    embedder = embedder_that_gives(embedding=[[1.0] * 8])
    with pytest.raises(ImageRefused, match="40 x 7 pixels, wanted at least 8") as refused:
        embedder.embed([np.zeros((7, 40, 3), np.uint8)])
    assert refused.value.code == "too-small"


def test_a_card_of_another_dimension_is_refused_when_the_model_is_opened(tmp_path: Path) -> None:
    card = embedder_card(dimension=32, hash_bits=32)
    with pytest.raises(ModelRefused, match=r"output embedding is \(1, 16\), the card says \(1, 32\)"):
        open_embedder(write_folder(tmp_path, embedder_model(), card), SessionSettings())


def test_a_card_without_a_hash_output_is_refused() -> None:
    card = ModelCard.from_dict(embedder_card())
    without = replace(
        card,
        outputs=replace(card.outputs, hash=None),
        hash_bits=None,
        hash_method=None,  # type: ignore[type-var]
    )
    with pytest.raises(ModelRefused, match="no hash output"):
        ProductEmbedder(without, GivenOutputs())


def test_a_detectors_card_is_refused() -> None:
    with pytest.raises(ModelRefused, match="wanted an embedder's"):
        ProductEmbedder(ModelCard.from_dict(detector_card()), GivenOutputs())
