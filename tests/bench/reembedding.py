"""Bulk re-embedding beside what decoding and the embedder alone reach, and recognition while it goes on.

As a program, `python -m tests.bench.reembedding N`, it is the "alone": it decodes and embeds the first N reference
pictures as a bulk worker would, with no ledger, no Milvus and no job, and prints pictures a second.
"""

import csv
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from rich.progress import track

from tests.bench.asking import percentiles, recognise
from tests.live import REPOSITORY, LiveService, shipped_embedder

PICTURES_PER_PRODUCT = 10
# A phone's photo, scaled down as apps do.
SIDES = (1600, 1200)
IMPORTED_WITHIN_SECONDS = 3_600
ROUNDS = 2
# A till's pace: a client that asks without a pause measures its own queue.
PAUSE_SECONDS = 0.5
# A worker that computed for less than this share of so many seconds has nothing to do.
REST_SECONDS, REST_SHARE = 5.0, 0.05


def write_catalogue(folder: Path, n_pictures: int) -> Path:
    """A catalogue in the folder format, of invented products with so many real-size pictures, no two alike."""
    sources = sorted((REPOSITORY / "fixtures" / "demo_catalogue" / "images" / "gallery").glob("*.jpg"))
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (
        (folder / "products.csv").open("w", newline="") as products,
        (folder / "gallery.csv").open("w", newline="") as gallery,
    ):
        product_rows, picture_rows = csv.writer(products), csv.writer(gallery)
        product_rows.writerow(["sku", "name", "price", "currency"])
        picture_rows.writerow(["image", "sku", "x1", "y1", "x2", "y2"])
        for number in track(range(n_pictures), description="drawing pictures"):
            sku = f"BULK-{number // PICTURES_PER_PRODUCT}"
            if number % PICTURES_PER_PRODUCT == 0:
                product_rows.writerow([sku, sku, "1.00", "EUR"])
            source = (
                Image.open(sources[number % len(sources)])
                .convert("RGB")
                .resize(SIDES, Image.Resampling.BICUBIC)
            )
            grain = random.normal(0.0, 6.0, (SIDES[1], SIDES[0], 1))
            pixels = np.clip(np.asarray(source) + grain, 0, 255).astype(np.uint8)
            name = f"images/{number}.jpg"
            Image.fromarray(pixels).save(folder / name, quality=88)
            picture_rows.writerow([name, sku, 300, 100, 1_300, 1_100])
    return folder


def measure_reembedding(service: LiveService, folder: Path, n_pictures: int) -> dict[str, Any]:
    """Rate of a job beside that of its models alone, in turns; recognition at rest and beside a job, in turns."""
    imported = service.manage(
        "import_catalogue", str(write_catalogue(folder, n_pictures)), timeout=IMPORTED_WITHIN_SECONDS
    )
    imported.check_returncode()
    _wait(lambda: _is_embedded(service))
    _wait(lambda: _is_at_rest(service))
    embedder = service.install_again(shipped_embedder(), folder / "again")
    jobs, alone, calm, busy = [], [], [], []
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "tests.bench.reembedding", str(n_pictures)]
        bare = subprocess.run(
            command, cwd=REPOSITORY, env=_bulk(service), check=True, stdout=subprocess.PIPE, text=True
        )
        alone.append(float(bare.stdout))
        jobs.append(_Job(service, embedder).rate(n_pictures))
        calm += [_recognise(service) for _ in range(100)]
        job = _Job(service, embedder)
        while not job.is_ready():
            busy.append(_recognise(service))
        job.retire()
    calm_p95, busy_p95 = percentiles(calm)["p95"], percentiles(busy)["p95"]
    return {
        "pictures": n_pictures,
        "alone_per_s": statistics.median(alone),
        "job_per_s": statistics.median(jobs),
        "share": statistics.median(ours / bare for ours, bare in zip(jobs, alone, strict=True)),
        "calm_p95_ms": calm_p95,
        "busy_p95_ms": busy_p95,
        "slowdown": busy_p95 / calm_p95,
        "asked_meanwhile": len(busy),
    }


