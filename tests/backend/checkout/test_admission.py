"""Admission: a bounded number of places that free themselves; signals reach who waits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from backend.checkout import admission
from backend.common.broker import broker_client
from backend.common.problems import Problem


@pytest.fixture(autouse=True)
def empty():
    broker_client().delete(admission.IN_FLIGHT_KEY)
    yield
    broker_client().delete(admission.IN_FLIGHT_KEY)


def test_at_most_so_many_are_admitted_however_many_come_at_once(settings):
    settings.RECOGNITION_MAX_IN_FLIGHT = 5
    refusals: list[tuple[int, int | None]] = []

    def come(number: int) -> bool:
        try:
            admission.admit(f"place {number}")
        except Problem as problem:
            refusals.append((problem.status, problem.retry_after))
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        admitted = list(pool.map(come, range(40)))
    assert sum(admitted) == admission.count_in_flight() == 5
    assert refusals == [(429, 1)] * 35
    admission.leave(f"place {admitted.index(True)}")
    admission.admit("another")


def test_one_place_may_be_taken_by_many_requests(settings):
    settings.RECOGNITION_MAX_IN_FLIGHT = 1
    for _ in range(50):
        admission.admit("till:one key")
    with pytest.raises(Problem, match="1 recognitions are under way"):
        admission.admit("till:another key")


def test_a_place_whose_holder_died_falls_free_at_its_deadline(settings):
    settings.RECOGNITION_MAX_IN_FLIGHT = 1
    settings.RECOGNITION_PATIENCE_SECONDS = 0.2
    admission.admit("the dead")
    time.sleep(0.25)
    admission.admit("the living")
    assert admission.count_in_flight() == 1


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_reaches_who_waits_whether_it_comes_before_or_after(early):
    name, outcome = uuid4().hex, {"state": "done", "answer": {"ä": 1.5}}
    if early:
        admission.signal(name, outcome)
    else:
        threading.Timer(0.1, admission.signal, (name, outcome)).start()
    assert admission.wait_for_signal(name, 5) == outcome


def test_no_signal_is_none_in_time():
    started = time.monotonic()
    assert admission.wait_for_signal(uuid4().hex, 0.3) is None
    assert time.monotonic() - started < 2
