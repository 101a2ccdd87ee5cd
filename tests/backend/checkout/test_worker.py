"""The recognition worker's heart."""

import time

import pytest
from django.db import connection

from backend.checkout import worker
from backend.common.broker import broker_client
from backend.gallery import loading
from backend.gallery.models import Generation


def test_a_process_is_counted_while_its_heart_beats():
    before = worker.count_recognition_workers()
    stop = worker.start_heartbeat()
    try:
        deadline = time.monotonic() + 5
        while worker.count_recognition_workers() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.count_recognition_workers() == before + 1
    finally:
        stop.set()


def test_the_heart_beats_only_after_the_models_are_loaded(monkeypatch):
    """Until then /readyz must not say that a photo would be answered."""
    order = []
    monkeypatch.setenv("CHECKLANE_WARM_UP", "1")
    monkeypatch.setattr(worker, "_warm_up", lambda: order.append("models"))
    monkeypatch.setattr(worker, "start_heartbeat", lambda: order.append("heart"))
    worker.current_app.amqp.queues.select("recognition")
    worker._come_up()
    assert order == ["models", "heart"]
    worker.current_app.amqp.queues.select("bulk")
    worker._come_up()
    assert order == ["models", "heart", "models"]


@pytest.mark.django_db(transaction=True)
def test_once_warm_no_connection_is_left_for_celery_to_close_by_its_number(active):
    """It closes the number, then the connection closes it again, and with it whatever has got the number meanwhile."""
    list(Generation.objects.all())
    assert connection.connection is not None
    worker._warm_up()
    assert connection.connection is None


@pytest.mark.parametrize(
    ("queues", "gives_way"), [("bulk", True), ("recognition", False), ("bulk,recognition", False)]
)
def test_a_worker_of_bulk_work_alone_gives_way(monkeypatch, queues, gives_way):
    nice = []
    monkeypatch.setattr(worker.os, "nice", nice.append)
    worker.current_app.amqp.queues.select(queues)
    worker._give_way()
    assert bool(nice) == gives_way


@pytest.fixture
def heart():
    """This process as a recognition worker, and no other."""
    for key in broker_client().scan_iter("checklane:*generation*"):
        broker_client().delete(key)
    stop = worker.start_heartbeat()
    while not worker.count_recognition_workers():
        time.sleep(0.01)
    yield
    stop.set()
    for key in broker_client().scan_iter(f"{worker.HEARTBEAT_KEY}:*"):
        broker_client().delete(key)


@pytest.mark.django_db(transaction=True)  # a worker's thread reads what was committed
def test_what_is_about_to_answer_is_loaded_by_each_worker_before(active, heart):
    loading.forget_all_but([])
    assert worker.load_ahead(active)
    assert [key[0] for key in loading._embedders._values] == [active.embedder_id]
    active.pk += 1_000  # nobody knows it, so nobody can load it
    assert not worker.load_ahead(active, seconds=3.0)


@pytest.mark.django_db
def test_without_a_worker_a_switch_waits_for_nobody(active):
    assert worker.load_ahead(active, seconds=60.0)
