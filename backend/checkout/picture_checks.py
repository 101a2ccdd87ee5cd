"""Asking the gallery about a picture before it is in it, from a process that has no models loaded.

The question takes the way that a photo takes: a place among what is under way, a task on the queue `recognition`, where
the models are warm, and a wait for its signal. So tills and checks together are never more than the queue is for.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from celery import current_app
from django.conf import settings

from backend.catalogue.models import Product, check_box
from backend.catalogue.services import STORED_LONGEST_SIDE, image_limits, refuse_duplicate
from backend.checkout import admission
from backend.common.broker import broker_client
from backend.common.problems import Problem, problem_of
from backend.gallery.checks import PictureCheck, check_picture
from backend.gallery.models import Generation
from backend.gallery.selectors import get_active_generation
from recognition import images

# Tasks call services, so a service names its task instead of importing it.
CHECK_TASK = "checkout.check_picture"
RETRY_AFTER_SECONDS = 2

log = structlog.get_logger(__name__)


def check_upload(product: Product, data: bytes, box: Sequence[float] | None = None) -> dict[str, Any]:
    """What the gallery says of a picture as it would be stored; nothing is.

    Args:
        data: the picture as uploaded: JPEG, PNG or WebP.
        box: main body in pixels of the upright picture as uploaded.
    Returns:
        A PictureCheck as JSON, its box in pixels of the upright picture as uploaded.
    Raises:
        ImageRefused: the bytes are no picture, beyond the limits, or the main body is too small to be embedded.
        ValidationError: the box is not inside the picture.
        Problem: 409, the product has this very picture; as `ask`.
    """
    refuse_duplicate(product, data)
    decoded = images.decode(data, image_limits(), longest_side=STORED_LONGEST_SIDE)
    height, width = decoded.pixels.shape[:2]
    across, along = width / decoded.width, height / decoded.height
    if box is not None:
        check_box(box, decoded.width, decoded.height)
        box = [box[0] * across, box[1] * along, box[2] * across, box[3] * along]
    check = ask(product, images.encode_jpeg(decoded.pixels, quality=92), box)
    x1, y1, x2, y2 = check["box"]
    return check | {
        "width": decoded.width,
        "height": decoded.height,
        "box": [x1 / across, y1 / along, x2 / across, y2 / along],
    }


def ask(product: Product, picture: bytes, box: Sequence[float] | None) -> dict[str, Any]:
    """Have a worker check a picture, and wait for what it says.

    Args:
        picture: upright JPEG, bounded.
        box: of the main body in its pixels; None: as it would be proposed.
    Returns:
        A PictureCheck as JSON.
    Raises:
        Problem: what the worker refused; 429, too much is under way; 503, no generation is active, nobody was free
            within the patience, or an engine does not answer.
    """
    get_generation()
    signal_id = f"check:{uuid4().hex}"
    patience = settings.RECOGNITION_PATIENCE_SECONDS
    with admission.admitted(signal_id):
        # It lives as long as anybody waits for it, and needs no storage that all processes share.
        broker_client().set(_key(signal_id), picture, px=int(1000 * patience))
        current_app.send_task(
            CHECK_TASK, (signal_id, product.pk, None if box is None else list(box)), expires=patience
        )
        outcome = admission.wait_for_signal(signal_id, patience)
    if outcome is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no-worker-free",
            f"no worker was free within {patience:g} s to check the picture; ask again",
            retry_after=RETRY_AFTER_SECONDS,
        )
    if "failure" in outcome:
        failure = outcome["failure"]
        raise Problem(
            failure["status"], failure["code"], failure["detail"], retry_after=failure["retry_after"]
        )
    check: dict[str, Any] = outcome["check"]
    return check


def _key(signal_id: str) -> str:
    return f"checklane:picture:{signal_id}"


def get_generation() -> Generation:
    """The generation that answers.

    Raises:
        Problem: 503, there is none.
    """
    generation = get_active_generation()
    if generation is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no-generation",
            "no embedder is active, so a picture cannot be checked; an operator installs one with"
            " `manage.py install_model` and `activate_model`",
            retry_after=60,
        )
    return generation


def check_here(product: Product, picture: bytes, box: Sequence[float] | None) -> PictureCheck:
    """As `ask`, in this process, which loads the models: for workers.

    Raises:
        Problem: 503, no generation is active.
        ImageRefused, GalleryUnavailable, ModelRefused: as gallery.checks.check_picture.
    """
    return check_picture(get_generation(), product, picture, box)


def run_check(signal_id: str, product_id: int, box: Sequence[float] | None) -> None:
    """In the worker: check the picture that waits in the broker, and tell the web process what came of it."""
    picture = broker_client().getdel(_key(signal_id))
    if not isinstance(picture, bytes):
        return  # nobody waits any more
    try:
        product = Product.objects.filter(pk=product_id).first()
        if product is None:
            raise Problem(HTTPStatus.CONFLICT, "product-gone", "the product was deleted a moment ago")
        outcome = {"check": check_here(product, picture, box).to_dict()}
    except Exception as error:
        problem = problem_of(error)
        told = problem or Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "check-failed",
            "the check failed; the log says why",
            retry_after=RETRY_AFTER_SECONDS,
        )
        admission.signal(signal_id, {"failure": told.body() | {"retry_after": told.retry_after}})
        if problem is None:
            raise
        log.warning("picture not checked", code=problem.code, reason=str(error))
        return
    admission.signal(signal_id, outcome)
