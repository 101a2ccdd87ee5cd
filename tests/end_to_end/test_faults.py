"""What dies, hangs or gets lost while the service runs: callers learn it in time, and nothing has to be started again.

CHECKLANE_FAULT_ROUNDS repeats what depends on the moment (`make test-faults`).
"""

import io
import json
import os
import random
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP
from typing import Any
from uuid import uuid4

import psutil
import psycopg2
import pytest
import requests
from django.db import connections

from backend.checkout.recogniser import SILENCE_REMEMBERED_SECONDS
from backend.engines import embedded
from tests.backend.factories import make_picture
from tests.engines import DATA_DIR
from tests.live import LiveService

ROUNDS = int(os.environ.get("CHECKLANE_FAULT_ROUNDS", "1"))
# The promise is 2 s; machines that run tests are shared.
TOLD_WITHIN_SECONDS = 4.0
BACK_WITHIN_SECONDS = 90.0
PATIENCE_SECONDS = 10.0  # the setting's default


def engine_processes(name: str) -> list[psutil.Process]:
    """Of an embedded engine, its children behind it."""
    status = next(status for status in embedded.status(DATA_DIR) if status.name == name)
    engine = psutil.Process(status.pid)
    return [engine, *engine.children(recursive=True)]


@contextmanager
def killed(name: str) -> Iterator[None]:
    engine_processes(name)[0].kill()
    try:
        yield
    finally:
        assert embedded.ensure(DATA_DIR) == [name]


@contextmanager
def hung(name: str) -> Iterator[None]:
    """Stopped in the middle of whatever it does; its kernel goes on accepting connections for it."""
    processes = engine_processes(name)
    for process in processes:
        process.send_signal(SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(SIGCONT)


FAULTS = {"killed": killed, "hung": hung}
# The engine's name, and what /readyz and the problem call it.
ENGINES = {
    "postgres": ("postgresql", "PostgreSQL"),
    "valkey": ("broker", "the broker"),
    "milvus": ("milvus", "Milvus"),
}


@pytest.fixture(autouse=True)
def our_own_connections() -> Iterator[None]:
    """What this process has open is broken by a killed PostgreSQL too."""
    yield
    connections.close_all()


@pytest.fixture
def timed(recognise, query_images) -> Callable[[], tuple[requests.Response, float]]:
    """Send a photo; the answer and how many seconds it took."""

    def ask() -> tuple[requests.Response, float]:
        started = time.monotonic()
        answer = recognise(query_images[0])
        return answer, time.monotonic() - started

    return ask


def until(holds: Callable[[], Any], seconds: float = BACK_WITHIN_SECONDS) -> Any:
    """Ask again and again; what it said when it held."""
    deadline = time.monotonic() + seconds
    while not (said := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.25)
    return said


def query(service: LiveService, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(service.environ["DATABASE_URL"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def shell(service: LiveService, code: str) -> str:
    done = service.manage("shell", "-v", "0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pids(service: LiveService) -> dict[str, list[int]]:
    return {name: [process.pid for process in service.processes(name)] for name in ("web", "recognition")}


# --- engines ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_away_is_told_in_time_and_its_return_needs_no_restart(
    live_service, timed, engine, fault
):
    check, called = ENGINES[engine]
    until(lambda: timed()[0].status_code == 201)
    running = pids(live_service)
    with FAULTS[fault](engine):
        with ThreadPoolExecutor(
            6
        ) as pool:  # more than one worker is free for: none waits for those before it
            answers = list(pool.map(lambda _: timed(), range(6)))
        answers.append(timed())
        for answer, _ in answers:
            assert answer.status_code == 503, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert called in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) > 0
        assert max(seconds for _, seconds in answers) < TOLD_WITHIN_SECONDS
        ready = requests.get(f"{live_service.url}/readyz", timeout=10)
        assert (ready.status_code, ready.json()["checks"][check]) == (503, "does not answer")
        assert [name for name, state in ready.json()["checks"].items() if state == "does not answer"] == [
            check
        ]
        assert requests.get(f"{live_service.url}/healthz", timeout=10).status_code == 200
    until(lambda: requests.get(f"{live_service.url}/readyz", timeout=10).ok)
    if check == "milvus":
        # It answers before it can search. A worker that waited in vain refuses photos for a second more.
        time.sleep(SILENCE_REMEMBERED_SECONDS)
        assert timed()[0].status_code == 201
    until(lambda: timed()[0].status_code == 201)

    def all_is_well() -> bool:
        """With whatever connections the web process' threads held."""
        with ThreadPoolExecutor(6) as pool:
            statuses = {answer.status_code for answer, _ in pool.map(lambda _: timed(), range(24))}
        # Callers who went away while the broker hung hold their places until their patience is over.
        assert statuses <= {201, 429}
        return statuses == {201}

    until(all_is_well)
    assert pids(live_service) == running


@pytest.mark.parametrize("fault", FAULTS)
def test_a_picture_is_taken_without_the_broker_and_found_by_the_sweep(live_service, fault):
    with FAULTS[fault]("valkey"):
        started = time.monotonic()
        sku, image_id = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)))
        assert time.monotonic() - started < 2 * TOLD_WITHIN_SECONDS  # two requests
    sweep(live_service)
    assert ledger(live_service, image_id) == ("embedded", 2)
    forget(live_service, sku)


