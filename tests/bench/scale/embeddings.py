"""Embeddings of a catalogue that nobody has at hand: 100,000 products in families, at the angles of real pictures.

Made by NumPy rather than drawn around real ones: a set with enough products is not at hand, and a few hundred real
products with noise about each would give a few hundred dense clouds, in which any index looks good or bad for the
wrong reason. What is kept of real pictures are their angles. Measured with a trained embedder (EfficientNet-lite0, 160
pixels) on the 296 query pictures of the grocery catalogue, which it had not seen; beside them what is made here:

    mean cosine (standard deviation) of two pictures   measured        made
    of one product                                     0.79 (0.18)     0.78 (0.16)
    of two products of one family                      0.41 (0.25)     0.38 (0.18)
    of two families                                    0.02 (0.15)     0.00 (0.13)
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recognition.embedder import Embeddings

DIMENSION = 512
BITS = 512
PICTURES = 3  # of a product
FAMILY = 20  # products
QUERIES = 500

# Variances beside that of a family: of its products, and of a product's pictures, each drawn anew for each of them:
# some products are nearly twins, some pictures nearly useless.
_OF_PRODUCTS, _SPREAD_OF_PRODUCTS = 0.8, 1.2
_OF_PICTURES, _SPREAD_OF_PICTURES = 0.35, 1.2
# The i-th direction has a variance of i ** -DECAY: two families are as far from a right angle as real ones are.
_DECAY = 0.9


@dataclass(frozen=True)
class Catalogue:
    """Rows of a gallery, and pictures to search for.

    Attributes:
        gallery: of row r the picture r + 1; its first N rows are a whole gallery of N.
        queries: further pictures of products; every one has pictures among the first `smallest` rows.
        query_products: the product of each query.
    """

    gallery: Embeddings
    queries: Embeddings
    query_products: NDArray[np.int64]


def product_of(row: int) -> int:
    """The product, from 1, that a row's picture shows."""
    return row // PICTURES + 1


def make_catalogue(n: int, smallest: int, seed: int = 0) -> Catalogue:
    """n embeddings and QUERIES queries; the same for the same arguments, and the first rows the same for any n.

    Args:
        n: embeddings.
        smallest: rows of the smallest gallery; the queries show products of it.
    """
    directions, spectrum = _directions(seed)
    gallery = np.empty((n, DIMENSION), np.float32)
    rows_of_family = FAMILY * PICTURES
    for family in range(-(-n // rows_of_family)):
        rows = slice(family * rows_of_family, min((family + 1) * rows_of_family, n))
        pictures = _pictures_of_family(family, spectrum, seed)[:, :PICTURES].reshape(-1, DIMENSION)
        gallery[rows] = pictures[: rows.stop - rows.start]
    products = np.random.default_rng((seed, 2)).integers(1, smallest // PICTURES + 1, size=QUERIES)
    return Catalogue(_embedded(gallery, directions), make_queries(products, seed), products)


def make_queries(products: NDArray[np.int64], seed: int = 0) -> Embeddings:
    """A further picture of each product, which no gallery holds.

    Args:
        products: numbers from 1, as `product_of` gives them.
    """
    directions, spectrum = _directions(seed)
    pictures = [
        _pictures_of_family(number // FAMILY, spectrum, seed)[number % FAMILY, PICTURES]
        for number in products - 1
    ]
    return _embedded(np.stack(pictures), directions)


@cache
def _directions(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A rotation (D, D), since an embedder's axes mean nothing, and the standard deviation along each direction."""
    random = np.random.default_rng((seed, 0))
    rotation = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    variance = np.arange(1, DIMENSION + 1) ** -_DECAY
    return rotation, np.sqrt(variance / variance.sum()).astype(np.float32)


def _pictures_of_family(family: int, spectrum: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """(FAMILY, PICTURES + 1, D), not yet turned or of norm 1; the last of each product's is a query's."""
    random = np.random.default_rng((seed, 1, family))

    def scale(variance: float, spread: float, *shape: int) -> NDArray[np.float32]:
        drawn = variance * np.exp(spread * random.standard_normal(shape, np.float32))
        root: NDArray[np.float32] = np.sqrt(drawn)[..., None]
        return root

    centre = random.standard_normal(DIMENSION, np.float32)
    products = centre + scale(_OF_PRODUCTS, _SPREAD_OF_PRODUCTS, FAMILY) * random.standard_normal(
        (FAMILY, DIMENSION), np.float32
    )
    own = scale(_OF_PICTURES, _SPREAD_OF_PICTURES, FAMILY, PICTURES + 1) * random.standard_normal(
        (FAMILY, PICTURES + 1, DIMENSION), np.float32
    )
    return (products[:, None] + own) * spectrum


def _embedded(values: NDArray[np.float32], directions: NDArray[np.float32]) -> Embeddings:
    """Turned and of norm 1, with the signs along a second rotation as hash code: it keeps the angles, as a trained
    hash layer does."""
    for start in range(0, len(values), 10_000):  # in place: the largest of all is held once
        block = values[start : start + 10_000] @ directions
        values[start : start + 10_000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    hashing = _directions(1)[0]
    codes = [
        np.packbits(values[start : start + 10_000] @ hashing > 0, axis=1)
        for start in range(0, len(values), 10_000)
    ]
    return Embeddings(values, np.concatenate(codes))
