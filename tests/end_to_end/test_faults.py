"""What dies, hangs, fills up or gets lost while the service runs: callers learn it in time, and nothing has to be
started again."""

import io
import json
import os
import random
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGSTOP
from typing import Any
from uuid import uuid4

import psutil
import psycopg2
import pytest
import requests
from celery import Celery
from django.db import connections

from backend.checkout.recogniser import SILENCE_REMEMBERED_SECONDS
from backend.engines import embedded
from demo_catalogue import more_products, render_reference_image
from tests import faults
from tests.backend.factories import make_picture
from tests.engines import DATA_DIR
from tests.live import LiveService
from tests.recognition.toy_models import embedder_card, embedder_model, write_folder
from tests.small_disk import DISK_BYTES, filled, small_disk

pytestmark = pytest.mark.faults

# The promise is 2 s; machines that run `make test` are shared.
TOLD_WITHIN_SECONDS = 2.0 if faults.FULL else 4.0
POSTGRES_BACK_WITHIN_SECONDS = 5.0
BACK_WITHIN_SECONDS = 300.0  # a bound for tests that would hang, not a promise
PATIENCE_SECONDS = 10.0  # the setting's default
BYTES_A_ROUND = 1 << 20  # more than the pictures that a round on the small disk leaves there


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
@pytest.mark.parametrize(
    ("engine", "fault"),
    # Milvus is killed where that costs more: under a re-embedding, below.
    [(engine, fault) for engine in ENGINES for fault in FAULTS if (engine, fault) != ("milvus", "killed")],
)
def test_an_engine_that_is_away_is_told_in_time_and_its_return_needs_no_restart(
    live_service, timed, engine, fault, figure
):
    told = []
    for _ in range(faults.ENGINE_FAULTS.now):
        told += away_and_back(live_service, timed, engine, fault)
    figure(f"{engine} {fault}: {len(told)} answers, all 503, after {max(told):.2f} s at the most")


def away_and_back(
    live_service: LiveService,
    timed: Callable[[], tuple[requests.Response, float]],
    engine: str,
    fault: str,
    meanwhile: Callable[[], Any] = lambda: None,
) -> list[float]:
    """Kill or stop an engine, let it come back, and see that callers are told in time and that all is well again.

    Args:
        meanwhile: called while it is away.
    Returns:
        Seconds after which each of those was told who asked meanwhile.
    """
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
        meanwhile()
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
    return [seconds for _, seconds in answers]


@contextmanager
def clients(timed: Callable[[], tuple[requests.Response, float]], n: int) -> Iterator[list[tuple[Any, ...]]]:
    """So many tills that keep asking while the block lasts; in the list, in the end, each answer, its seconds, and the
    moment at which it came."""
    over, answers = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            answers.append((*timed(), time.monotonic()))

    with ThreadPoolExecutor(n) as pool:
        asking = [pool.submit(ask) for _ in range(n)]
        try:
            yield answers
        finally:
            over.set()
        for one in asking:
            one.result()


def test_a_restarted_postgresql_costs_seconds_of_errors(live_service, timed, figure):
    """Shut down in order and started again, with four tills that keep asking."""
    running, spans = pids(live_service), []
    for _ in range(faults.POSTGRES_RESTARTS.now):
        until(lambda: timed()[0].status_code == 201)
        with clients(timed, 4) as answers:
            time.sleep(1)
            postgres = engine_processes("postgres")[0]
            postgres.send_signal(SIGINT)  # a fast shutdown
            postgres.wait(30)
            assert embedded.ensure(DATA_DIR) == ["postgres"]
            time.sleep(POSTGRES_BACK_WITHIN_SECONDS)
        refused = [(answer, at) for answer, _, at in answers if answer.status_code != 201]
        assert {(answer.status_code, answer.json()["code"]) for answer, _ in refused} <= {
            (503, "engine-unavailable")
        }
        # They went on asking for longer than that, so the last error is the last one.
        spans.append(refused[-1][1] - refused[0][1] if refused else 0.0)
        assert spans[-1] <= POSTGRES_BACK_WITHIN_SECONDS
        assert answers[-1][0].status_code == 201
    assert pids(live_service) == running
    figure(f"{len(spans)} restarts; errors for {max(spans):.2f} s at the most")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_picture_is_taken_without_the_broker_and_found_by_the_sweep(live_service, fault):
    with FAULTS[fault]("valkey"):
        started = time.monotonic()
        sku, image_id = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)))
        assert time.monotonic() - started < 2 * TOLD_WITHIN_SECONDS  # two requests
    sweep(live_service)
    # The message of a broker that hung may have arrived after all, and its worker be at it.
    until(lambda: ledger(live_service, image_id) == ("embedded", 2))
    forget(live_service, sku)