# --- the recognition worker -------------------------------------------------------------------------------
def test_a_worker_killed_in_the_middle_costs_no_more_than_what_it_held(live_service, timed):
    for _ in range(ROUNDS):
        until(lambda: timed()[0].status_code == 201)
        ((began,),) = query(live_service, "SELECT now()")
        with ThreadPoolExecutor(3) as pool:
            sent = [pool.submit(timed) for _ in range(40)]
            sent[5].result()
            for process in live_service.processes("recognition"):
                process.kill()
            answers = [answer.result() for answer in sent]
        for answer, seconds in answers:
            if answer.status_code != 201:
                assert (answer.status_code, answer.json()["code"]) == (503, "no-worker-free")
                assert int(answer.headers["Retry-After"]) > 0
                assert seconds < PATIENCE_SECONDS + TOLD_WITHIN_SECONDS
        ended = "SELECT state, count(*) FROM checkout_recognition WHERE created_at > %s GROUP BY state"
        # Each caller was told what the database says: no answer twice, and none for nobody.
        statuses = [answer.status_code for answer, _ in answers]
        assert dict(query(live_service, ended, began)) == {
            "done": statuses.count(201),
            "expired": statuses.count(503),
        }
    until(lambda: timed()[0].status_code == 201)


@contextmanager
def another_file(service: LiveService) -> Iterator[None]:
    """The embedder's file is not the one that its card names."""
    cards = (service.data_dir / "models").glob("*/card.json")
    (folder,) = (card.parent for card in cards if json.loads(card.read_text())["task"] == "embedder")
    model = folder / "model.onnx"
    with model.open("ab") as file:
        file.write(b"\0")
    try:
        yield
    finally:
        os.truncate(model, model.stat().st_size - 1)


@contextmanager
def another_dimension(service: LiveService) -> Iterator[None]:
    """The embedder that answers gives vectors of another length than those in the gallery."""
    ((was,),) = query(service, "SELECT card::text FROM gallery_installedmodel WHERE task = 'embedder'")
    change = "UPDATE gallery_installedmodel SET card = %s WHERE task = 'embedder'"
    query(service, change, json.dumps(json.loads(was) | {"dimension": 256, "hash_bits": 256}))
    try:
        yield
    finally:
        query(service, change, was)


@pytest.mark.parametrize(
    ("misfit", "told"), [(another_file, "found SHA-256"), (another_dimension, "this gallery wants 256")]
)
def test_a_model_that_does_not_fit_stops_the_worker_with_what_to_do(live_service, timed, misfit, told):
    log = live_service.data_dir / "logs" / "worker-recognition.log"
    before = log.stat().st_size
    until(lambda: timed()[0].status_code == 201)
    with misfit(live_service):
        for process in live_service.processes("recognition"):
            process.kill()
        until(lambda: b"the worker does not start" in log.read_bytes()[before:])
        lines = log.read_bytes()[before:].decode().splitlines()
        assert any("models and gallery do not fit" in line and told in line for line in lines)
        until(lambda: requests.get(f"{live_service.url}/readyz", timeout=10).status_code == 503)
    until(lambda: timed()[0].status_code == 201)


