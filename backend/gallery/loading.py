"""Installed models as running sessions, one of each a process, and the Milvus gallery of a generation.

What is kept here for a generation that is gone goes too (`forget_all_but`), without a restart.
"""

import threading
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

from django.conf import settings

from backend.gallery.models import Generation, InstalledModel
from recognition.detector import MainBodyDetector, open_detector
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.gallery import Gallery, IndexSettings
from recognition.model_card import ModelCard, load_model_folder
from recognition.sessions import SessionSettings

# As many as live side by side: active, standing by, ready, being built.
KEPT_MODELS = 4
KEPT_GALLERIES = 8
# Whoever has many queries asks with so many a call, which has no longer than a photo's.
QUERIES_A_CALL = 10
# Entries read back together: a read waits a fifth of a second for all writes before it, however few it wants.
FETCHED_A_CALL = 500

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Kept(Generic[Key, Value]):
    """The values made last, by their keys; made once, whatever threads ask. Functools' caches let nothing go by key."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._values: dict[Key, Value] = {}
        self._making = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        with self._making:
            value = self._values.pop(key) if key in self._values else make()
            self._values[key] = value  # the newest is the last
            for oldest in list(self._values)[: -self._at_most]:
                del self._values[oldest]
            return value

    def forget_unless(self, wanted: Callable[[Key], bool]) -> None:
        with self._making:
            self._values = {key: value for key, value in self._values.items() if wanted(key)}


_embedders: _Kept[tuple[int, str, int], ProductEmbedder] = _Kept(KEPT_MODELS)
_detectors: _Kept[tuple[int, str, int], MainBodyDetector] = _Kept(KEPT_MODELS)
_galleries: _Kept[tuple[str, int, int, tuple[tuple[str, object], ...]], Gallery] = _Kept(KEPT_GALLERIES)


def get_embedder(model: InstalledModel, threads: int | None = None) -> ProductEmbedder:
    """The embedder, loaded and warmed at its first use in this process.

    Raises:
        ModelRefused: file and card differ, or the provider that the card names is not to be had.
    """
    threads = threads or settings.THREADS_PER_WORKER
    return _embedders.get(
        (model.pk, str(model.folder), threads),
        lambda: open_embedder(load_model_folder(model.folder), SessionSettings(threads=threads)),
    )


def get_detector(model: InstalledModel, threads: int | None = None) -> MainBodyDetector:
    """The detector, loaded and warmed at its first use in this process; errors as `get_embedder`."""
    threads = threads or settings.THREADS_PER_WORKER
    return _detectors.get(
        (model.pk, str(model.folder), threads),
        lambda: open_detector(load_model_folder(model.folder), SessionSettings(threads=threads)),
    )


def get_gallery(generation: Generation) -> Gallery:
    """The generation's collections; connects at first use, so that it is made after a worker forks."""
    card = ModelCard.from_dict(generation.embedder.card)
    dimension, hash_bits = card.dimension or 0, card.hash_bits or 0
    index = IndexSettings.from_dict(generation.index)
    return _galleries.get(
        (generation.collection, dimension, hash_bits, tuple(sorted(generation.index.items()))),
        lambda: Gallery(
            settings.MILVUS_URI,
            name=generation.collection,
            dimension=dimension,
            hash_bits=hash_bits,
            index=index,
            token=settings.MILVUS_TOKEN,
            timeout_seconds=settings.MILVUS_TIMEOUT_SECONDS,
        ),
    )


def forget_all_but(generations: Collection[Generation]) -> None:
    """Let go of embedders and galleries that none of these generations uses."""
    embedders = {generation.embedder_id for generation in generations}
    collections = {generation.collection for generation in generations}
    _embedders.forget_unless(lambda key: key[0] in embedders)
    _galleries.forget_unless(lambda key: key[0] in collections)
