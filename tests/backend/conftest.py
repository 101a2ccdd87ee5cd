"""Generations of a small embedder, in collections that the tests share."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from backend.catalogue.models import ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.gallery import generations, services
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_gallery
from backend.gallery.models import EmbeddingState, Generation, InstalledModel
from backend.gallery.selectors import get_active_generation
from backend.jobs import services as jobs
from backend.jobs.models import Job, JobState
from recognition.gallery import Gallery, IndexSettings
from tests.backend.factories import make_picture, make_product
from tests.recognition.toy_models import embedder_card, embedder_model, write_folder

N_PICTURES = 12
FLAT = IndexSettings(type="FLAT")
COLLECTION = f"test_gallery_{uuid4().hex}"


@pytest.fixture(scope="session")
def dropped_at_the_end() -> Iterator[dict[str, Gallery]]:
    """Creating a collection costs seconds, so all tests use the same ones."""
    used: dict[str, Gallery] = {}
    yield used
    for gallery in used.values():
        gallery.drop()


@pytest.fixture
def shared_collections(settings, tmp_path: Path, monkeypatch, dropped_at_the_end) -> None:
    """Generations get the collections of earlier tests, emptied: by embedder, the n-th of this test the n-th."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MODELS_ROOT = tmp_path / "models"
    opened: dict[str, int] = defaultdict(int)

    def name_of(embedder: InstalledModel) -> str:
        name = f"{COLLECTION}_{embedder.name}_{opened[embedder.name]}".replace("-", "_")
        opened[embedder.name] += 1
        return name

    monkeypatch.setattr(generations, "_collection_name", name_of)
    create = Gallery.create

    def create_empty(gallery: Gallery) -> None:
        known = dropped_at_the_end.get(gallery.name)
        if known is not None and known.exists() and known.index != gallery.index:
            known.drop()
        create(gallery)
        gallery.load()
        gallery.delete([pk for pk, _, _ in gallery.entries("float")])
        gallery.delete([pk for pk, _, _ in gallery.entries("hash")])
        dropped_at_the_end[gallery.name] = gallery

    monkeypatch.setattr(Gallery, "create", create_empty)


def install_toy(folder: Path, version: str = "1", seed: int = 0) -> InstalledModel:
    """A small embedder, of 16 dimensions; another seed makes another model."""
    write_folder(folder, embedder_model(seed=seed), embedder_card(version=version))
    return services.install_model(folder)


@pytest.fixture
def toy(db: None, shared_collections: None, tmp_path: Path) -> InstalledModel:
    return install_toy(tmp_path / "toy")


@pytest.fixture
def active(toy: InstalledModel) -> Generation:
    """The active generation, of the toy embedder, empty in both stores."""
    services.activate_model(toy, index=IndexSettings(type="FLAT"))
    generation = get_active_generation()
    assert generation is not None
    return generation


@pytest.fixture
def better(toy: InstalledModel, tmp_path: Path) -> InstalledModel:
    """Another embedder, to be switched to."""
    return install_toy(tmp_path / "better", version="2", seed=1)


def entries_of(generation: Generation) -> dict[str, list[tuple[int, int]]]:
    """Picture ids and revisions that each collection of a generation holds; twice where it holds one twice."""
    gallery = get_gallery(generation)
    assert gallery.count("float") == len(list(gallery.entries("float")))
    return {
        kind: [(pk, revision) for pk, _, revision in gallery.entries(kind)]  # type: ignore[arg-type]
        for kind in ("float", "hash")
    }


@pytest.fixture
def pictures(active: Generation) -> list[ReferenceImage]:
    """Embedded in the active generation: two of each product."""
    found = [
        add_reference_image(
            product=make_product(f"P{number}"), data=make_picture(number), box=(10, 10, 110, 110)
        )
        for number in range(N_PICTURES // 2)
    ]
    found += [
        add_reference_image(
            product=image.product, data=make_picture(number, quality=60), box=(10, 10, 110, 110)
        )
        for number, image in enumerate(list(found))
    ]
    enrol(active)
    return found


def run(job: Job, turns: int = 1_000) -> Job:
    """Have a worker take its turns, as their messages would."""
    for _ in range(turns):
        jobs.run_job(str(job.pk))
        job.refresh_from_db()
        if job.state != JobState.RUNNING:
            return job
        Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())  # nobody waits in a test
    assert turns < 1_000, job.result
    return job


def candidate() -> Generation:
    """The newest generation."""
    generation = Generation.objects.select_related("embedder", "copied_from__embedder").first()
    assert generation is not None
    return generation


def wanted(generation: Generation) -> list[tuple[int, int]]:
    """What both collections are to hold."""
    return list(ReferenceImage.objects.order_by("pk").values_list("pk", "revision"))


def assert_whole(generation: Generation) -> None:
    held = entries_of(generation)
    assert held == {"float": wanted(generation), "hash": wanted(generation)}
    rows = generation.embeddings.order_by("reference_image_id")
    assert list(rows.values_list("reference_image_id", "revision")) == wanted(generation)
    assert set(rows.values_list("state", flat=True)) == {EmbeddingState.EMBEDDED}


def database_url() -> str:
    """Of the tests' own database, for other processes."""
    return os.environ["DATABASE_URL"].rsplit("/", 1)[0] + f"/{connection.settings_dict['NAME']}"
