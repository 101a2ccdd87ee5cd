"""ProductEmbedder: crops of main bodies -> L2-normalised embeddings and hash codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recognition.errors import ImageRefused, ModelRefused
from recognition.images import model_input
from recognition.model_card import EmbedderOutputs, ModelCard, ModelFolder
from recognition.sessions import ModelSession, SessionSettings, open_session

ModelInput = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True)
class Embeddings:
    """What the embedder says of N crops, row by row in their order.

    Attributes:
        vectors: the embeddings, (N, D) float32, each row of L2 norm 1.
        hash_codes: the hash codes, (N, bits // 8) uint8; the first value's bit is the most significant of the
            first byte.
    """

    vectors: NDArray[np.float32]
    hash_codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: slice | Sequence[int] | NDArray[np.intp]) -> "Embeddings":
        """These rows alone, in this order."""
        return Embeddings(self.vectors[rows], self.hash_codes[rows])

    @classmethod
    def concatenate(cls, parts: Sequence["Embeddings"]) -> "Embeddings":
        """The rows of one after another.

        Args:
            parts: at least one.
        """
        return cls(
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.hash_codes for part in parts]),
        )


class ProductEmbedder:
    """Embeds crops with one model. Threads may call `embed` at once."""

    def __init__(self, card: ModelCard, session: ModelSession) -> None:
        """
        Args:
            card: of an embedder.
            session: running its model.
        Raises:
            ModelRefused: the card is a detector's, or names no hash output.
        """
        outputs = card.outputs
        if not isinstance(outputs, EmbedderOutputs):
            raise ModelRefused(f"{card.name}: found a {card.task}'s card, wanted an embedder's.")
        if outputs.hash is None:
            raise ModelRefused(
                f"{card.name}: the card names no hash output, which the gallery needs; export one, "
                "or name the embedding itself, centred in the graph, with hash_method sign."
            )
        self.card = card
        self._session = session
        self._embedding_output = outputs.embedding
        self._hash_output = outputs.hash

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> Embeddings:
        """Embed crops of main bodies.

        Args:
            crops: RGB, each of shape (h, w, 3), any size.
        Returns:
            As many embeddings as crops; none for none.
        Raises:
            ImageRefused: too-small; a side of a crop is shorter than the card's minimum_side_pixels.
            ModelRefused: the model's outputs are not those of the card.
        """
        return self.embed_prepared([self.prepare(crop) for crop in crops])

    def prepare(self, crop: NDArray[np.uint8]) -> ModelInput:
        """A crop as the model takes it, which may be done ahead and in other threads.

        Args:
            crop: RGB, (h, w, 3), any size.
        Returns:
            (3, H, W), H and W the card's, of its dtype.
        Raises:
            ImageRefused: too-small; a side is shorter than the card's minimum_side_pixels.
        """
        self._refuse_small(crop)
        return model_input(crop, self.card)

    def embed_prepared(self, inputs: Sequence[ModelInput]) -> Embeddings:
        """Embed what `prepare` gave; returns and raises as `embed`, and refuses no picture.

        Args:
            inputs: each of shape (3, H, W).
        """
        dimension, bits = self.card.dimension or 0, self.card.hash_bits or 0
        if not inputs:
            return Embeddings(np.zeros((0, dimension), np.float32), np.zeros((0, bits // 8), np.uint8))
        outputs = self._session.run({self.card.input.name: np.stack(inputs)})
        values = self._output(
            outputs[self._embedding_output], self._embedding_output, (len(inputs), dimension)
        )
        hash_values = self._output(outputs[self._hash_output], self._hash_output, (len(inputs), bits))
        return Embeddings(_normalised(values), np.packbits(hash_values > 0, axis=1, bitorder="big"))

    def _refuse_small(self, crop: NDArray[np.uint8]) -> None:
        minimum = self.card.minimum_side_pixels
        height, width = crop.shape[:2]
        if min(height, width) < minimum:
            raise ImageRefused(
                "too-small",
                f"Found a main body of {width} x {height} pixels, wanted at least {minimum} a side: "
                "go nearer, or send a larger picture.",
            )

    def _output(self, found: NDArray[np.float32], name: str, wanted: tuple[int, int]) -> NDArray[np.float32]:
        if found.shape != wanted:
            raise ModelRefused(
                f"{self.card.name}: output {name} is {found.shape}, the card says {wanted}; correct the card."
            )
        return found.astype(np.float32, copy=False)


def open_embedder(folder: ModelFolder, settings: SessionSettings) -> ProductEmbedder:
    """Open an embedder and see that it gives what its card says.

    Raises:
        ModelRefused: it does not run as its card says.
    """
    embedder = ProductEmbedder(folder.card, open_session(folder, settings))
    side = folder.card.minimum_side_pixels
    embedder.embed([np.zeros((side, side, 3), np.uint8)])
    return embedder


def _normalised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of L2 norm 1. A row of zeros, which no picture gives, stays one instead of becoming not-a-number."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    normalised: NDArray[np.float32] = np.divide(values, np.maximum(norms, 1e-12), dtype=np.float32)
    return normalised
