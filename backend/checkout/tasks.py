"""Celery tasks of the checkout; settings route `recognise`, `echo` and `check_picture` to the queue `recognition`,
`shadow` to a queue of its own."""

from uuid import UUID

from celery import shared_task

from backend.checkout import admission, picture_checks, review, services, shadows
from backend.checkout.models import Recognition


@shared_task(name=services.RECOGNISE_TASK)
def recognise_task(recognition_id: str, image: str, n_candidates: int, product_set_id: int | None) -> None:
    """All that the worker needs of the row comes with the message, which saves reading it."""
    services.run_recognition(
        Recognition(
            pk=UUID(recognition_id), image=image, n_candidates=n_candidates, product_set_id=product_set_id
        )
    )


@shared_task(name="checkout.echo")
def echo_task(signal_id: str) -> None:
    """Nothing but the way there and back: what web, broker and worker cost by themselves."""
    admission.signal(signal_id, {"state": "done"})


@shared_task(name=picture_checks.CHECK_TASK)
def check_picture_task(signal_id: str, product_id: int, box: list[float] | None) -> None:
    """The picture itself waits in the broker."""
    picture_checks.run_check(signal_id, product_id, box)


@shared_task(name=shadows.SHADOW_TASK)
def shadow_task(shadow_id: int, recognition_id: str, boxes: list[list[float]], sent_at: float) -> None:
    shadows.run_shadow(shadow_id, UUID(recognition_id), boxes, sent_at)


@shared_task(name="checkout.check_corrections", expires=60)
def check_corrections_task() -> None:
    """Each minute: what the gallery says of corrections that are new to it."""
    review.check_open_corrections()


@shared_task(name="checkout.expire_recognitions", expires=60)
def expire_recognitions_task() -> None:
    services.expire_recognitions()


@shared_task(name="checkout.purge_query_images", expires=3600)
def purge_query_images_task() -> None:
    services.purge_query_images()


@shared_task(name="checkout.delete_old_recognitions", expires=3600)
def delete_old_recognitions_task() -> None:
    services.delete_old_recognitions()
