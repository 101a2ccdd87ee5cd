"""A generation in the shadow of the running service, whose bulk workers are killed under it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.end_to_end.test_faults import generations, query, until
from tests.live import LiveService
from tests.recognition.toy_models import detector_card, detector_model, write_folder

# In the detector's input of 32 x 24: three items in each photo.
BOXES = [[1, 1, 11, 23], [11, 1, 21, 23], [21, 1, 31, 23]]
SCORES = [[0.9, 0], [0.8, 0], [0.7, 0]]
# Messages that two processes work at, and have taken ahead.
HELD = 4
PHOTOS = 24


@pytest.fixture
def three_items(live_service: LiveService, tmp_path: Path) -> Iterator[None]:
    write_folder(tmp_path / "detector", detector_model(BOXES, SCORES), detector_card(name="three"))
    done = live_service.manage("install_model", str(tmp_path / "detector"), "--activate")
    assert done.returncode == 0, done.stderr
    yield
    assert live_service.manage("activate_model", "checklane-detector-int8").returncode == 0


def shadow(service: LiveService, generation: int, **asked) -> dict:
    url = f"{service.url}/api/v1/generations/{generation}/shadow"
    answer = requests.request(
        "PUT" if asked else "GET", url, headers=service.headers, json=asked or None, timeout=60
    )
    assert answer.ok, answer.text
    return answer.json()


def counted(found: dict) -> int:
    return found["recognitions"]["n"] + found["n_dropped"] + found["n_failed"]


@pytest.mark.usefixtures("three_items")
def test_killed_bulk_workers_cost_what_they_held_and_no_recognition(live_service, recognise, query_images):
    [before] = [one for one in generations(live_service) if one["state"] == "active"]
    model = before["embedder"].replace(" ", ":")
    built = generations(live_service, "", {"model": model, "index": "FLAT"})["id"]
    until(lambda: generations(live_service, f"/{built}")["state"] == "ready")
    assert shadow(live_service, built, share=1)["ended_at"] is None
    over = threading.Event()

    def kill() -> int:
        n_killed = 0
        while not over.is_set():
            until(lambda: over.is_set() or len(live_service.processes("bulk")) > 2)
            if over.wait(0.5):
                break
            for process in live_service.processes("bulk"):
                process.kill()
            n_killed += 1
        return n_killed

    with ThreadPoolExecutor(4) as pool:
        killing = pool.submit(kill)
        try:
            answers = list(pool.map(recognise, [query_images[n % 12] for n in range(PHOTOS)]))
        finally:
            over.set()
        n_killed = killing.result()
    assert {answer.status_code for answer in answers} == {201}
    assert {len(answer.json()["items"]) for answer in answers} == {3}
    assert n_killed > 0
    until(lambda: counted(shadow(live_service, built)) >= PHOTOS - HELD * n_killed)
    # What comes when the worker is back is run again.
    until(lambda: len(live_service.processes("bulk")) > 2)
    last = recognise(query_images[0]).json()["id"]
    ran = (
        "SELECT count(*) FROM checkout_shadoweditem s JOIN checkout_recogniseditem i ON i.id = s.item_id"
        " WHERE i.recognition_id = %s"
    )
    until(lambda: query(live_service, ran, last) == [(3,)])
    of_each = query(
        live_service,
        "SELECT count(*) FROM checkout_shadoweditem s JOIN checkout_recogniseditem i ON i.id = s.item_id"
        " WHERE s.shadow_id = %s GROUP BY i.recognition_id",
        shadow(live_service, built)["id"],
    )
    assert set(of_each) == {(3,)}  # no half
    found = shadow(live_service, built)
    assert found["n_failed"] == 0
    assert found["items"]["n"] >= 3
    # The same embedder finds the same in the same pictures; only the two generations' thresholds may differ.
    apart = (
        "SELECT max(abs(s.similarity - i.similarity)) FROM checkout_shadoweditem s"
        " JOIN checkout_recogniseditem i ON i.id = s.item_id WHERE s.shadow_id = %s"
    )
    [(most,)] = query(live_service, apart, found["id"])
    assert most < 1e-3
    generations(live_service, f"/{built}/switch", {"force": True, "reason": "a test"})
    assert shadow(live_service, built)["ended_because"].endswith("was switched to")
    generations(live_service, "/rollback", {})
    assert live_service.manage("retire_generation", str(built)).returncode == 0
