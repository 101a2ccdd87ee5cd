"""PostgreSQL has committed, and the process dies before Milvus has written, or before that is noted: real processes,
really killed there. The sweep brings both stores together."""

import multiprocessing
import os
import random
from itertools import cycle, islice
from pathlib import Path

import pytest
from django.utils import timezone

from backend.catalogue.models import ReferenceImage
from backend.gallery.agreement import find_drift
from backend.gallery.enrolment import count_waiting
from backend.gallery.models import Embedding, EmbeddingState
from backend.gallery.tasks import sweep_gallery_task
from tests import faults
from tests.backend.conftest import assert_whole, database_url

WAITS_SECONDS = 60.0


@pytest.fixture
def processes(tmp_path: Path, active, monkeypatch) -> multiprocessing.context.ForkServerContext:
    """Processes on the tests' own database and folders, which import our code once for all of them."""
    for name, value in {
        "DJANGO_SETTINGS_MODULE": "backend.settings",
        "DATABASE_URL": database_url(),
        "CHECKLANE_DATA": str(tmp_path),
        "PYTHONPATH": os.getcwd(),
    }.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.backend.gallery.dying_worker"])
    return context


@pytest.mark.faults
@pytest.mark.django_db(transaction=True)
def test_killed_between_the_stores_it_ends_at_no_drift(active, pictures, processes, figure):
    from tests.backend.gallery import dying_worker

    deaths = list(islice(cycle(dying_worker.DEATHS), faults.KILLS_BETWEEN_STORES.now))
    for seed, death in enumerate(deaths, start=1_000):
        chosen = random.choice(list(ReferenceImage.objects.values_list("pk", flat=True)))
        ours, theirs = processes.Pipe(duplex=False)
        worker = processes.Process(target=dying_worker.work, args=(death, chosen, seed, theirs))
        worker.start()
        theirs.close()
        assert ours.poll(WAITS_SECONDS), f"{death}: the worker did not get there"
        pk = ours.recv()
        worker.kill()
        worker.join()
        assert worker.exitcode == -9
        # What it was at is held, and nobody has noted it as done.
        held = active.embeddings.get(reference_image_id=pk)
        assert held.lease_until is not None, death
        assert held.state in (EmbeddingState.PENDING, EmbeddingState.REMOVING), death
        Embedding.objects.update(lease_until=timezone.now())  # the minutes until its lease runs out
        sweep_gallery_task()
        assert count_waiting(active) == 0
        found = find_drift(active)
        assert found.n_drift == 0, f"{death}: {found.describe()}"
    assert_whole(active)
    figure(f"{len(deaths)} processes killed there; 0 drift after each sweep")