# --- the recognition worker -------------------------------------------------------------------------------
def test_a_worker_killed_in_the_middle_costs_no_more_than_what_it_held(live_service, timed, figure):
    refused = 0
    for _ in range(faults.RECOGNITION_KILLS.now):
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
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert seconds < PATIENCE_SECONDS + TOLD_WITHIN_SECONDS
        # An engine that is slow on a busy machine fails one; all others that failed found nobody.
        codes = [answer.json()["code"] for answer, _ in answers if answer.status_code != 201]
        n_failed = codes.count("engine-unavailable")
        assert codes.count("no-worker-free") == len(codes) - n_failed
        ended = "SELECT state, count(*) FROM checkout_recognition WHERE created_at > %s GROUP BY state"
        # Each caller was told what the database says: no answer twice, and none for nobody.
        statuses = [answer.status_code for answer, _ in answers]
        counts = {"done": statuses.count(201), "expired": len(codes) - n_failed, "failed": n_failed}
        assert dict(query(live_service, ended, began)) == {state: n for state, n in counts.items() if n}
        refused += len(codes)
    figure(
        f"{faults.RECOGNITION_KILLS.now} kills under 40 photos each; {refused} photos were to be sent again"
    )
    until(lambda: timed()[0].status_code == 201)


ACTIVE_EMBEDDER = (
    "FROM gallery_installedmodel"
    " WHERE id = (SELECT embedder_id FROM gallery_generation WHERE state = 'active')"
)


@contextmanager
def another_file(service: LiveService) -> Iterator[None]:
    """The embedder's file is not the one that its card names."""
    ((name, version),) = query(service, f"SELECT name, version {ACTIVE_EMBEDDER}")
    [model] = (service.data_dir / "models").glob(f"{name}-{version}-*/model.onnx")
    with model.open("ab") as file:
        file.write(b"\0")
    try:
        yield
    finally:
        os.truncate(model, model.stat().st_size - 1)


@contextmanager
def another_dimension(service: LiveService) -> Iterator[None]:
    """The embedder that answers gives vectors of another length than those in the gallery."""
    ((pk, was),) = query(service, f"SELECT id, card::text {ACTIVE_EMBEDDER}")
    change = "UPDATE gallery_installedmodel SET card = %s WHERE id = %s"
    query(service, change, json.dumps(json.loads(was) | {"dimension": 256, "hash_bits": 256}), pk)
    try:
        yield
    finally:
        query(service, change, was, pk)


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
from backend.gallery.selectors import list_live_generations
held = []
for generation in list_live_generations():
    gallery, rows = get_gallery(generation), generation.embeddings.order_by("reference_image_id")
    held.append({
        "ledger": list(rows.values_list("reference_image_id", "revision")),
        "states": list(rows.order_by("state").values_list("state", flat=True).distinct()),
        "float": list(gallery.entries("float")),
        "hash": list(gallery.entries("hash")),
        "counted": [gallery.count("float"), gallery.count("hash")],
    })