class _Job:
    """A generation that is being built; retired when its rate is known."""

    def __init__(self, service: LiveService, embedder: str) -> None:
        self.service = service
        self.generation = self._ask("POST", "", {"model": embedder, "index": "FLAT"})["id"]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(
            method,
            f"{self.service.url}/api/v1/generations{path}",
            headers=self.service.headers,
            json=body,
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()

    def n_embedded(self) -> int:
        """Pictures done so far."""
        done: int = self._ask("GET", f"/{self.generation}")["pictures"]["embedded"]
        return done

    def is_ready(self) -> bool:
        """It has all pictures, and was verified.

        Raises:
            RuntimeError: it never will be.
        """
        told = self._ask("GET", f"/{self.generation}")
        if told["state"] in ("failed", "cancelled") or told["pictures"]["failed"]:
            raise RuntimeError(
                f"found a generation that is {told['state']}: {told['failure']}, {told['pictures']}"
            )
        return bool(told["state"] == "ready")

    def rate(self, n_pictures: int) -> float:
        """Pictures a second over the last `n_pictures`, which came last: the demo's own, before them, are small."""
        wanted = sum(self._ask("GET", f"/{self.generation}")["pictures"].values())
        _wait(lambda: self.n_embedded() >= wanted - n_pictures, every=0.1)
        started, before = time.monotonic(), self.n_embedded()
        _wait(lambda: self.is_ready() or self.n_embedded() == wanted)
        seconds = time.monotonic() - started
        _wait(self.is_ready)
        self.retire()
        return (wanted - before) / seconds

    def retire(self) -> None:
        """Free what it holds."""
        self.service.manage("retire_generation", str(self.generation)).check_returncode()


def _recognise(service: LiveService) -> float:
    """Milliseconds of one answer, after a till's pause."""
    time.sleep(PAUSE_SECONDS)
    status, spent, answer = recognise(service)
    assert status == 201, answer
    return spent


def _is_embedded(service: LiveService) -> bool:
    said = service.manage("reconcile_gallery").stdout
    if not said:
        raise RuntimeError("reconcile_gallery said nothing")
    return "wait to be embedded" not in said


def _is_at_rest(service: LiveService) -> bool:
    """The bulk worker has nothing left to do of the import either, such as to fit thresholds."""

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in service.processes("bulk"))

    before = spent()
    time.sleep(REST_SECONDS)
    return spent() - before < REST_SHARE * REST_SECONDS


def _wait(holds: Callable[[], bool], *, every: float = 0.5) -> None:
    deadline = time.monotonic() + IMPORTED_WITHIN_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {IMPORTED_WITHIN_SECONDS} s")
        time.sleep(every)


def _bulk(service: LiveService) -> dict[str, str]:
    """The bulk worker's environment: it has threads of its own number."""
    return service.environ | {"THREADS_PER_WORKER": service.environ.get("BULK_THREADS", "1")}


def embed_alone(n: int) -> float:
    """Pictures a second of files, decoding, and the embedder; decoding in as many threads as the job's."""
    from backend.bootstrap import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from backend.catalogue.models import ReferenceImage
    from backend.gallery.enrolment import DECODING_THREADS, LARGEST_BATCH, STORED
    from backend.gallery.loading import get_embedder
    from backend.gallery.selectors import get_active_generation
    from recognition import images

    generation = get_active_generation()
    assert generation is not None
    embedder = get_embedder(generation.embedder)
    rows = list(ReferenceImage.objects.filter(product__sku__startswith="BULK-").order_by("pk")[:n])

    def prepare(row: ReferenceImage) -> Any:
        decoded = images.decode(Path(row.image.path).read_bytes(), STORED)
        return embedder.prepare(decoded.crop(images.as_box(row.box), generation.crop_margin))

    started = time.perf_counter()
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        waiting: deque[list[Future[Any]]] = deque()
        starts = deque(range(0, len(rows), LARGEST_BATCH))
        while starts or waiting:
            while starts and len(waiting) < 2:
                start = starts.popleft()
                waiting.append([pool.submit(prepare, row) for row in rows[start : start + LARGEST_BATCH]])
            embedder.embed_prepared([one.result() for one in waiting.popleft()])
    return len(rows) / (time.perf_counter() - started)


if __name__ == "__main__":
    print(embed_alone(int(sys.argv[1])))
