"""What a Celery worker of the queue `recognition` does beside its tasks: load models early, and beat a heart."""

import os
import socket
import threading
from typing import Any

import structlog
from celery import current_app, signals

from backend.common.broker import broker_client
from backend.common.problems import Problem, problem_of

HEARTBEAT_KEY = "checklane:recognition-worker"
HEARTBEAT_EVERY_SECONDS = 2
HEARTBEAT_LIVES_SECONDS = 10

log = structlog.get_logger(__name__)


def start_heartbeat() -> threading.Event:
    """Say every few seconds that this process is there; /readyz asks for it.

    Returns:
        What stops it, when set.
    """
    name = f"{HEARTBEAT_KEY}:{socket.gethostname()}:{os.getpid()}"
    stopped = threading.Event()

    def beat() -> None:
        while True:
            try:
                broker_client().set(name, 1, ex=HEARTBEAT_LIVES_SECONDS)
            except Exception as error:  # the broker is away: the next beat tries again
                log.warning("no heartbeat", reason=str(error))
            if stopped.wait(HEARTBEAT_EVERY_SECONDS):
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    return stopped


def count_recognition_workers() -> int:
    """Worker processes that beat lately."""
    return sum(1 for _ in broker_client().scan_iter(f"{HEARTBEAT_KEY}:*", count=1000))


@signals.worker_process_init.connect
def _come_up(**_: Any) -> None:
    """In each process of the pool: the heart beats once the models are loaded, for until then no photo is answered."""
    if os.environ.get("CHECKLANE_WARM_UP") == "1":
        _warm_up()
    if "recognition" in current_app.amqp.queues.consume_from:
        start_heartbeat()


def _warm_up() -> None:
    """Load and warm the models before the first photo waits for it."""
    from backend.checkout.recogniser import get_recogniser, get_serving

    try:
        get_recogniser(get_serving())
    except Exception as error:
        if not isinstance(error, Problem) and problem_of(error) is None:
            raise
        log.warning("not warmed up", reason=str(error))
