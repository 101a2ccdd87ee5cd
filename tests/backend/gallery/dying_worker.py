"""A worker that gets as far as the edge between both stores, says so, and waits there to be killed.

multiprocessing's fork server imports it once; each process that dies is then made in a moment.
"""

import time
from multiprocessing.connection import Connection
from typing import NoReturn

import django

django.setup()

from backend.catalogue.models import BoxSource, Product, ReferenceImage  # noqa: E402
from backend.catalogue.services import add_reference_image, set_main_body  # noqa: E402
from backend.gallery.tasks import enrol_task  # noqa: E402
from recognition.gallery import Gallery  # noqa: E402
from tests.backend.factories import make_picture  # noqa: E402

# What PostgreSQL has committed, and whether Milvus has written it when the process dies.
DEATHS = {
    "added": ("add", False),
    "changed": ("change", False),
    "deleted": ("delete", False),
    "added, written, not yet noted": ("add", True),
    "deleted, written, not yet noted": ("delete", True),
}


def work(death: str, reference_image_id: int, seed: int, at_the_edge: Connection) -> None:
    """Do one thing to a picture in PostgreSQL, then go on to Milvus as the bulk worker does, up to the edge.

    Args:
        death: one of DEATHS.
        reference_image_id: of the picture that is changed or deleted, or of one whose product gets another.
        seed: of the picture that is added.
        at_the_edge: is sent the id of the picture that it is about.
    """
    act, written = DEATHS[death]
    image = ReferenceImage.objects.get(pk=reference_image_id)
    pk = image.pk
    if act == "add":
        product = Product.objects.get(pk=image.product_id)
        pk = add_reference_image(product=product, data=make_picture(seed), box=(5, 5, 100, 100)).pk
    elif act == "change":
        set_main_body(image, (seed % 40, 0, 120, 110), BoxSource.PERSON)
    else:
        image.delete()

    def wait_there() -> NoReturn:
        at_the_edge.send(pk)
        while True:
            time.sleep(60)

    for name in ("upsert", "delete"):
        _stop_at(name, wait_there, written=written)
    enrol_task([pk])


def _stop_at(name: str, wait_there, *, written: bool) -> None:  # type: ignore[no-untyped-def]
    write = getattr(Gallery, name)

    def stop(gallery: Gallery, *arguments: object) -> None:
        if written:
            write(gallery, *arguments)
        wait_there()

    setattr(Gallery, name, stop)
