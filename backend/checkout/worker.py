"""What a Celery worker of the queue `recognition` does beside its tasks: see that its models fit, load them early, beat
a heart, and load what is about to be switched to."""

import multiprocessing
import os
import socket
import sys
import threading
import time
from typing import Any

import structlog
from celery import current_app, signals
from django.db import connection

from backend.checkout.recogniser import get_recogniser, get_serving
from backend.common.broker import broker_client
from backend.common.problems import Problem, engine_of, problem_of
from backend.gallery.loading import get_embedder, get_gallery
from backend.gallery.models import Generation
from backend.gallery.selectors import get_generation
from backend.gallery.thresholds import search_settings
from recognition.errors import GalleryMismatch, ModelRefused
from recognition.model_card import load_model_folder

HEARTBEAT_KEY = "checklane:recognition-worker"
HEARTBEAT_EVERY_SECONDS = 2
HEARTBEAT_LIVES_SECONDS = 10
# Names the generation that is about to answer; each process that has it loaded says so under the second.
NEXT_KEY = "checklane:next-generation"
LOADED_KEY = "checklane:loaded-generation"
NEXT_LIVES_SECONDS = 60
LOADED_WITHIN_SECONDS = 20.0
BULK_NICENESS = 10  # of Linux' 0 to 19: about a tenth of a core that both want

log = structlog.get_logger(__name__)


def start_heartbeat() -> threading.Event:
    """Say every few seconds that this process is there; /readyz asks for it.

    Returns:
        What stops it, when set.
    """
    name = f"{socket.gethostname()}:{os.getpid()}"
    stopped = threading.Event()

    def beat() -> None:
        known = None
        while True:
            try:
                broker_client().set(f"{HEARTBEAT_KEY}:{name}", 1, ex=HEARTBEAT_LIVES_SECONDS)
                following = broker_client().get(NEXT_KEY)
                if following is not None and following != known:
                    threading.Thread(target=_load, args=(int(following), name), daemon=True).start()
                known = following
            except Exception as error:  # the broker is away: the next beat tries again
                log.warning("no heartbeat", reason=str(error))
            if stopped.wait(HEARTBEAT_EVERY_SECONDS):
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    return stopped


def count_recognition_workers() -> int:
    """Worker processes that beat lately."""
    return _count_keys(HEARTBEAT_KEY)


def _count_keys(start: str) -> int:
    return sum(1 for _ in broker_client().scan_iter(f"{start}:*", count=1000))


def _load(generation_id: int, name: str) -> None:
    """Have a generation's embedder loaded and warm, and its gallery connected, while photos go on being answered."""
    try:
        generation = get_generation(generation_id)
        get_embedder(generation.embedder)
        get_gallery(generation).probe(search_settings())
        broker_client().set(f"{LOADED_KEY}:{generation_id}:{name}", 1, ex=NEXT_LIVES_SECONDS)
    except Exception as error:  # it is loaded then by the first photo after the switch
        log.warning("generation not loaded ahead", generation=generation_id, reason=str(error))
    finally:
        connection.close()


def load_ahead(generation: Generation, *, seconds: float = LOADED_WITHIN_SECONDS) -> bool:
    """Have every recognition worker load a generation before it is switched to, so that no photo waits for it.

    Returns:
        Whether all have within `seconds`; if not, the first photos after the switch wait.
    """
    try:
        broker_client().set(NEXT_KEY, generation.pk, ex=NEXT_LIVES_SECONDS)
        deadline = time.monotonic() + seconds
        while (n_loaded := _count_keys(f"{LOADED_KEY}:{generation.pk}")) < count_recognition_workers():
            if time.monotonic() > deadline:
                log.warning("not all workers loaded it ahead", generation=generation.pk, loaded=n_loaded)
                return False
            time.sleep(0.1)
    except Exception as error:
        if engine_of(error) is None:
            raise
        log.warning("the broker is away: nothing is loaded ahead", generation=generation.pk)
        return False
    return True


def _is_to_warm_up() -> bool:
    return os.environ.get("CHECKLANE_WARM_UP", "").lower() in {"1", "true"}


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


@signals.worker_process_init.connect
def _give_way(**_: Any) -> None:
    """A worker that takes no photos works when nobody at a till waits for the same cores."""
    if set(current_app.amqp.queues.consume_from) <= {"bulk", "shadow"}:
        os.nice(BULK_NICENESS)


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
    finally:
        # Celery, which comes after, takes a connection that is open here for the parent's: it closes the descriptor by
        # its number, then the connection closes that number again, which may be the heart's socket by then.
        connection.close()