# --- enrolment --------------------------------------------------------------------------------------------
def add_picture(service: LiveService, data: bytes, sku: str = "") -> tuple[str, int]:
    """Add a picture to a product, or to a new one: its SKU and the picture's id."""
    api, headers = f"{service.url}/api/v1/products", service.headers
    if not sku:
        sku = f"FAULT-{uuid4().hex[:8]}"
        requests.post(api, json={"sku": sku, "name": sku}, headers=headers, timeout=30).raise_for_status()
    added = requests.post(f"{api}/{sku}/reference-images", files={"image": data}, headers=headers, timeout=30)
    assert added.status_code == 201, added.text
    return sku, added.json()["id"]


def remove_picture(service: LiveService, sku: str, image_id: int) -> None:
    address = f"{service.url}/api/v1/products/{sku}/reference-images/{image_id}"
    assert requests.delete(address, headers=service.headers, timeout=30).status_code == 204


def forget(service: LiveService, sku: str) -> None:
    address = f"{service.url}/api/v1/products/{sku}"
    assert requests.delete(address, headers=service.headers, timeout=30).status_code == 204


def ledger(service: LiveService, image_id: int) -> tuple[str, int] | None:
    """State and revision of a picture's row; None without one."""
    rows = query(
        service, "SELECT state, revision FROM gallery_embedding WHERE reference_image_id = %s", image_id
    )
    return rows[0] if rows else None


def let_leases_run_out(service: LiveService) -> None:
    """As if the minutes had passed that dead workers hold their rows and jobs for."""
    query(service, "UPDATE gallery_embedding SET lease_until = now() WHERE lease_until IS NOT NULL")
    query(service, "UPDATE jobs_job SET lease_until = now(), updated_at = now() - interval '1 hour'")


COMPARE = """
import json
from backend.catalogue.models import ReferenceImage
from backend.gallery.loading import get_gallery
from backend.gallery.models import Embedding
from backend.gallery.selectors import get_active_generation
generation = get_active_generation()
gallery = get_gallery(generation)
print(json.dumps({
    "pictures": sorted(ReferenceImage.objects.values_list("pk", "product_id", "revision")),
    "ledger": sorted(Embedding.objects.filter(generation=generation).values_list("reference_image_id", "revision")),
    "states": sorted(set(Embedding.objects.filter(generation=generation).values_list("state", flat=True))),
    "float": sorted(gallery.entries("float")),
    "hash": sorted(gallery.entries("hash")),
}))
"""


def assert_both_stores_agree(service: LiveService) -> None:
    """The catalogue, the ledger and both collections hold the same pictures at the same revisions, each once."""
    held = json.loads(shell(service, COMPARE).splitlines()[-1])
    assert held["float"] == held["hash"] == held["pictures"]
    assert held["ledger"] == [[picture, revision] for picture, _, revision in held["pictures"]]
    assert held["states"] == ["embedded"]


def sweep(service: LiveService) -> None:
    shell(service, "from backend.gallery.tasks import *; sweep_gallery_task()")


def make_import(n_products: int, pictures_each: int) -> bytes:
    """A zip of the folder format: products with pictures that nobody else has."""
    run = uuid4().hex[:6]
    skus = [f"FAULT-{run}-{number}" for number in range(n_products)]
    rows = [(f"{sku}-{number}.jpg", sku) for sku in skus for number in range(pictures_each)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("products.csv", "\n".join(["sku,name", *(f"{sku},{sku}" for sku in skus)]))
        archive.writestr("gallery.csv", "\n".join(["image,sku", *(",".join(row) for row in rows)]))
        for image, _ in rows:
            archive.writestr(image, make_picture(seed=random.randrange(1 << 30), size=(320, 240)))
    return buffer.getvalue()


def test_an_import_whose_workers_are_killed_ends_with_both_stores_agreeing(live_service):
    api = f"{live_service.url}/api/v1"
    for _ in range(ROUNDS):
        file = {"file": make_import(n_products=12, pictures_each=5)}
        started = requests.post(
            f"{api}/catalogue-imports", files=file, headers=live_service.headers, timeout=30
        )
        assert started.status_code == 202
        for _ in range(3):
            until(lambda: len(live_service.processes("bulk")) > 1)
            time.sleep(random.uniform(1.0, 4.0))
            for process in live_service.processes("bulk"):
                process.kill()
            let_leases_run_out(live_service)
            shell(live_service, "from backend.jobs.tasks import *; sweep_jobs_task()")
        until(lambda: len(live_service.processes("bulk")) > 1)
        job = f"{api}/jobs/{started.json()['id']}"
        until(
            lambda job=job: (
                requests.get(job, headers=live_service.headers, timeout=30).json()["state"] == "done"
            )
        )
        let_leases_run_out(live_service)
        sweep(live_service)
        assert_both_stores_agree(live_service)
        skus = query(live_service, "SELECT sku FROM catalogue_product WHERE sku LIKE 'FAULT-%%'")
        for (sku,) in skus:
            assert query(
                live_service,
                "SELECT count(*) FROM catalogue_referenceimage i JOIN catalogue_product p ON p.id = i.product_id"
                " WHERE p.sku = %s",
                sku,
            ) == [(5,)]
            forget(live_service, sku)


def test_a_picture_deleted_while_it_is_embedded_leaves_no_ghost(live_service):
    sku, first = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)))
    for number in range(6 * ROUNDS):
        _, image_id = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)), sku)
        time.sleep(0.05 * (number % 6))
        remove_picture(live_service, sku, image_id)
    until(
        lambda: (
            query(live_service, "SELECT count(*) FROM gallery_embedding WHERE state <> 'embedded'") == [(0,)]
        )
    )
    assert ledger(live_service, first) == ("embedded", 2)
    assert_both_stores_agree(live_service)
    forget(live_service, sku)


