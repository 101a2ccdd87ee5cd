"""The recognition worker's heart."""

import time

from backend.checkout import worker


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
