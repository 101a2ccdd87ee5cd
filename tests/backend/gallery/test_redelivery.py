"""The broker sends a task again while it is at work: a worker that is free gets it too, and there is one effect."""

import io
import os
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app
from django.core.files.base import ContentFile

from backend.catalogue.imports import IMPORT_KIND
from backend.catalogue.models import Product, ReferenceImage
from backend.gallery.reembedding import start_reembedding
from backend.jobs.models import Job, JobState
from backend.jobs.services import start_job
from tests import faults
from tests.backend.conftest import FLAT, assert_whole, candidate, database_url
from tests.backend.factories import make_picture

WORKERS = 3
PICTURES_EACH = 4
DONE_WITHIN_SECONDS = 600.0


@pytest.fixture
def worker_log(active, tmp_path: Path) -> Iterator[Path]:
    """Of a bulk worker of three processes, on the tests' own database and folders."""
    current_app.control.purge()  # what other tests have sent and nobody took
    environ = os.environ | {
        "DATABASE_URL": database_url(),
        "CHECKLANE_DATA": str(tmp_path),
        "THREADS_PER_WORKER": "1",
        "LOG_LEVEL": "INFO",
    }
    application = [sys.executable, "-m", "celery", "-A", "tests.backend.impatient_worker"]
    options = ["--without-mingle", "--without-gossip", "-Q", "bulk", "-c", str(WORKERS)]
    log = tmp_path / "worker.log"
    with log.open("wb") as sink:
        worker = subprocess.Popen([*application, "worker", *options], env=environ, stdout=sink, stderr=sink)
    yield log
    worker.terminate()
    worker.wait(60)
    current_app.control.purge()


def finished(job: Job, log: Path) -> Job:
    deadline = time.monotonic() + DONE_WITHIN_SECONDS
    while job.state in (JobState.QUEUED, JobState.RUNNING):
        assert time.monotonic() < deadline, log.read_text()[-5_000:]
        time.sleep(0.1)
        job.refresh_from_db()
    assert job.state == JobState.DONE, job.failures
    return job


def make_import(n_pictures: int) -> bytes:
    rows = [(number, f"P{number // PICTURES_EACH}") for number in range(n_pictures)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        skus = sorted({sku for _, sku in rows})
        archive.writestr("products.csv", "sku,name\n" + "".join(f"{sku},{sku}\n" for sku in skus))
        archive.writestr("gallery.csv", "image,sku\n" + "".join(f"{n}.jpg,{sku}\n" for n, sku in rows))
        for number, _ in rows:
            archive.writestr(f"{number}.jpg", make_picture(number))
    return buffer.getvalue()


@pytest.mark.faults
@pytest.mark.django_db(transaction=True)
def test_a_task_that_the_broker_sends_again_while_it_works_has_one_effect(
    active, better, worker_log, tmp_path, figure
):
    n_pictures = faults.REDELIVERED.now
    archive = ContentFile(make_import(n_pictures), name="shop.zip")
    imported = finished(start_job(kind=IMPORT_KIND, file=archive, asked_by="a test"), worker_log)
    assert imported.result == {
        "products": Product.objects.count(),
        "pictures": n_pictures,
        "pictures_already_there": 0,
    }
    assert ReferenceImage.objects.count() == n_pictures
    assert len(list((tmp_path / "media" / "reference").rglob("*.jpg"))) == n_pictures
    embedded = finished(start_reembedding(better, FLAT, asked_by="a test"), worker_log)
    assert (embedded.cursor, embedded.failed) == (n_pictures, 0)
    deadline = time.monotonic() + DONE_WITHIN_SECONDS
    while active.embeddings.exclude(state="embedded").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert_whole(active)
    assert_whole(candidate())
    received = Counter(re.findall(r"Task jobs\.run\[([0-9a-f-]+)\] received", worker_log.read_text()))
    again = sum(received.values()) - len(received)
    assert again > 0, received
    figure(f"{n_pictures} pictures; {len(received)} messages, sent again {again} times; one effect")
