"""An embedder's figures against their definition, query by query."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.runs import ONE_PROCESS
from training.data.faults import Faults
from training.data.pictures import Retrieval
from training.retrieval import hash_codes, normalised, search_figures


class Bare:
    """Pictures of which only the labels count."""

    def __init__(self, labels: NDArray[np.int64], first: int = 0) -> None:
        self.labels, self.first = labels, first
        self.classes = [str(label) for label in range(int(labels.max()) + 1)]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        raise NotImplementedError

    def where(self, index: int) -> str:
        return str(self.first + index)

    def identity(self, index: int) -> object:
        return self.first + index

    def check(self, faults: Faults) -> None: ...


def plain_figures(
    similarities: NDArray[np.float64],
    query: NDArray[np.int64],
    gallery: NDArray[np.int64],
    own: NDArray[np.intp],
) -> dict[str, float]:
    """Loops over queries: rank the gallery, look for the right product and average the precision."""
    hits = {1: 0, 5: 0}
    precisions = []
    for row, label in enumerate(query):
        order = [place for place in np.argsort(-similarities[row], kind="stable") if place != own[row]]
        products = list(dict.fromkeys(gallery[place] for place in order))
        for k in hits:
            hits[k] += label in products[:k]
        found, summed = 0, 0.0
        for rank, place in enumerate(order, start=1):
            if gallery[place] == label:
                found += 1
                summed += found / rank
        precisions.append(summed / max(found, 1))
    return {
        "recall@1": hits[1] / len(query),
        "recall@5": hits[5] / len(query),
        "mAP": float(np.mean(precisions)),
    }


@pytest.mark.parametrize("asks_itself", [False, True])
def test_figures_are_those_of_their_definition(asks_itself: bool) -> None:
    random = np.random.default_rng(3)
    gallery_labels = random.integers(12, size=300)
    gallery = random.normal(size=(300, 16)).astype(np.float32) + gallery_labels[:, None] / 8
    if asks_itself:
        pictures = Bare(gallery_labels)
        retrieval, query = Retrieval(pictures, pictures), gallery
    else:
        retrieval = Retrieval(Bare(random.integers(12, size=270), first=1000), Bare(gallery_labels))
        query = random.normal(size=(270, 16)).astype(np.float32) + retrieval.query_labels[:, None] / 8
    codes = (hash_codes(query), hash_codes(gallery))
    found = search_figures(query, gallery, retrieval, ONE_PROCESS, codes=codes)
    labels = (retrieval.query_labels, retrieval.gallery_labels, retrieval.own)
    cosines = (normalised(query) @ normalised(gallery).T).astype(np.float64)
    distances = [[np.bitwise_count(a ^ b).sum() for b in hash_codes(gallery)] for a in hash_codes(query)]
    wanted = plain_figures(cosines, *labels)
    wanted |= {
        f"hash_{name}": value
        for name, value in plain_figures(-np.array(distances, np.float64), *labels).items()
    }
    assert found == pytest.approx(wanted, abs=2e-3)


def test_a_hash_code_is_the_signs_most_significant_first() -> None:
    values = np.array([[1, -1, 0, 2, -3, -4, -5, 6]], np.float32)
    assert hash_codes(values).tolist() == [[0b10010001]]


def test_an_embedding_of_zeros_stays_one() -> None:
    assert normalised(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
