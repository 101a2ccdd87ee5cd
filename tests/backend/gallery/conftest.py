"""A generation of the shipped embedder, in collections that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from backend.gallery import generations, services
from backend.gallery.loading import get_gallery
from backend.gallery.models import Generation
from backend.gallery.selectors import get_active_generation
from recognition.gallery import Gallery

COLLECTION = f"test_gallery_{uuid4().hex}"


@pytest.fixture(scope="session")
def dropped_at_the_end() -> Iterator[list[Gallery]]:
    """Creating a collection costs seconds, so all tests use the same one."""
    used: list[Gallery] = []
    yield used
    for gallery in used[:1]:
        gallery.drop()


@pytest.fixture
def generation(
    db, settings, tmp_path: Path, monkeypatch, embedder_folder: Path, dropped_at_the_end: list[Gallery]
) -> Generation:
    """The active generation, empty in both stores."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MODELS_ROOT = tmp_path / "models"
    monkeypatch.setattr(generations, "_collection_name", lambda _: COLLECTION)
    services.activate_model(services.install_model(embedder_folder))
    generation = get_active_generation()
    assert generation is not None
    gallery = get_gallery(generation)
    gallery.delete([reference_image_id for reference_image_id, _, _ in gallery.entries()])
    dropped_at_the_end.append(gallery)
    return generation
