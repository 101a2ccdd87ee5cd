"""What a Celery worker of the queue `recognition` does beside its tasks: load models early, and beat a heart."""

import os
import socket
import threading
from typing import Any

import structlog
from celery import signals

from backend.common.broker import broker_client
from backend.common.problems import Problem, problem_of

HEARTBEAT_KEY = "checklane:recognition-worker"
HEARTBEAT_EVERY_SECONDS = 2
HEARTBEAT_LIVES_SECONDS = 10

log = structlog.get_logger(__name__)


def _serves_recognition(sender: Any) -> bool:
    return "recognition" in sender.app.amqp.queues.consume_from


@signals.worker_ready.connect
def _beat_heart(sender: Any, **_: Any) -> None:
    """Say every few seconds that a worker is there; /readyz asks for it."""
    if not _serves_recognition(sender):
        return
    name = f"{HEARTBEAT_KEY}:{socket.gethostname()}:{os.getpid()}"
    stopped = threading.Event()
    signals.worker_shutting_down.connect(lambda **_: stopped.set(), weak=False)

    def beat() -> None:
        while not stopped.wait(HEARTBEAT_EVERY_SECONDS):
            try:
                broker_client().set(name, 1, ex=HEARTBEAT_LIVES_SECONDS)
            except Exception as error:  # the broker is away: the next beat tries again
                log.warning("no heartbeat", reason=str(error))

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def count_recognition_workers() -> int:
    """Workers that beat lately."""
    return sum(1 for _ in broker_client().scan_iter(f"{HEARTBEAT_KEY}:*", count=1000))


@signals.worker_process_init.connect
def _warm_up(**_: Any) -> None:
    """Load and warm the models before the first photo waits for it."""
    if os.environ.get("CHECKLANE_WARM_UP") != "1":
        return
    from backend.checkout.recogniser import get_recogniser, get_serving

    try:
        get_recogniser(get_serving())
    except Exception as error:
        if not isinstance(error, Problem) and problem_of(error) is None:
            raise
        log.warning("not warmed up", reason=str(error))