pictures = list(ReferenceImage.objects.order_by("pk").values_list("pk", "product_id", "revision"))
print(json.dumps({"pictures": pictures, "generations": held}))
"""


def assert_both_stores_agree(service: LiveService) -> int:
    """The catalogue, and of each live generation the ledger and both collections hold the same pictures at the same
    revisions, each once.

    Returns:
        How many.
    """
    found = json.loads(shell(service, COMPARE).splitlines()[-1])
    pictures = found["pictures"]
    for held in found["generations"]:
        # A list, in which a picture that is held twice stands twice.
        assert held["float"] == held["hash"] == pictures
        assert held["counted"] == [len(pictures)] * 2
        assert held["ledger"] == [[picture, revision] for picture, _, revision in pictures]
        assert held["states"] == ["embedded"]
    return len(pictures)


def sweep(service: LiveService) -> None:
    shell(service, "from backend.gallery.tasks import *; sweep_gallery_task()")


def take_up_jobs(service: LiveService) -> None:
    """As if the minute were over after which beat sends this; whichever worker is or comes back takes it."""
    with Celery(broker=service.environ["BROKER_URL"], set_as_current=False) as app:
        app.send_task("jobs.sweep", queue="bulk")


def all_embedded(service: LiveService) -> bool:
    return query(service, "SELECT count(*) FROM gallery_embedding WHERE state <> 'embedded'") == [(0,)]


def kill_bulk_worker(service: LiveService) -> None:
    """With all its processes; the time is passed that what they held stays held."""
    for process in service.processes("bulk"):
        with suppress(psutil.NoSuchProcess):  # the first takes its children along
            process.kill()
    let_leases_run_out(service)
    take_up_jobs(service)


def import_catalogue(service: LiveService, file: bytes) -> str:
    """Send it; the job's address."""
    sent = requests.post(
        f"{service.url}/api/v1/catalogue-imports", files={"file": file}, headers=service.headers, timeout=60
    )
    assert sent.status_code == 202, sent.text
    return f"{service.url}/api/v1/jobs/{sent.json()['id']}"


def get_job(service: LiveService, url: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(url, headers=service.headers, timeout=30).json()
    return found


def forget_all(service: LiveService, but: str = "") -> None:
    """The products that tests have made."""
    for (sku,) in query(service, "SELECT sku FROM catalogue_product WHERE sku LIKE 'FAULT-%%'"):
        if sku != but:
            forget(service, sku)


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


def test_an_import_whose_workers_are_killed_ends_with_both_stores_agreeing(live_service, figure):
    products, pictures_each = 12, 5
    for _ in range(faults.IMPORTS.now):
        job = import_catalogue(live_service, make_import(products, pictures_each))
        for _ in range(3):
            until(lambda: len(live_service.processes("bulk")) > 1)
            time.sleep(random.uniform(1.0, 4.0))
            kill_bulk_worker(live_service)
        until(lambda: len(live_service.processes("bulk")) > 1)
        until(lambda job=job: get_job(live_service, job)["state"] == "done")
        assert not list(Path(tempfile.gettempdir()).glob(f"checklane-import-{job}-*"))
        let_leases_run_out(live_service)
        sweep(live_service)
        until(partial(all_embedded, live_service))
        assert_both_stores_agree(live_service)
        held = query(
            live_service,
            "SELECT count(DISTINCT p.id), count(i.id) FROM catalogue_product p JOIN catalogue_referenceimage i"
            " ON p.id = i.product_id WHERE sku LIKE 'FAULT-%%'",
        )
        assert held == [(products, products * pictures_each)]
        forget_all(live_service)
    figure(f"{faults.IMPORTS.now} imports, 3 kills in each; each picture once")


def test_a_picture_deleted_while_it_is_embedded_leaves_no_ghost(live_service, figure):
    sku, first = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)))
    for number in range(faults.HASTY_DELETIONS.now):
        _, image_id = add_picture(live_service, make_picture(seed=random.randrange(1 << 30)), sku)
        time.sleep(0.05 * (number % 6))
        remove_picture(live_service, sku, image_id)
    until(partial(all_embedded, live_service))
    assert ledger(live_service, first) == ("embedded", 2)
    assert_both_stores_agree(live_service)
    forget(live_service, sku)
    figure(f"{faults.HASTY_DELETIONS.now} pictures deleted while they were embedded; both stores agree")


def test_what_is_deleted_is_not_found_by_the_next_search(live_service, recognise, figure):
    """A product, or its only picture; searched for with that very picture, at once.

    What is not found while it is there tells nothing when it is gone: its product is drawn at the detector's
    threshold, so that the photo's box is not the reference image's. It is not counted.
    """
    at_once, deleted, ghosts, passed_over = 20, 0, 0, 0
    while deleted < faults.DELETIONS.now:
        pictures = [draw_product() for _ in range(min(at_once, faults.DELETIONS.now - deleted))]
        made = [(data, *add_picture(live_service, data)) for data in pictures]
        until(partial(all_embedded, live_service))
        there = [one for one in made if is_found(recognise, one[0], one[1])]
        for number, (data, sku, image_id) in enumerate(there):
            if number % 2:
                forget(live_service, sku)
            else:
                remove_picture(live_service, sku, image_id)
            ghosts += named(answered(recognise, data), sku) is not None
        for one in [*there[::2], *(one for one in made if one not in there)]:
            forget(live_service, one[1])
        deleted += len(there)
        passed_over += len(made) - len(there)
    assert ghosts == 0
    assert passed_over <= deleted / 5
    figure(f"{deleted} deletions, each searched for at once; {ghosts} ghosts")


