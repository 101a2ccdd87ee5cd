"""Waiting until searches see what was written: soon, not at once (Bounded consistency)."""

import time
from collections.abc import Collection

import numpy as np

from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_gallery
from backend.gallery.models import EmbeddingState, Generation
from backend.gallery.thresholds import search_settings
from recognition.embedder import Embeddings

WITHIN_SECONDS = 15


def enrol_and_wait(generation: Generation) -> None:
    """Embed and remove what is pending, until searches find neither more nor less than the ledger says."""
    enrol(generation)
    rows = generation.embeddings.filter(state=EmbeddingState.EMBEDDED)
    wait_until_searched(generation, list(rows.values_list("reference_image_id", flat=True)))


def wait_until_searched(generation: Generation, ids: Collection[int]) -> None:
    """Until a search finds these entries and no others."""
    gallery = get_gallery(generation)
    anything = Embeddings(
        np.eye(1, gallery.dimension, dtype=np.float32), np.zeros((1, gallery.hash_bits // 8), np.uint8)
    )
    deadline = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < deadline:
        found = gallery.search(anything, search_settings(), limit=len(ids) + 100)[0]
        if {match.reference_image_id for match in found} == set(ids):
            return
        time.sleep(0.1)
    raise AssertionError(f"after {WITHIN_SECONDS} s {len(found)} entries are found, wanted {len(ids)}")
