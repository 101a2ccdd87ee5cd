"""Installed models as running sessions, one of each a process, and the Milvus gallery of a generation."""

from functools import lru_cache

from django.conf import settings

from backend.gallery.models import Generation, InstalledModel
from recognition.detector import MainBodyDetector, open_detector
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.gallery import Gallery, IndexSettings
from recognition.model_card import ModelCard, load_model_folder
from recognition.sessions import SessionSettings

# An old and a new model side by side while a generation is switched.
KEPT = 2


def get_embedder(model: InstalledModel, threads: int | None = None) -> ProductEmbedder:
    """The embedder, loaded and warmed at its first use in this process.

    Raises:
        ModelRefused: file and card differ, or the provider that the card names is not to be had.
    """
    return _embedder(model.pk, str(model.folder), threads or settings.THREADS_PER_WORKER)


def get_detector(model: InstalledModel, threads: int | None = None) -> MainBodyDetector:
    """The detector, loaded and warmed at its first use in this process; errors as `get_embedder`."""
    return _detector(model.pk, str(model.folder), threads or settings.THREADS_PER_WORKER)


@lru_cache(maxsize=KEPT)
def _embedder(_pk: int, folder: str, threads: int) -> ProductEmbedder:
    return open_embedder(load_model_folder(folder), SessionSettings(threads=threads))


@lru_cache(maxsize=KEPT)
def _detector(_pk: int, folder: str, threads: int) -> MainBodyDetector:
    return open_detector(load_model_folder(folder), SessionSettings(threads=threads))


def get_gallery(generation: Generation) -> Gallery:
    """The generation's collections; connects at first use, so that it is made after a worker forks."""
    card = ModelCard.from_dict(generation.embedder.card)
    return _gallery(
        generation.collection, card.dimension, card.hash_bits, tuple(sorted(generation.index.items()))
    )


@lru_cache(maxsize=8)
def _gallery(
    collection: str, dimension: int, hash_bits: int, index: tuple[tuple[str, object], ...]
) -> Gallery:
    return Gallery(
        settings.MILVUS_URI,
        name=collection,
        dimension=dimension,
        hash_bits=hash_bits,
        index=IndexSettings.from_dict(dict(index)),
        token=settings.MILVUS_TOKEN,
        timeout_seconds=settings.MILVUS_TIMEOUT_SECONDS,
    )
