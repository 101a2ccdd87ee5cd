"""ProductEmbedder: crops of main bodies -> L2-normalised embeddings and hash codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
