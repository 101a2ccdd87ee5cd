"""What lies behind the figures: which products come first, and what is said to be taken for what."""

import numpy as np
import pytest

from backend.evaluation import details
from backend.evaluation.details import Asked, describe_details
from backend.evaluation.embedding import EmbeddedPictures
from backend.evaluation.open_set import get_searched
from backend.evaluation.pictures import Picture
from backend.evaluation.task import Task
from recognition.embedder import Embeddings
from recognition.metrics import exact_search
from tests.backend.factories import make_picture

pytestmark = pytest.mark.django_db


def asked(
    gallery: list[int], vectors: list[list[float]], query: list[int], queries: list[list[float]]
) -> Asked:
    """Pictures of products by number, with embeddings of length 1."""
    both = [
        (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32)
        for one in (np.array(vectors), np.array(queries))
    ]
    embedded = [Embeddings(one, np.zeros((len(one), 1), np.uint8)) for one in both]
    pictures = [
        EmbeddedPictures(
            tuple(
                Picture(file, row, f"{row}.jpg", f"P{product}", lambda: make_picture(1), None)
                for row, product in enumerate(products)
            ),
            tuple(str(row) for row in range(len(products))),
            tuple(str(row) for row in range(len(products))),
            of,
        )
        for file, products, of in (("gallery.csv", gallery, embedded[0]), ("query.csv", query, embedded[1]))
    ]
    task = Task(
        *embedded,
        skus=tuple(f"P{number}" for number in range(max(gallery) + 1)),
        gallery_products=np.array(gallery),
        query_products=np.array(query),
        own=np.full((len(query), 1), -1),
        known=np.ones(len(query), np.bool_),
        held_out=frozenset(),
        gallery_rows=np.arange(len(gallery)),
        query_rows=np.arange(len(query)),
    )
    found, _ = exact_search(both[1], both[0], len(gallery))
    return Asked(task, *pictures, found, get_searched(task, found, "float"))


def test_a_picture_that_two_products_share_is_taken_for_the_other() -> None:
    """Exactly as near, and listed first, stands the right one."""
    same = [1.0, 0.0]
    [pair] = describe_details(asked([0, 1, 1], [same, same, [0.0, 1.0]], [0], [same])).confusions
    assert (pair["sku"], pair["answered"]) == ("P0", "P1")
    [query] = describe_details(asked([0, 1, 1], [same, same, [0.0, 1.0]], [0], [same])).worst
    assert (query["sku"], query["answered"]) == ("P0", "P1")


def test_products_that_were_found_worst_come_before_those_that_nobody_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(details, "PRODUCTS_KEPT", 3)
    gallery = [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]
    vectors = np.eye(4)[gallery].tolist()
    found = describe_details(asked(gallery, vectors, [0, 1], [vectors[0], vectors[0]])).products
    assert [one["sku"] for one in found] == ["P1", "P0", "P2"]  # P2 has one picture, P3 needs nothing
