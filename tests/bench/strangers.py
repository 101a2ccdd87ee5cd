"""Embeddings that look like nothing on earth, to fill a gallery up with."""

from collections.abc import Sequence

import numpy as np

from recognition.gallery import Entry, Gallery
from tests.bench.milvus import INDEX_SECONDS

ENTRIES_AT_ONCE = 1_000


def add_strangers(gallery: Gallery, products: Sequence[int], *, first_id: int) -> None:
    """Write an entry for each product named, of pictures from `first_id` on, and wait until all are indexed.

    Args:
        products: the id of each entry's product; one that comes five times has five pictures.
    """
    random = np.random.default_rng(0)
    for start in range(0, len(products), ENTRIES_AT_ONCE):
        of = products[start : start + ENTRIES_AT_ONCE]
        vectors = random.standard_normal((len(of), gallery.dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        codes = np.packbits(vectors > 0, axis=1)[:, : gallery.hash_bits // 8]
        gallery.upsert(
            [
                Entry(first_id + start + row, product, 1, vectors[row], codes[row])
                for row, product in enumerate(of)
            ]
        )
    gallery.flush()
    print(gallery.wait_indexed(INDEX_SECONDS).describe())
