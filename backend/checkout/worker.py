"""What a Celery worker of the queue `recognition` does beside its tasks: see that its models fit, load them early, and
beat a heart."""

import multiprocessing
import os
import socket
import sys
import threading
from typing import Any

import structlog
from celery import current_app, signals

from backend.checkout.recogniser import get_recogniser, get_serving
from backend.common.broker import broker_client
from backend.common.problems import Problem, problem_of
from backend.gallery.loading import get_gallery
from backend.gallery.thresholds import search_settings
from recognition.errors import GalleryMismatch, ModelRefused
from recognition.model_card import load_model_folder

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


def _is_to_warm_up() -> bool:
    return os.environ.get("CHECKLANE_WARM_UP") == "1"


@signals.celeryd_init.connect
def _refuse_misfits(**_: Any) -> None:
    """A model that is not its card's, or not the gallery's, stops the worker before it takes a photo.

    In a process of its own, for gRPC must not be used before Celery forks.
    """
    if not _is_to_warm_up():
        return
    check = multiprocessing.get_context("fork").Process(target=_check_fit)
    check.start()
    check.join()
    if check.exitcode:
        raise SystemExit(
            "the worker does not start: its models and gallery do not fit; the line above says what to do"
        )


def _check_fit() -> None:
    """Leave the process with 1 if what is active does not fit; what may pass by itself is no reason."""
    try:
        serving = get_serving()
        for model in (serving.generation.embedder, serving.detector):
            if model is not None:
                load_model_folder(model.folder)
        get_gallery(serving.generation).check()
    except (ModelRefused, GalleryMismatch) as error:
        log.critical("models and gallery do not fit", reason=str(error))
        sys.exit(1)
    except Exception as error:
        log.warning("not known yet whether models and gallery fit", reason=str(error))


@signals.worker_process_init.connect
def _come_up(**_: Any) -> None:
    """In each process of the pool: the heart beats once the models are loaded, for until then no photo is answered."""
    if _is_to_warm_up():
        _warm_up()
    if "recognition" in current_app.amqp.queues.consume_from:
        start_heartbeat()


def _warm_up() -> None:
    """Load and warm the models, and search once, before the first photo waits for it."""
    try:
        serving = get_serving()
        get_recogniser(serving)
        get_gallery(serving.generation).probe(search_settings(serving.strategy))
    except Exception as error:
        if not isinstance(error, Problem) and problem_of(error) is None:
            raise
        log.warning("not warmed up", reason=str(error))