def is_found(recognise: Callable[[bytes], requests.Response], data: bytes, sku: str) -> bool:
    """Whether a photo finds a product within some seconds."""
    try:
        return bool(until(lambda: named(answered(recognise, data), sku), seconds=5.0))
    except AssertionError:
        return False


def draw_product() -> bytes:
    """A picture of a product that there was none of before."""
    [product] = more_products(1, seed=random.randrange(100_000))
    buffer = io.BytesIO()
    render_reference_image(product, view=1, seed=0).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def answered(recognise: Callable[[bytes], requests.Response], data: bytes) -> requests.Response:
    """What a caller gets who sends a photo again after a 503, as a busy machine answers now and then."""

    def ask() -> requests.Response | None:
        answer = recognise(data)
        return answer if answer.status_code == 201 else None

    found: requests.Response = until(ask)
    return found


def named(answer: requests.Response, sku: str) -> dict[str, Any] | None:
    """The candidate that is this product, of the first item that has it."""
    candidates = [one for item in answer.json()["items"] for one in item["candidates"]]
    return next((one for one in candidates if one["product"]["sku"] == sku), None)


# --- a gallery that is built ------------------------------------------------------------------------------
def generations(service: LiveService, path: str = "", body: dict[str, Any] | None = None) -> Any:
    """GET the generations, or with a body POST it; what was answered."""
    url = f"{service.url}/api/v1/generations{path}"
    if body is None:
        return requests.get(url, headers=service.headers, timeout=60).json()
    answer = requests.post(url, headers=service.headers, json=body, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def same_embedder(live_service, embedder_folder, tmp_path_factory) -> str:
    """The shipped one under another version, so that its gallery is embedded and not copied."""
    return live_service.install_again(embedder_folder, tmp_path_factory.mktemp("models") / "again")


@pytest.fixture(scope="module")
def other_embedder(live_service, tmp_path_factory) -> str:
    """One of another dimension: an embedding of either finds nothing in the other's gallery but an error."""
    folder = tmp_path_factory.mktemp("models") / "other"
    write_folder(folder, embedder_model(), embedder_card())
    return live_service.install(folder)


@pytest.fixture
def build(live_service) -> Iterator[Callable[[str], int]]:
    """Begin a generation of an embedder; retired in the end."""
    begun: list[int] = []

    def begin(embedder: str) -> int:
        begun.append(generations(live_service, "", {"model": embedder, "index": "FLAT"})["id"])
        return begun[-1]

    yield begin
    for generation in begun:
        retired = live_service.manage("retire_generation", str(generation))
        assert retired.returncode == 0, retired.stderr


def n_embedded(service: LiveService, generation: int) -> int:
    told: int = generations(service, f"/{generation}")["pictures"]["embedded"]
    return told


def count_pictures(service: LiveService) -> int:
    ((there,),) = query(service, "SELECT count(*) FROM catalogue_referenceimage")
    return int(there)


def is_ready(service: LiveService, generation: int) -> bool:
    return bool(generations(service, f"/{generation}")["state"] == "ready")


def test_a_reembedding_whose_worker_is_killed_has_each_picture_once(
    live_service, same_embedder, build, figure
):
    """Killed at random points of it, by how many pictures are embedded, and at a random moment from there."""
    lacking = faults.REEMBEDDED.now - count_pictures(live_service)
    if lacking > 0:
        job = import_catalogue(live_service, make_import(-(-lacking // 5), 5))
        until(lambda: get_job(live_service, job)["state"] == "done", 1_200)
        until(partial(all_embedded, live_service), 1_200)
    wanted = count_pictures(live_service)  # a few more where other tests have left some
    generation = build(same_embedder)
    # Not in the last three batches, which may be over before the worker is dead.
    points = sorted(random.sample(range(faults.REEMBEDDED.now - 175), faults.REEMBEDDING_KILLS.now))
    killed_at = []
    for point in points:
        until(lambda point=point: n_embedded(live_service, generation) >= point, 600)
        time.sleep(random.uniform(0.0, 0.3))
        kill_bulk_worker(live_service)
        killed_at.append(n_embedded(live_service, generation))
        until(lambda: len(live_service.processes("bulk")) > 1)
    assert max(killed_at) < wanted, "it was over before its worker was killed"
    until(partial(is_ready, live_service, generation), 600)
    until(partial(all_embedded, live_service))
    n_pictures = assert_both_stores_agree(live_service)
    assert n_pictures == wanted
    figure(
        f"{n_pictures} pictures, killed when {', '.join(map(str, killed_at))} were embedded; each is there once"
    )
    forget_all(live_service)


def test_milvus_killed_under_a_reembedding_and_under_recognition(
    live_service, timed, same_embedder, build, figure
):
    """What is written meanwhile waits and drains; who asks meanwhile is told, and then answered again."""
    seconds = []
    for _ in range(faults.MILVUS_KILLS.now):
        generation = build(same_embedder)
        job = f"{live_service.url}/api/v1/jobs/{generations(live_service, f'/{generation}')['job']}"
        until(lambda generation=generation: n_embedded(live_service, generation) > 0)
        added: list[tuple[str, int]] = []

        def meanwhile(job=job, added=added) -> None:
            added.append(add_picture(live_service, make_picture(random.randrange(1 << 30))))
            until(lambda: "waiting: Milvus at" in get_job(live_service, job)["result"].get("stage", ""))

        seconds += away_and_back(live_service, timed, "milvus", "killed", meanwhile)
        until(partial(is_ready, live_service, generation))
        until(partial(all_embedded, live_service))
        [(sku, image_id)] = added
        assert ledger(live_service, image_id) == ("embedded", 2)
        assert_both_stores_agree(live_service)
        forget(live_service, sku)
    figure(
        f"{faults.MILVUS_KILLS.now} kills; {len(seconds)} answers meanwhile, all 503, after {max(seconds):.2f} s at the"
        " most; each job waited and went on; both stores agree"
    )


def test_switches_to_and_fro_fail_nobody_and_no_answer_mixes_two(
    live_service, timed, other_embedder, build, figure
):
    """Of each answer generation, embedder and threshold set belong together."""
    [before] = [one for one in generations(live_service) if one["state"] == "active"]
    built = build(other_embedder)
    until(partial(is_ready, live_service, built))
    forced = {"force": True, "reason": "a test"}
    with clients(timed, 4) as answers:
        for _ in range(faults.SWITCHES.now):
            generations(live_service, f"/{built}/switch", forced)
            time.sleep(1)
            generations(live_service, "/rollback", {})
            time.sleep(1)
    assert {answer.status_code for answer, *_ in answers} == {201}
    sets = dict(
        query(
            live_service,
            "SELECT generation_id, max(version) FROM gallery_thresholdset WHERE strategy = 'float' GROUP BY 1",
        )
    )
    embedders = {one["id"]: one["embedder"] for one in generations(live_service)}
    told = {
        (body["generation"], body["models"]["embedder"], body["threshold_set"])
        for body in (answer.json() for answer, *_ in answers)
    }
    assert told == {(pk, embedders[pk], sets[pk]) for pk in (before["id"], built)}
    assert [one["id"] for one in generations(live_service) if one["state"] == "active"] == [before["id"]]
    figure(
        f"{faults.SWITCHES.now} switches, as many rollbacks; {len(answers)} answers to 4 clients, all 201, none mixed"
    )


# --- a full disk ------------------------------------------------------------------------------------------
@contextmanager
def pictures_on(disk: Path, service: LiveService) -> Iterator[None]:
    """The running service's pictures are written to that disk, and end up where the others are."""
    media = service.data_dir / "media"
    aside = media.rename(service.data_dir / "media-aside")
    media.symlink_to(disk)
    try:
        yield
    finally:
        media.unlink()
        shutil.copytree(disk, aside, dirs_exist_ok=True)
        aside.rename(media)


def stored_names(service: LiveService) -> set[str]:
    """Of all files that rows name."""
    return {
        name
        for (name,) in query(
            service,
            "SELECT image FROM catalogue_referenceimage UNION SELECT thumbnail FROM catalogue_referenceimage"
            " UNION SELECT image FROM checkout_recognition UNION SELECT crop FROM checkout_correction"
            " UNION SELECT file FROM jobs_job",
        )
        if name
    }


def test_a_full_disk_refuses_pictures_and_keeps_nothing_of_them(
    live_service, recognise, query_images, tmp_path, figure
):
    """A photo, a reference picture and an import, with a little more room each time: what is refused leaves neither row
    nor file, and what is taken has both."""
    photo, refused, taken = query_images[0].read_bytes(), 0, 0
    running = pids(live_service)
    sku, _ = add_picture(live_service, make_picture(random.randrange(1 << 30)))
    pictures = f"{live_service.url}/api/v1/products/{sku}/reference-images"
    imports = f"{live_service.url}/api/v1/catalogue-imports"
    until(partial(all_embedded, live_service))  # from the disk on which it lies
    before = stored_names(live_service)

    def post(url: str, **files: bytes) -> requests.Response:
        return requests.post(url, files=files, headers=live_service.headers, timeout=60)

    def ask() -> requests.Response:
        """As answered where no engine was too slow for the photo."""
        deadline = time.monotonic() + BACK_WITHIN_SECONDS
        while (answer := recognise(photo)).status_code == 503 and answer.json()["code"] != "storage-full":
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.25)
        return answer

    # What each round leaves has to find room in the end.
    size = DISK_BYTES + faults.FULL_DISKS.now * BYTES_A_ROUND
    with small_disk(tmp_path, size) as disk, pictures_on(disk, live_service):
        for round_ in range(faults.FULL_DISKS.now):
            picture = make_picture(random.randrange(1 << 30), size=(640, 480))
            room = 4_096 * (round_ % 10)
            with filled(disk, but_bytes=room):
                answers = [ask(), post(pictures, image=picture), post(imports, file=make_import(1, 3))]
                for answer in answers:
                    if answer.status_code == 503:
                        refused += 1
                        assert answer.headers["Content-Type"] == "application/problem+json"
                        assert answer.json()["code"] == "storage-full"
                        assert "no room" in answer.json()["detail"]
                        assert int(answer.headers["Retry-After"]) > 0
                    else:
                        taken += 1
                        assert answer.status_code in (201, 202), answer.text
                assert room or [answer.status_code for answer in answers] == [503] * 3
                if answers[2].status_code == 202:  # its zip found room; of its pictures not each may
                    until(partial(import_has_ended, live_service, answers[2].json()["id"]))
                files = {str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()}
                assert files - {"ballast"} == stored_names(live_service) - before
            # There is room again: all goes on by itself, and the import by one word.
            if answers[2].status_code == 202:
                see_import_through(live_service, answers[2].json()["id"])
            assert ask().status_code == 201
            if answers[1].status_code == 503:
                again = post(pictures, image=picture)
                assert again.status_code == 201, again.text
            until(partial(all_embedded, live_service))
            forget_all(live_service, but=sku)
        forget_all(live_service)
        until(partial(all_embedded, live_service))  # and what was deleted is removed
    assert pids(live_service) == running
    assert_both_stores_agree(live_service)
    figure(
        f"{faults.FULL_DISKS.now} times full: {refused} refused, {taken} taken; each row has its files, each file a row"
    )


def import_has_ended(service: LiveService, job_id: str) -> bool:
    job = get_job(service, f"{service.url}/api/v1/jobs/{job_id}")
    if job["state"] == "failed":
        assert "no room" in job["failures"][-1]["reason"]
    return job["state"] in ("done", "failed")


def see_import_through(service: LiveService, job_id: str) -> None:
    url = f"{service.url}/api/v1/jobs/{job_id}"
    if get_job(service, url)["state"] == "failed":
        requests.post(f"{url}/retry", headers=service.headers, timeout=30).raise_for_status()
        until(lambda: get_job(service, url)["state"] == "done")
    job = get_job(service, url)
    assert job["result"]["pictures"] + job["result"]["pictures_already_there"] == 3
    assert job["failed"] == 0
