"""How well an embedder's search does: pictures to embeddings, embeddings to recall and mAP, split over processes.

However many processes share the work, the figures are the same to the last bit: batches and blocks of queries are cut
as for one process, and each process takes every so many of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from recognition.metrics import (
    QUERIES_AT_ONCE,
    average_precision,
    exact_hash_search,
    exact_search,
    nearest_products,
    recall_at_k,
)
from recognition.model_card import ModelCard
from training.data.datasets import EvaluationDataset, Readable
from training.data.pictures import Retrieval
from training.distributed import Process, gathered
from training.models.embedder import EmbedderModel

RECALLS = (1, 5)


@torch.inference_mode()
def computed(
    compute: Callable[[Tensor], Tensor],
    source: Readable,
    card: ModelCard,
    process: Process,
    *,
    batch_size: int,
    workers: int = 0,
) -> NDArray[Any]:
    """What a network says of pictures, in full precision; every process has to call it, and each gets all.

    Args:
        compute: maps prepared pictures (N, 3, H, W), on the process' device, to (N, ...).
        source: the pictures.
        card: of the network: how pictures become its input.
        process: this one.
        batch_size: pictures at a time.
        workers: loader processes.
    Returns:
        (pictures, ...), in their order.
    """
    n_pictures = len(source)
    batches = [
        range(start, min(start + batch_size, n_pictures)) for start in range(0, n_pictures, batch_size)
    ]
    own = [list(batch) for batch in batches[process.rank :: process.count]]
    loader = DataLoader(EvaluationDataset(source, card), batch_sampler=own, num_workers=workers)
    said = {
        int(samples.picture[0]) // batch_size: compute(samples.pixels.to(process.device)).cpu().numpy()
        for samples in loader
    }
    together = {number: found for part in gathered(said) for number, found in part.items()}
    return np.concatenate([together[number] for number in range(len(batches))])


def normalised(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (N, D) of L2 norm 1; one of zeros stays."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(embeddings, np.maximum(lengths, 1e-12), dtype=np.float32)
    return unit


def hash_codes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The signs of values (N, bits), packed (N, bits // 8): above 0 is 1, the first bit the most significant."""
    return np.packbits(values > 0, axis=1, bitorder="big")


def search_figures(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    retrieval: Retrieval,
    process: Process,
    *,
    codes: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
) -> dict[str, float]:
    """Recall among the nearest products, and mAP over the whole gallery, by exact search.

    Args:
        query: embeddings of `retrieval.query`, (Q, D).
        gallery: embeddings of `retrieval.gallery`, (N, D).
        retrieval: what they show.
        process: this one; every process has to call it.
        codes: packed hash codes of queries and gallery, to search by them too.
    Returns:
        recall@1, recall@5 and mAP, each 0..1; with codes also hash_recall@1, hash_recall@5 and hash_mAP.
    """
    query, gallery = normalised(query), normalised(gallery)
    everything = len(gallery)

    def by_cosine(block: slice) -> NDArray[np.intp]:
        return exact_search(query[block], gallery, everything, retrieval.own[block, None])[0]

    figures = _figures(by_cosine, len(query), retrieval, process)
    if codes is not None:
        query_codes, gallery_codes = codes

        def by_hash(block: slice) -> NDArray[np.intp]:
            return exact_hash_search(
                query_codes[block], gallery_codes, everything, retrieval.own[block, None]
            )[0]

        found = _figures(by_hash, len(query), retrieval, process)
        figures |= {f"hash_{name}": value for name, value in found.items()}
    return figures


def _figures(
    search: Callable[[slice], NDArray[np.intp]], n_query: int, retrieval: Retrieval, process: Process
) -> dict[str, float]:
    # One more label than there are pictures: that of no row, -1, at the end.
    gallery_labels = np.append(retrieval.gallery_labels, -1)
    counts = np.bincount(
        retrieval.gallery_labels,
        minlength=1 + int(max(retrieval.query_labels.max(), retrieval.gallery_labels.max())),
    )
    right_products, precisions = {}, {}
    blocks = range(0, n_query, QUERIES_AT_ONCE)
    for start in blocks[process.rank :: process.count]:
        block = slice(start, start + QUERIES_AT_ONCE)
        labels, own = retrieval.query_labels[block], retrieval.own[block]
        shown = gallery_labels[search(block)]  # (B, N)
        n_relevant = counts[labels] - (gallery_labels[own] == labels)
        right_products[start] = nearest_products(shown, max(RECALLS)) == labels[:, None]
        precisions[start] = average_precision(shown == labels[:, None], n_relevant)
    right = _in_order(right_products)
    figures = {f"recall@{k}": recall_at_k(right.astype(np.bool_), k) for k in RECALLS}
    return {**figures, "mAP": float(_in_order(precisions).mean())}


def _in_order(blocks: dict[int, NDArray[np.bool_]] | dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The blocks of all processes, one after the other."""
    together = {start: block for part in gathered(blocks) for start, block in part.items()}
    return np.concatenate([together[start] for start in sorted(together)])


def evaluate_embedder(
    network: EmbedderModel,
    retrieval: Retrieval,
    card: ModelCard,
    process: Process,
    *,
    batch_size: int,
    workers: int = 0,
    hashes: bool = False,
) -> dict[str, float]:
    """Embed queries and gallery and judge the search; the network is left in the mode that it was in.

    Arguments and figures as for `computed` and `search_figures`.
    """
    was_training = network.training
    network.eval()

    def compute(pixels: Tensor) -> Tensor:
        embedding = network.embed(pixels)
        return torch.cat([embedding, network.hash_values(embedding)], dim=1)

    def embedded(side: Readable) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        found = computed(compute, side, card, process, batch_size=batch_size, workers=workers)
        return found[:, : network.dimension], hash_codes(found[:, network.dimension :])

    query = embedded(retrieval.query)
    gallery = query if retrieval.gallery is retrieval.query else embedded(retrieval.gallery)
    network.train(was_training)
    codes = (query[1], gallery[1]) if hashes else None
    return search_figures(query[0], gallery[0], retrieval, process, codes=codes)
