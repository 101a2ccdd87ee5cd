"""A generation of the shipped embedder."""

from pathlib import Path

import pytest

from backend.gallery import services
from backend.gallery.models import Generation
from backend.gallery.selectors import get_active_generation


@pytest.fixture
def generation(db, shared_collections, embedder_folder: Path) -> Generation:
    """The active generation, of the shipped embedder, empty in both stores."""
    services.activate_model(services.install_model(embedder_folder))
    generation = get_active_generation()
    assert generation is not None
    return generation