def test_a_deleted_product_never_comes_back(live_service, recognise):
    for _ in range(2 * ROUNDS):
        data = make_picture(seed=random.randrange(1 << 30), size=(320, 320))
        sku, _ = add_picture(live_service, data)
        found = until(lambda data=data, sku=sku: named(answered(recognise, data), sku))
        assert found["similarity"] > 0.9
        forget(live_service, sku)
        for _ in range(10):
            assert named(answered(recognise, data), sku) is None


def answered(recognise: Callable[[bytes], requests.Response], data: bytes) -> requests.Response:
    """What a caller gets who sends a photo again after a 503, as a busy machine answers now and then."""

    def ask() -> requests.Response | None:
        answer = recognise(data)
        return answer if answer.status_code == 201 else None

    found: requests.Response = until(ask)
    return found


def named(answer: requests.Response, sku: str) -> dict[str, Any] | None:
    """The candidate of the first item that is this product."""
    candidates = answer.json()["items"][0]["candidates"]
    return next((one for one in candidates if one["product"]["sku"] == sku), None)


# --- a switch of generations ------------------------------------------------------------------------------
def generations(service: LiveService, path: str = "", body: dict[str, Any] | None = None) -> Any:
    """GET the generations, or with a body POST it; what was answered."""
    url = f"{service.url}/api/v1/generations{path}"
    if body is None:
        return requests.get(url, headers=service.headers, timeout=60).json()
    answer = requests.post(url, headers=service.headers, json=body, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


def test_a_gallery_is_built_switched_to_and_left_again_while_clients_keep_asking(live_service, timed):
    """Of each answer generation, models and threshold set belong together, and none fails."""
    [before] = [one for one in generations(live_service) if one["state"] == "active"]
    model = before["embedder"].replace(" ", ":")
    built = generations(live_service, "", {"model": model, "index": "FLAT"})["id"]
    until(lambda: generations(live_service, f"/{built}")["state"] == "ready")
    forced = {"force": True, "reason": "a test"}
    over = threading.Event()

    def ask() -> list[requests.Response]:
        answers = []
        while not over.is_set():
            answers.append(timed()[0])
        return answers

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for _ in range(2 * ROUNDS):
                generations(live_service, f"/{built}/switch", forced)
                time.sleep(1)
                generations(live_service, "/rollback", {})
                time.sleep(1)
        finally:
            over.set()
        answers = [answer for client in clients for answer in client.result()]
    assert {answer.status_code for answer in answers} == {201}
    sets = dict(
        query(
            live_service,
            "SELECT generation_id, max(version) FROM gallery_thresholdset WHERE strategy = 'float' GROUP BY 1",
        )
    )
    told = {(answer.json()["generation"], answer.json()["threshold_set"]) for answer in answers}
    assert told == {(pk, sets[pk]) for pk in (before["id"], built)}
    retired = live_service.manage("retire_generation", str(built))
    assert retired.returncode == 0, retired.stderr
    assert [one["id"] for one in generations(live_service) if one["state"] == "active"] == [before["id"]]
